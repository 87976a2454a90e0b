"""kill -9 at random moments of training, saving, exporting and evaluating, hundreds of times.

`TIANTI_TRAIN_KILLS` is the number of kills: 25 in `make test`, 500 in `make faults`; a fifth as
many of what follows training, and of requests to stop with a deadline.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import tiny_recipe
from tests.faults.training_server import STEPS, STOPPED
from tests.train.test_trainer import splits  # noqa: F401 - a fixture
from tianti.files import read_json
from tianti.runs.verify import verify
from tianti.train.checkpoint import list_checkpoints, load_last_good
from tianti.train.log import read_log
from tianti.train.trainer import CHECKPOINTS, LOG

KILLS = int(os.environ.get("TIANTI_TRAIN_KILLS", "25"))


class Server:
    """The process that works in others."""

    def __init__(self, given):
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.training_server", str(given)],
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

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


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


DEADLINE_SECONDS = 20


@pytest.mark.slow
def test_a_request_to_stop_is_answered_before_the_deadline_kills(tmp_path, splits):  # noqa: F811
    chance = random.Random(5)
    with Server(splits) as server:
        server.start(tmp_path / "straight")
        begun = time.perf_counter()
        assert server.ended() == 0
        window = time.perf_counter() - begun
        straight, out, stops, runs = last_weights(tmp_path / "straight"), tmp_path / "0", 0, 0
        while stops < max(5, KILLS // 5):
            process = server.start(out)
            time.sleep(window * chance.random() ** 2)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            killer = threading.Timer(DEADLINE_SECONDS, os.kill, (process, signal.SIGKILL))
            killer.start()
            ended = server.ended()
            killer.cancel()
            if os.waitstatus_to_exitcode(ended) == STOPPED:
                stops += 1
                saved = load_last_good(out / CHECKPOINTS, pytest.fail)
                steps = [row["step"] for row in read_log(out / LOG) if "loss" in row]
                assert saved.state.step == max(steps, default=0), "every finished step is saved"
            elif ended:
                # It came before the handlers were there, when there was nothing to lose.
                assert os.waitstatus_to_exitcode(ended) == -signal.SIGTERM
            else:
                assert last_weights(out) == straight
                runs += 1
                out = tmp_path / str(runs)


@pytest.mark.slow
def test_a_run_killed_while_it_exports_and_evaluates_ends_the_same(
    tmp_path, text_folder, finished_run
):
    recipe, chance = tmp_path / "recipe.yaml", random.Random(4)
    recipe.write_text(tiny_recipe(text_folder))
    after = ("model", "evaluate", "generate")

    def trained(name):
        out = shutil.copytree(finished_run, tmp_path / name)
        for stage in after:
            shutil.rmtree(out / stage)
        return out

    def made(out):
        weights = (out / "model" / "model.safetensors").read_bytes()
        samples = (out / "generate" / "samples.jsonl").read_bytes()
        return weights, samples, read_json(out / "results.json")["evaluate"]

    with Server(recipe) as server:
        straight = trained("straight")
        server.start(straight)
        begun = time.perf_counter()
        assert server.ended() == 0
        window = time.perf_counter() - begun
        kills = runs = 0
        out = trained("0")
        while kills < max(5, KILLS // 5):
            process = server.start(out)
            time.sleep(window * chance.random())
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            if server.ended() == signal.SIGKILL:
                kills += 1
                assert list(verify(out)) == []
                continue
            assert made(out) == made(straight)
            runs += 1
            out = trained(str(runs))
        server.start(out)
        assert server.ended() == 0
        assert made(out) == made(straight)
