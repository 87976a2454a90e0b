"""Weights that change by themselves, and gradients that cannot be repeated."""

from __future__ import annotations

import pytest
import torch

from tests.train.test_trainer import same, splits, trainer, weights  # noqa: F401 - a fixture
from tianti.errors import UserError


def flip(parameter, element, bit):
    bits = parameter.detach().view(torch.int32).view(-1)
    bits[element] ^= 1 << bit


@pytest.mark.parametrize("bit", [0, 12, 22, 30])
@pytest.mark.parametrize("step", [4, 9])
def test_a_flipped_bit_is_found_before_it_is_learned_from(splits, tmp_path, bit, step):  # noqa: F811
    straight = trainer(splits, tmp_path / "straight")
    straight.fit()
    made = trainer(splits, tmp_path / "flipped", check_memory_every=5, validate_every=2)
    inner = made.one_step

    def one_step(log, task):
        inner(log, task)
        if made.state.step == step + 1:
            flip(list(made.model.parameters())[2], 5, bit)

    made.one_step = one_step
    with pytest.raises(UserError, match="by themselves") as caught:
        made.fit()
    assert caught.value.where == f"train, step {step + 1}"
    # What was saved before is whole, so the same command mends it.
    made.saver.wait()
    again = trainer(splits, tmp_path / "flipped", seed=9, check_memory_every=5, validate_every=2)
    again.fit()
    assert same(weights(straight), weights(again))


def test_a_gradient_that_cannot_be_repeated_is_told(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, check_memory_every=4)
    inner, calls = made._gradients, []

    def gradients(batch):
        loss = inner(batch)
        calls.append(made.state.step)
        if calls.count(8) == 2:
            flip(next(made.model.parameters()).grad, 3, 1)
        return loss

    made._gradients = gradients
    with pytest.raises(UserError, match="two gradients"):
        made.fit()
    assert made.state.step == 8


def test_checking_changes_nothing(splits, tmp_path):  # noqa: F811
    one = trainer(splits, tmp_path / "one", dropout=0.1)
    two = trainer(splits, tmp_path / "two", dropout=0.1, check_memory_every=1)
    one.fit()
    two.fit()
    assert same(weights(one), weights(two))
