"""kill -9 at random moments of training and saving, hundreds of times.

`TIANTI_TRAIN_KILLS` is the number of kills: 25 in `make test`, 500 in `make faults`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.training_server import STEPS
from tests.train.test_trainer import splits  # noqa: F401 - a fixture
from tianti.train.checkpoint import list_checkpoints, load_last_good
from tianti.train.log import read_log
from tianti.train.trainer import CHECKPOINTS, LOG

KILLS = int(os.environ.get("TIANTI_TRAIN_KILLS", "25"))


class Server:
    """The process that trains in others."""

    def __init__(self, splits):  # noqa: F811
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.training_server", str(splits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def start(self, out):
        self._process.stdin.write(f"{out}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ended(self):
        return int(self._process.stdout.readline())

    def stop(self):
        self._process.stdin.close()
        self._process.wait()


def last_weights(out):
    return (list_checkpoints(out / CHECKPOINTS)[0] / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_whenever_training_is_killed_it_loses_one_save_and_ends_the_same(tmp_path, splits):  # noqa: F811
    server, chance = Server(splits), random.Random(3)
    try:
        server.start(tmp_path / "straight")
        begun = time.perf_counter()
        assert server.ended() == 0
        window = time.perf_counter() - begun
        straight = last_weights(tmp_path / "straight")
        kills = runs = 0
        out = tmp_path / "0"
        while kills < KILLS:
            process = server.start(out)
            # Often early, so that a training is killed again and again before it ends.
            time.sleep(window * chance.random() ** 2)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            if server.ended() == signal.SIGKILL:
                kills += 1
                _nothing_is_torn(out)
                continue
            assert last_weights(out) == straight
            runs += 1
            out = tmp_path / str(runs)
        server.start(out)
        assert server.ended() == 0
        assert last_weights(out) == straight
        steps = [row["step"] for row in read_log(out / LOG) if "loss" in row]
        assert steps == list(range(1, STEPS + 1))
    finally:
        server.stop()


def _nothing_is_torn(out):
    checkpoint = load_last_good(out / CHECKPOINTS, pytest.fail)
    steps = [row["step"] for row in read_log(out / LOG) if "loss" in row]
    if checkpoint is None:
        # Before the first save there is nothing to lose but its interval.
        assert len(steps) <= 2
        return
    # Every step is saved: one may be under way and one being written.
    assert max(steps, default=0) <= checkpoint.state.step + 2
