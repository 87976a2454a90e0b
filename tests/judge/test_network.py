"""Likelihoods are those of a plain loop, whatever stands beside a request."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.judge.conftest import REQUESTS, network_of
from tianti.errors import UserError
from tianti.evaluate.models import network as network_module
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.network import identity_of
from tianti.generate.batch import generate_texts
from tianti.generate.config import SamplingConfig


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
    [made] = network.generate(["The"], max_tokens=3, stop=[], temperature=0.0, seed=0)
    assert network.likelihoods([Request("The", made.text)])[0].greedy


def test_of_a_long_prompt_the_end_is_taken_and_that_is_said(network):
    prompt = "春眠不觉晓，处处闻啼鸟。The statement is executed " * 20
    ids = network.tokenizer.encode(prompt)
    settings = {"stop": [], "temperature": 0.0, "seed": 0}
    for new in (1, 2, 5):
        room = network.context - 1 - new
        [made] = network.generate([prompt], max_tokens=new, **settings)
        assert made.truncated == len(ids) - room
        sampling = SamplingConfig(max_tokens=new, temperature=0.0)
        starts = [[network.tokenizer.end_of_text, *ids[-room:]]]
        [alone] = generate_texts(
            network._model, network.tokenizer, [prompt], sampling, starts=starts
        )
        assert made.text == alone.text
        assert len(alone.ids) == new
    with pytest.raises(UserError, match="no room for a prompt"):
        network.generate(["a"], max_tokens=network.context - 1, **settings)


def test_scores_are_the_same_however_many_are_held_at_once(network, monkeypatch):
    requests = [
        Request("The statement is executed", f" {word} again") for word in ["a", "b", "c", "d"]
    ]
    whole = network.likelihoods(requests)
    monkeypatch.setattr(network_module, "_SCORES", 3 * network.tokenizer.vocab_size)
    for one, other in zip(network.likelihoods(requests), whole, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-4)


def test_tokens_are_asked_as_they_are_given(network):
    whole = network.tokenizer.encode("The statement is executed " * 40)
    assert len(whole) > network.context
    asked = whole[-5:]
    [(nats, _)] = network.token_likelihoods([(whole[:-5], asked)])
    read = torch.tensor([whole[-network.context - 1 : -1]])
    with torch.no_grad():
        logs = network._model.logits(network._model(read))[0, -5:].log_softmax(-1)
    assert nats == pytest.approx(-logs[range(5), asked].sum().item(), abs=1e-4)


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


def test_the_identity_sees_parts_of_weights_and_tokenizers_of_all_forms(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.rename(tmp_path / "m" / "model-00001-of-00002.safetensors")
    found = [identity_of(tmp_path / "m")]
    for name in ("model-00002-of-00002.safetensors", "tokenizer_config.json", "merges.txt"):
        (tmp_path / "m" / name).write_bytes(b"x")
        found.append(identity_of(tmp_path / "m"))
    assert len(set(found)) == 4
