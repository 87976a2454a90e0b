"""kill -9 at random moments of training, each followed by the same command.

`TIANTI_FAULTS` is the number of kills: 2 in `make test`, 10 in `make faults`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import pytest

from tests.conftest import tiny_recipe

KILLS = int(os.environ.get("TIANTI_FAULTS", "2"))
STEPS = 300


@pytest.mark.slow
def test_a_killed_training_ends_with_bitwise_the_weights_of_an_undisturbed_one(
    tmp_path, text_folder
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe(text_folder).replace("24 steps", f"{STEPS} steps"))

    def start(name: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "tianti",
            "run",
            str(recipe),
            "--out",
            str(tmp_path / name),
        ]
        command += ["--until", "model", "train.save_every=100ms"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def train_seconds(name: str) -> float:
        manifest = json.loads((tmp_path / name / "train" / "manifest.json").read_text())
        return manifest["metrics"]["train_seconds"]

    undisturbed = start("straight")
    assert undisturbed.wait(timeout=120) == 0
    window = train_seconds("straight")

    kill = random.Random(0)
    killed_while_training = 0
    for _ in range(KILLS):
        process = start("killed")
        mark = tmp_path / "killed" / ".partial" / "train" / "fingerprint.json"
        while not mark.is_file() and process.poll() is None:
            time.sleep(0.01)
        # The window begins when torch is imported, about a second after the mark.
        time.sleep(kill.uniform(0, 1 + window / 2))
        process.kill()
        process.wait()
        killed_while_training += not (tmp_path / "killed" / "train" / "manifest.json").is_file()
    assert killed_while_training >= KILLS / 2
    assert start("killed").wait(timeout=120) == 0

    weights = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("straight", "killed")
    ]
    assert weights[0] == weights[1]
    logs = [
        [
            json.loads(line)
            for line in (tmp_path / name / "train" / "log.jsonl").read_text().splitlines()
        ]
        for name in ("straight", "killed")
    ]
    assert logs[0] == logs[1]
    assert not list((tmp_path / "killed").rglob("*.tmp"))
