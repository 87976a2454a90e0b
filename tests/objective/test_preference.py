"""Objectives of preference, beside TRL's values on the same batch."""

from __future__ import annotations

import pytest
import torch

from tianti.objective.log_probs import token_log_probs
from tianti.objective.preference import (
    Answers,
    answers_of,
    dpo_loss,
    ipo_loss,
    kto_divergence,
    kto_loss,
    orpo_loss,
    simpo_loss,
)

PAIRS, TIME, VOCABULARY = 3, 9, 13
# Of TRL 1.16.0 on the batch below: mean loss, and the norm of its gradient by the logits.
TRL = {
    "dpo": (0.7111991, 0.1005824),
    "dpo, beta 0.5": (0.7921696, 0.5351513),
    "ipo": (25.6937351, 3.7488906),
    "orpo": (0.0498467, 0.0156516),
    "simpo": (0.8128551, 0.4348505),
    "kto": (0.4981109, 0.0247144),
    "kto, weights": (0.5044892, 0.0264162),
}


def batch():
    """Ids, which of them are answers, and logits of model and reference: the better ones first."""
    rows = torch.arange(2 * PAIRS)[:, None]
    ids = (rows * 7 + torch.arange(TIME) * 5 + rows * torch.arange(TIME)) % VOCABULARY
    begin, end = 2 + rows % 3, TIME - rows % 2
    places = torch.arange(TIME)
    answer = (places >= begin) & (places < end)
    numbers = torch.arange(2 * PAIRS * TIME * VOCABULARY).double().view(-1, TIME, VOCABULARY)
    logits, reference = 2 * torch.sin(numbers * 0.7), 2 * torch.sin(numbers * 0.7 + 0.3)
    return ids, answer, logits.float().requires_grad_(), reference.float()


def answers(ids, answer, logits):
    labels = ids[:, 1:].masked_fill(~answer[:, 1:], -100)
    log_probs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    return answers_of(log_probs, labels)


def half(found: Answers, number: int) -> Answers:
    return Answers(found.log_probs.chunk(2)[number], found.tokens.chunk(2)[number])


def pairs():
    ids, answer, logits, reference = batch()
    ours, theirs = answers(ids, answer, logits), answers(ids, answer, reference)
    return logits, [half(ours, 0), half(ours, 1), half(theirs, 0), half(theirs, 1)]


def kto(**weights):
    ids, answer, logits, reference = batch()
    ours, theirs = answers(ids, answer, logits), answers(ids, answer, reference)
    # Answers to other prompts: those of the batch, a half more likely.
    other = Answers(ours.log_probs.detach() + 0.5, ours.tokens)
    good = torch.tensor([True, False, True, True, False, False])
    return logits, kto_loss(ours, theirs, good, kto_divergence(other, theirs), **weights)


CASES = {
    "dpo": lambda four: dpo_loss(*four),
    "dpo, beta 0.5": lambda four: dpo_loss(*four, beta=0.5),
    "ipo": lambda four: ipo_loss(*four),
    "orpo": lambda four: orpo_loss(*four[:2]),
    "simpo": lambda four: simpo_loss(*four[:2]),
}


@pytest.mark.parametrize("name", TRL)
def test_losses_are_those_of_trl(name):
    if name.startswith("kto"):
        weights = {"good_weight": 1.3, "bad_weight": 0.7} if "weights" in name else {}
        logits, found = kto(**weights)
        count = 2 * PAIRS
    else:
        logits, four = pairs()
        found, count = CASES[name](four), PAIRS
    loss, norm = TRL[name]
    assert found.total.item() / count == pytest.approx(loss, rel=1e-5)
    (gradient,) = torch.autograd.grad(found.total / count, logits)
    assert gradient.norm().item() == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_split_of_the_pairs_adds_up_to_the_same(name):
    _, four = pairs()
    whole = CASES[name](four)
    parts = [
        CASES[name]([Answers(a.log_probs[part], a.tokens[part]) for a in four])
        for part in (slice(0, 1), slice(1, 3))
    ]
    assert sum(part.total for part in parts).item() == pytest.approx(whole.total.item(), rel=1e-6)
    assert sum(part.right for part in parts) == whole.right


def test_smoothed_labels_are_a_mixture_of_both_orders():
    _, (chosen, rejected, *reference) = pairs()
    right = dpo_loss(chosen, rejected, *reference).total
    wrong = dpo_loss(rejected, chosen, *reversed(reference)).total
    mixed = dpo_loss(chosen, rejected, *reference, label_smoothing=0.2).total
    assert mixed.item() == pytest.approx((0.8 * right + 0.2 * wrong).item(), rel=1e-6)


def test_odds_of_what_is_all_but_sure_are_finite():
    sure = Answers(torch.tensor([-1e-9, -0.2], requires_grad=True), torch.tensor([1, 1]))
    unlikely = Answers(torch.tensor([-90.0, -1e-9], requires_grad=True), torch.tensor([1, 1]))
    found = orpo_loss(sure, unlikely)
    gradients = torch.autograd.grad(found.total, [sure.log_probs, unlikely.log_probs])
    assert found.total.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_log_probabilities_and_their_gradients_are_the_plain_ones(monkeypatch, softcap, chunk):
    from tianti.objective import log_probs

    monkeypatch.setattr(log_probs, "chunk_rows", lambda *_: chunk)
    torch.manual_seed(0)
    hidden = torch.randn(2, 11, 8, requires_grad=True)
    weight = torch.randn(17, 8, requires_grad=True)
    labels = torch.randint(0, 17, (2, 11))
    labels[0, :5] = labels[1, 9:] = -100
    scores = hidden @ weight.t()
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    expected = scores.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None]).squeeze(2)
    expected = expected.masked_fill(labels == -100, 0.0)
    found = token_log_probs(hidden, weight, labels, softcap)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(2, 11)
    ours = torch.autograd.grad(found, [hidden, weight], upstream)
    plain = torch.autograd.grad(expected, [hidden, weight], upstream)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_a_frozen_output_layer_gets_no_gradient():
    hidden = torch.randn(1, 4, 8, requires_grad=True)
    weight = torch.randn(17, 8)
    token_log_probs(hidden, weight, torch.tensor([[1, -100, 3, 4]])).sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad[0, 1].eq(0).all()
