"""Output layer and loss in chunks, against PyTorch's own in one piece."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tianti.objective.linear_cross_entropy as module
from tianti.objective.linear_cross_entropy import IGNORED, linear_cross_entropy

TOKENS, WIDTH, VOCABULARY = 37, 8, 50


@pytest.fixture
def made():
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    labels[::5] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def plain(hidden, weight, labels, smoothing=0.0, z_loss=0.0):
    logits = F.linear(hidden, weight)
    loss = F.cross_entropy(
        logits, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    penalty = logits.logsumexp(-1).square()[labels != IGNORED].sum()
    return loss + z_loss * penalty


@pytest.mark.parametrize("rows", [1, 7, 36, 37, 1000])
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0, 0), (0.1, 0), (0, 1e-2), (0.2, 1e-3)])
def test_loss_and_gradients_are_those_of_one_piece(made, monkeypatch, rows, smoothing, z_loss):
    monkeypatch.setattr(module, "CHUNK_LOGITS", rows * VOCABULARY)
    hidden, weight, labels = made
    expected = plain(hidden, weight, labels, smoothing, z_loss)
    wanted = torch.autograd.grad(expected / 3, (hidden, weight))
    total, nats = linear_cross_entropy(
        hidden, weight, labels, label_smoothing=smoothing, z_loss=z_loss
    )
    found = torch.autograd.grad(total / 3, (hidden, weight))
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(nats, plain(hidden, weight, labels), rtol=1e-12, atol=0)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_where_nothing_is_supervised_loss_and_gradients_are_zero(made):
    hidden, weight, labels = made
    total, nats = linear_cross_entropy(hidden, weight, torch.full_like(labels, IGNORED))
    assert total.item() == nats.item() == 0
    for gradient in torch.autograd.grad(total, (hidden, weight)):
        assert not gradient.any()


def test_without_gradients_only_the_loss_is_computed(made):
    hidden, weight, labels = made
    with torch.no_grad():
        total, nats = linear_cross_entropy(hidden, weight, labels)
    assert not total.requires_grad
    torch.testing.assert_close(nats, plain(hidden, weight, labels).detach(), rtol=1e-12, atol=0)


def test_in_bfloat16_the_loss_stays_near(made):
    hidden, weight = (tensor.detach().float().requires_grad_() for tensor in made[:2])
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = linear_cross_entropy(hidden, weight, made[2])
    total.backward()
    assert total.dtype == weight.grad.dtype == torch.float32
    assert total.item() == pytest.approx(plain(hidden, weight, made[2]).item(), rel=0.02)


def test_a_frozen_output_layer_still_passes_the_gradient_on(made):
    hidden, weight, labels = made
    total, _ = linear_cross_entropy(hidden, weight.detach(), labels)
    expected = torch.autograd.grad(plain(hidden, weight, labels), hidden)
    torch.testing.assert_close(torch.autograd.grad(total, hidden), expected)


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "expected"),
    # As many as fit, evenly; where nothing divides, as many as fit.
    [(16384, 50304, 2048), (32768, 50304, 2048), (1009, 50304, 1009), (10007, 50304, 2560)],
)
def test_chunks_on_a_gpu_are_of_one_size_where_they_can_be(tokens, vocabulary, expected):
    weight = torch.empty(vocabulary, 8, device="meta")
    assert module.chunk_rows(tokens, weight, vocabulary) == expected


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_has_no_gradient_and_the_rest_has_the_same(frozen):
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (7,))
    linear_cross_entropy(hidden, weight, labels)[0].backward()
    whole = {"hidden": hidden.grad, "weight": weight.grad}
    kept = {"hidden": hidden.detach(), "weight": weight.detach()}
    learnt = next(name for name in kept if name != frozen)
    kept[learnt].requires_grad_(True)
    linear_cross_entropy(kept["hidden"], kept["weight"], labels)[0].backward()
    assert kept[frozen].grad is None
    torch.testing.assert_close(kept[learnt].grad, whole[learnt])


def test_no_token_at_all_costs_nothing():
    hidden = torch.zeros(0, 8, requires_grad=True)
    weight = torch.randn(5, 8, requires_grad=True)
    total, nats = linear_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.long))
    total.backward()
    assert (total.item(), nats.item()) == (0, 0)
    assert hidden.grad.shape == (0, 8)
    assert not weight.grad.any()
