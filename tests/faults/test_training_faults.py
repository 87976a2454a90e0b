"""Disks that fail at any call, and samples over many restarts, in training.

`TIANTI_DISK_FAULTS` is the number of failures of each kind: 4 in `make test`, 50 in `make faults`.
"""

from __future__ import annotations

import errno
import os
import random

import pytest

from tests.train.test_trainer import same, splits, trainer, weights  # noqa: F401 - a fixture
from tianti.errors import UserError
from tianti.train.checkpoint import list_checkpoints
from tianti.train.log import read_log
from tianti.train.trainer import CHECKPOINTS, LOG

COUNT = int(os.environ.get("TIANTI_DISK_FAULTS", "4"))
CALLS = ("fsync", "rename", "replace", "open")


class FailingDisk:
    """Has one call to the system fail, and all after it until it is mended."""

    def __init__(self, monkeypatch, code, after):
        self.code, self.left, self.failed = code, after, 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))

    def _failing(self, call):
        def failing(*arguments, **named):
            self.left -= 1
            if self.left < 0:
                self.failed += 1
                raise OSError(self.code, os.strerror(self.code), str(arguments[0]))
            return call(*arguments, **named)

        return failing


def _error_of(made):
    try:
        made.fit()
    except UserError as error:
        return error
    return None


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EROFS", "EDQUOT"])
def test_a_disk_that_fails_costs_nothing_but_the_steps_since(
    splits,  # noqa: F811
    tmp_path,
    name,
):
    straight = trainer(splits, tmp_path / "straight")
    straight.fit()
    chance = random.Random(name)
    failures = 0
    for number in range(COUNT):
        out = tmp_path / str(number)
        first = trainer(splits, out, validate_every=4)
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FailingDisk(monkeypatch, getattr(errno, name), chance.randrange(40))
            told = _error_of(first)
        assert (told is not None) == (disk.failed > 0)
        if told is not None:
            assert told.where is not None
            assert told.remedy
            failures += 1
        # With a checkpoint all weights come from it, and without one the seed gives them.
        seed = 9 if list_checkpoints(out / CHECKPOINTS) else 0
        again = trainer(splits, out, seed=seed, validate_every=4)
        again.fit()
        assert same(weights(straight), weights(again))
        assert not list(out.rglob("*.tmp"))
        assert not list(out.rglob("*.partial"))
    assert failures > COUNT / 2


def test_each_sample_comes_once_an_epoch_over_twenty_restarts(splits, tmp_path):  # noqa: F811
    chance = random.Random(4)
    changes = {"budget": "3 epochs", "validate_every": 3, "batch_rows": 3}
    seen: dict[int, list[int]] = {}
    restarts = 0
    while True:
        made = trainer(splits, tmp_path / "run", seed=restarts, **changes)
        stream, inner = made.data.train, made.one_step
        until = made.state.step + chance.randrange(1, 9) if restarts < 20 else 10**9
        begun = []

        def one_step(log, task, made=made, stream=stream, inner=inner, until=until, begun=begun):
            begun.append(1)
            if len(begun) > until:
                raise KeyboardInterrupt
            step = made.state.step
            rows = range((step + made.state.batch_offset) * stream.rows, (step + 1) * stream.rows)
            seen[step] = [stream.row_start(row) for row in rows]
            inner(log, task)

        made.one_step = one_step
        try:
            made.fit()
            break
        except KeyboardInterrupt:
            restarts += 1
            made.saver.wait()
    assert restarts == 20
    steps = [row["step"] for row in read_log(tmp_path / "run" / LOG) if "loss" in row]
    assert steps == list(range(1, made.state.step + 1))
    starts = [start for step in range(made.state.step) for start in seen[step]]
    per_epoch = stream.rows_per_epoch
    for epoch in range(len(starts) // per_epoch):
        mine = starts[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert len(set(mine)) == per_epoch
