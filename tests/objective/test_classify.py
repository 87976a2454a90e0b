"""Objectives of classification, beside PyTorch's, closed forms and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tianti.objective.classify import (
    class_loss,
    class_weights,
    distance,
    log_priors,
    multi_label_loss,
    regression_loss,
)

COUNTS = [50, 30, 15, 5]


@pytest.fixture
def batch():
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 1, 2, -100, 3, 0, 1])
    return torch.randn(8, 4, requires_grad=True), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_cross_entropy_of_pytorch(batch, smoothing, weighted):
    logits, labels = batch
    weights = class_weights(COUNTS, "inverse") if weighted else None
    found = class_loss(logits, labels, weights_C=weights, label_smoothing=0.0)
    expected = F.cross_entropy(logits, labels, weight=weights)
    torch.testing.assert_close(found.total / found.weight, expected)
    if not weighted:
        found = class_loss(logits, labels, label_smoothing=smoothing)
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
        torch.testing.assert_close(found.total, expected)


def test_a_split_of_the_examples_adds_up_to_the_same(batch):
    logits, labels = batch
    options = {"weights_C": class_weights(COUNTS, "effective"), "focus": 2.0}
    whole = class_loss(logits, labels, **options)
    parts = [class_loss(logits[part], labels[part], **options) for part in (slice(3), slice(3, 8))]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    torch.testing.assert_close(sum(p.weight for p in parts), whole.weight)


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_weights_have_a_mean_of_one_and_rarer_classes_have_more(kind):
    weights = class_weights(COUNTS, kind)
    assert (weights * torch.tensor(COUNTS)).sum().item() == pytest.approx(sum(COUNTS))
    assert weights.tolist() == sorted(weights.tolist())
    assert class_weights([10, 0, 3], kind).isfinite().all()


def test_effective_numbers_lie_between_none_and_the_inverse():
    ratio = [class_weights(COUNTS, "effective", beta=b) for b in (1e-9, 0.9, 1 - 1e-9)]
    spread = [(weights.max() / weights.min()).item() for weights in ratio]
    assert spread[0] == pytest.approx(1)
    assert spread[0] < spread[1] < spread[2]
    assert spread[2] == pytest.approx(10, rel=1e-3)


def test_the_focal_loss_is_that_of_its_equation(batch):
    logits, labels = batch
    expected = 0.0
    for row, label in zip(logits.detach().numpy(), labels.tolist(), strict=True):
        if label >= 0:
            chance = np.exp(row[label]) / np.exp(row).sum()
            expected -= (1 - chance) ** 2 * math.log(chance)
    assert class_loss(logits, labels, focus=2.0).total.item() == pytest.approx(expected, rel=1e-5)


def test_adjusted_scores_learn_what_balanced_examples_would_say():
    # With scores free for each class, the optimum is the share of each, and adjusted: all alike.
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [3] * 5)
    free = torch.zeros(4, requires_grad=True)
    descent = torch.optim.LBFGS([free], max_iter=50)

    def closure():
        descent.zero_grad()
        found = class_loss(free.expand(100, 4), labels, log_priors_C=log_priors(COUNTS))
        loss = found.total / found.weight
        loss.backward()
        return loss

    descent.step(closure)
    assert (free - free.mean()).abs().max().item() < 1e-3


def test_several_labels_and_numbers(batch):
    logits, _ = batch
    labels = torch.tensor([[1, 0, 0, 1]] * 7 + [[1, -100, -100, 0]])
    found = multi_label_loss(logits, labels)
    known = labels != -100
    expected = F.binary_cross_entropy_with_logits(
        logits[known], labels[known].float(), reduction="sum"
    )
    torch.testing.assert_close(found.total, expected)
    assert found.weight == 30
    weighted = multi_label_loss(logits, labels, positive_weights_C=torch.full((4,), 3.0))
    assert weighted.total > found.total
    targets = torch.tensor([1.0, float("nan"), -2.0])
    found = regression_loss(torch.tensor([0.5, 9.0, -1.0]), targets)
    assert found.total.item() == pytest.approx(1.25)
    assert found.weight == 2


def test_the_distance_of_two_passes_is_the_mean_of_both_divergences():
    torch.manual_seed(0)
    one, other = torch.randn(5, 4), torch.randn(5, 4)
    logs = one.log_softmax(1), other.log_softmax(1)
    there = F.kl_div(logs[0], logs[1], reduction="sum", log_target=True)
    back = F.kl_div(logs[1], logs[0], reduction="sum", log_target=True)
    torch.testing.assert_close(distance(one, other), (there + back) / 2)
    assert distance(one, one) == 0
