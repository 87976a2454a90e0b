"""Contrast between states, beside plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from tianti.objective.contrast import alignment, class_contrast


def cosines(one, other):
    one, other = one.detach(), other.detach()
    return [[float(a @ b / (a.norm() * b.norm())) for b in other.double()] for a in one.double()]


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3], [1, 1, 1]])
def test_contrast_of_classes(labels):
    torch.manual_seed(0)
    states = torch.randn(len(labels), 8, requires_grad=True)
    like = cosines(states, states)
    wanted = 0.0
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        below = math.log(sum(math.exp(like[i][j] / 0.1) for j in others))
        same = [like[i][j] / 0.1 - below for j in others if labels[j] == label]
        wanted -= sum(same) / len(same) if same else 0.0
    found = class_contrast(states, torch.tensor(labels))
    assert found.item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    found.backward()
    assert states.grad.isfinite().all()


def test_contrast_of_one_text_or_none_is_nothing():
    for count in (0, 1):
        states = torch.randn(count, 4, requires_grad=True)
        found = class_contrast(states, torch.zeros(count, dtype=torch.long))
        found.backward()
        assert found.item() == 0
        assert states.grad.isfinite().all()


def test_alignment_of_pairs():
    torch.manual_seed(1)
    one, other = torch.randn(5, 8), torch.randn(5, 8)
    other[:3] = one[:3] + 0.1 * other[:3]
    like = cosines(one, other)
    wanted, found = 0.0, 0
    for i in range(5):
        for row in (like[i], [like[j][i] for j in range(5)]):
            wanted -= row[i] / 0.05 - math.log(sum(math.exp(x / 0.05) for x in row))
            found += row[i] == max(row)
    total, right = alignment(one, other)
    assert total.item() == pytest.approx(wanted / 2, rel=1e-4)
    assert right.item() == found / 2
    assert alignment(one[:0], other[:0])[0].item() == 0
