"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import threading

import pytest
import torch

import tianti.train.saving as saving
from tests.train.test_trainer import same, splits, trainer, weights  # noqa: F401 - a fixture
from tianti.errors import UserError
from tianti.train.checkpoint import Checkpoint, TrainState, load_last_good
from tianti.train.trainer import CHECKPOINTS


def made(step, value):
    return Checkpoint(
        TrainState(step, 100, losses=[1.0]),
        {"weight": torch.full((4, 3), value)},
        {"weight/momentum": torch.full((4, 3), -value)},
        {"weight": torch.full((4, 3), value / 2)},
    )


@pytest.fixture
def slow_disk(monkeypatch):
    """Lets a checkpoint be written only when it is told to."""
    gate, write = threading.Event(), saving.save_checkpoint

    def slowly(*arguments):
        assert gate.wait(30)
        return write(*arguments)

    monkeypatch.setattr(saving, "save_checkpoint", slowly)
    return gate


def test_what_changes_meanwhile_does_not_reach_the_checkpoint(tmp_path, slow_disk):
    saver, checkpoint = saving.BackgroundSaver(tmp_path, 2), made(7, 1.5)
    saver.save(checkpoint)
    for tensors in (checkpoint.model, checkpoint.optimizer, checkpoint.average):
        tensors["weight" if "weight" in tensors else "weight/momentum"].fill_(99.0)
    checkpoint.state.step, checkpoint.state.losses[0] = 8, 9.0
    slow_disk.set()
    saver.wait()
    found, wanted = load_last_good(tmp_path, pytest.fail), made(7, 1.5)
    assert found.state == wanted.state
    assert same(wanted.model, found.model)
    assert same(wanted.optimizer, found.optimizer)
    assert same(wanted.average, found.average)


def test_the_one_before_is_durable_before_the_next_begins(tmp_path, monkeypatch):
    order, write = [], saving.save_checkpoint

    def noted(folder, checkpoint, *rest):
        order.append(("begin", checkpoint.state.step))
        write(folder, checkpoint, *rest)
        order.append(("end", checkpoint.state.step))

    monkeypatch.setattr(saving, "save_checkpoint", noted)
    saver = saving.BackgroundSaver(tmp_path, 2)
    for step in range(1, 5):
        saver.save(made(step, float(step)))
    saver.wait()
    assert order == [(what, step) for step in range(1, 5) for what in ("begin", "end")]


def test_a_failure_is_told_at_the_next_save_and_costs_nothing(tmp_path, monkeypatch):
    saver = saving.BackgroundSaver(tmp_path, 2)
    saver.save(made(1, 1.0))
    saver.wait()

    def full(*arguments):
        raise UserError("the disk is full", where="step-00000002")

    with monkeypatch.context() as patched:
        patched.setattr(saving, "save_checkpoint", full)
        saver.save(made(2, 2.0))
        with pytest.raises(UserError, match="full"):
            saver.save(made(3, 3.0))
    saver.save(made(4, 4.0))
    saver.wait()
    assert load_last_good(tmp_path, pytest.fail).state.step == 4


def test_training_goes_on_while_the_disk_is_slow(splits, tmp_path, slow_disk):  # noqa: F811
    straight = trainer(splits, tmp_path / "straight", validate_every=100)
    one = trainer(splits, tmp_path / "one", validate_every=8)
    inner = one.one_step

    def step(log, task):
        inner(log, task)
        if one.state.step == 12:
            assert not list((tmp_path / "one" / CHECKPOINTS).glob("step-*"))
            slow_disk.set()

    one.one_step = step
    one.fit()
    straight.fit()
    assert same(weights(one), weights(straight))
    assert load_last_good(tmp_path / "one" / CHECKPOINTS, pytest.fail).state.step == 20
