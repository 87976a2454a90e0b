"""A run whose processes are all lost goes on with fewer or more of them, from the last save."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import tiny_recipe
from tianti.files import read_json
from tianti.runs.verify import PARTIAL
from tianti.train.checkpoint import newest_step
from tianti.train.log import read_log
from tianti.train.trainer import CHECKPOINTS, LOG

STARTS = [(4, 3), (4, 2), (2, 4), (4, 3, 2), (1, 4, 1)]
CHANGES = ["train.batch_tokens=1536", "train.budget=80 steps", "train.save_every=0.05s"]
pytestmark = pytest.mark.skipif(
    os.environ.get("TIANTI_LAYOUTS") != "all", reason="the long form, of `make faults`"
)


def lose_all(parent: psutil.Process) -> None:
    for process in [parent, *parent.children(recursive=True)]:
        process.kill()
    parent.wait()


def command_for(recipe: Path, out: Path) -> list[str]:
    start = [sys.executable, "-m", "tianti", "run", str(recipe), *CHANGES, "--until", "train"]
    return [*start, "--out", str(out)]


@pytest.fixture(scope="module")
def alone(text_folder, tmp_path_factory) -> Path:
    """The recipe, and the run of one process that nobody disturbs, side by side."""
    folder = tmp_path_factory.mktemp("alone")
    recipe = folder / "recipe.yaml"
    recipe.write_text(tiny_recipe(text_folder))
    subprocess.run(command_for(recipe, folder / "run"), check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("counts", STARTS, ids=str)
def test_a_run_goes_on_with_other_processes(alone, tmp_path, counts):
    out = tmp_path / "run"
    command = command_for(alone / "recipe.yaml", out)
    resumed_at = []
    for number, count in enumerate(counts):
        start = [*command, "--nproc", str(count)]
        begun = subprocess.Popen(start, stderr=subprocess.PIPE, text=True)
        if number < len(counts) - 1:
            wanted = 60 * (number + 1) // len(counts)
            while saved(out) < wanted and begun.poll() is None:
                time.sleep(0.01)
            lose_all(psutil.Process(begun.pid))
            resumed_at.append(saved(out))
        else:
            _, said = begun.communicate(timeout=300)
            assert begun.returncode == 0, said
            assert "Going on from step" in said
    assert all(0 < step < 80 for step in resumed_at)
    logs = [read_log(folder / "train" / LOG) for folder in (alone / "run", out)]
    losses = [[row["loss"] for row in log if "loss" in row] for log in logs]
    # Muon makes much of rounding, the more the longer.
    assert losses[1][:40] == pytest.approx(losses[0][:40], rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    found = [read_json(folder / "train" / "manifest.json") for folder in (alone / "run", out)]
    bits = [manifest["metrics"]["validation_bits_per_byte"] for manifest in found]
    assert bits[1] == pytest.approx(bits[0], rel=1e-3)


def saved(out: Path) -> int:
    """Gives the newest step that would be gone on from."""
    stage = Path("train") / CHECKPOINTS
    return max(newest_step(out / stage), newest_step(out / PARTIAL / stage))
