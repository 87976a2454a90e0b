"""Likelihoods are those of a plain loop, whatever stands beside a request."""

from __future__ import annotations

import pytest
import torch

from tests.judge.conftest import REQUESTS, network_of
from tianti.errors import UserError
from tianti.evaluate.models.base import Request


def plainly(folder, request, begin=True):
    """Gives nats, tokens and greediness of a request by a loop over its tokens."""
    network = network_of(folder)
    model, tokenizer = network._model, network.tokenizer
    context = request.context.rstrip(" ")
    whole = tokenizer.encode(request.context + request.continuation)
    before = tokenizer.encode(context)
    shared = 0
    while shared < len(before) and before[shared] == whole[shared]:
        shared += 1
    ids = [tokenizer.end_of_text, *whole] if begin or not shared else whole
    asked = len(whole) - shared
    ids = ids[-129:]
    nats, greedy = 0.0, True
    for place in range(len(ids) - asked, len(ids)):
        logs = model.logits(model(torch.tensor([ids[:place]]))[0, -1]).log_softmax(-1)
        nats -= logs[ids[place]].item()
        greedy &= int(logs.argmax()) == ids[place]
    return nats, asked, greedy


@pytest.mark.parametrize("begin", [True, False])
@torch.no_grad()
def test_likelihoods_are_those_of_a_plain_loop(model_folder, begin):
    found = network_of(model_folder, begin=begin).likelihoods(REQUESTS)
    for request, one in zip(REQUESTS, found, strict=True):
        nats, tokens, greedy = plainly(model_folder, request, begin)
        assert one.nats == pytest.approx(nats, abs=1e-4)
        assert (one.tokens, one.greedy) == (tokens, greedy)
        assert one.bytes == len(request.continuation.encode())
        assert bool(one.truncated) == (len(request.context) > 500)


def test_a_request_has_one_answer_alone_and_among_others(network):
    together = network.likelihoods(REQUESTS)
    for request, one in zip(REQUESTS, together, strict=True):
        [alone] = network.likelihoods([request])
        assert alone.nats == pytest.approx(one.nats, abs=1e-4)


def test_the_likeliest_continuation_is_greedy(network):
    [text] = network.generate(["The"], max_tokens=3, stop=[], temperature=0.0, seed=0)
    assert network.likelihoods([Request("The", text)])[0].greedy


@pytest.mark.parametrize("continuation", ["", "a long one " * 200])
def test_what_cannot_be_scored_is_named(network, continuation):
    with pytest.raises(UserError, match="cannot be scored"):
        network.likelihoods([Request("The", continuation)])


def test_the_identity_is_that_of_weights_and_settings(model_folder, other_folder):
    found = {
        network_of(model_folder).identity,
        network_of(model_folder, begin=False).identity,
        network_of(other_folder).identity,
    }
    assert len(found) == 3
    assert network_of(model_folder).identity == network_of(model_folder).identity
