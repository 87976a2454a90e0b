"""One tuning by several processes gives what it gives by one, whatever it is for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import random_model
from tests.tune.conftest import (
    TINY,
    config_of,
    entities,
    numbers,
    pairs,
    preferred,
    recipe,
    reviews,
    several,
    write,
)
from tianti.errors import UserError
from tianti.progress import SILENT
from tianti.runs.runner import carry_out
from tianti.scale.launch import settled_task
from tianti.train.checkpoint import load_last_good
from tianti.train.config import LayoutConfig
from tianti.train.log import read_log
from tianti.train.ranks import Ranks
from tianti.train.trainer import CHECKPOINTS, LOG
from tianti.tune.network import refuse_other_weights
from tianti.tune.stage import tune

ROOT = Path(__file__).parents[2]
SHARD, COPIES = {"shard": 2}, {"replicate": 2}
# Name: layout, task, rows, from which base, and settings. Rows of a step are 4 of 64 tokens, of
# pairs 2 of 128, and where it says so an uneven number.
CASES = {
    "classes": (SHARD, "classify", reviews, None, {"noise": 0.1, "class_weights": "inverse"}),
    "uneven": (
        COPIES,
        "classify",
        reviews,
        None,
        {"adjusted": True, "train": {"batch_tokens": 192}},
    ),
    "several": (COPIES, "classify", several, None, {"several": True}),
    "numbers": (SHARD, "regress", numbers, None, {}),
    "tags": (COPIES, "tag", entities, None, {"r_drop": 0.0}),
    "twice": (SHARD, "tag", entities, None, {"r_drop": 1.0}),
    "words": (
        SHARD,
        "classify",
        reviews,
        "translated",
        {"pattern": "{text} one", "words": {"pos": " two", "neg": " three"}, "method": "lora"},
    ),
    "means": (SHARD, "classify", reviews, "translated", {"start": "examples", "method": "head"}),
    "lowest": (SHARD, "translate", pairs, "translated", {"frozen_layers": 1, "layer_decay": 0.5}),
    "bits": (COPIES, "translate", pairs, "translated", {"method": "lora", "quantize": "nf4"}),
    "cut bits": (SHARD, "translate", pairs, "translated", {"method": "dora", "quantize": "int8"}),
    "dpo": (SHARD, "prefer", preferred, "translated", {"train": {"batch_tokens": 384}}),
    "kto": (COPIES, "prefer", preferred, "translated", {"preference": "kto"}),
    # Ranks that have nothing at all, of a step's one row or of validation's.
    "one row": (COPIES, "translate", pairs, "translated", {"train": {"batch_tokens": 64}}),
    "one pair": (
        COPIES,
        "prefer",
        preferred,
        "translated",
        {"train": {"batch_tokens": 128}, "preference": "kto"},
    ),
    "rated": (SHARD, "reward", preferred, "translated", {}),
}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A base of two layers that writes."""
    folder = tmp_path_factory.mktemp("deep")
    shape = TINY | {"depth": 2, "context": 128}
    made = recipe("translate", folder, pairs, steps=30, model=shape)
    carry_out(made, folder / "run", until="model", display=SILENT)
    return str(folder / "run")


@pytest.fixture(scope="module")
def tunings(deep, tmp_path_factory):
    """Both trainings of each case: by one process, and by two of one start."""
    folder = tmp_path_factory.mktemp("tunings")
    cases = {}
    for name, (layout, task, rows, base, told) in CASES.items():
        changes = dict(told)
        here = folder / name
        here.mkdir()
        if name.startswith("one"):
            changes["validation"] = write(here / "few.jsonl", rows(2, 1))
        # A steep start makes much of rounding.
        train = {"optimizer": "adamw", "learning_rate": 0.002} | changes.pop("train", {})
        made = recipe(task, here, rows, steps=12, base=base and deep, train=train, **changes)
        call, inputs = config_of(made, here)
        wanted = settled_task(call, LayoutConfig(**layout), 2, 2, inputs, SILENT)
        cases[name] = {"task": wanted, "out": str(here / "many")}
        torch.manual_seed(0)
        (here / "one").mkdir()
        tune(replace(call, device="cpu"), inputs, here / "one")
    file = folder / "cases.json"
    file.write_text(json.dumps(list(cases.values())))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tests.distributed.tuning", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_losses_and_weights_are_those_of_one_process(tunings, name):
    one, many = tunings / name / "one", tunings / name / "many"
    logs = [read_log(folder / LOG) for folder in (one, many)]
    assert len(logs[0]) == len(logs[1]) > 12
    for expected, found in zip(*logs, strict=True):
        assert expected.keys() == found.keys()
        for field, value in expected.items():
            if field == "loss" or field.startswith("validation_"):
                assert found[field] == pytest.approx(value, rel=1e-5, abs=2e-5), field
    held = [load_last_good(folder / CHECKPOINTS, pytest.fail) for folder in (one, many)]
    assert held[0].model.keys() == held[1].model.keys()
    for key, weight in held[0].model.items():
        torch.testing.assert_close(held[1].model[key], weight, rtol=1e-4, atol=1e-4)


def test_several_processes_tune_from_a_recipe_and_one_goes_on(tmp_path):
    made = recipe("classify", tmp_path, reviews, steps=60)
    found = carry_out(made, tmp_path / "run", processes=2, display=SILENT)
    assert found.results["train"]["layout"] == {"shard": 2}
    assert found.results["evaluate"]["figures"]["accuracy"]["value"] > 0.9
    # The number of processes changes nothing of what there is.
    assert carry_out(made, tmp_path / "run", display=SILENT).done == ()


class Two(Ranks):
    """A rank beside another that says something else, or the same."""

    def __init__(self, other):
        self.other = other

    def greatest(self, *values):
        return [max(pair) for pair in zip(values, self.other or values, strict=True)]


def test_ranks_that_begin_with_other_weights_are_refused():
    held = dict(random_model().named_parameters())
    refuse_other_weights(held, Two(None))
    with pytest.raises(UserError, match="different weights"):
        refuse_other_weights(held, Two((7, -7)))
    with torch.no_grad():
        held["embedding.weight"][3, 4] += 1e-6
    said = []
    for _ in range(2):
        refuse_other_weights(held, SimpleNamespace(greatest=lambda *v: said.append(v) or v))
        with torch.no_grad():
            held["embedding.weight"][3, 4] *= 1.001
    assert said[0] != said[1]


@pytest.mark.parametrize("name", ["tensor", "context", "pipeline"])
def test_layouts_that_tuning_does_not_have_are_refused_before_it_begins(tmp_path, name):
    made = recipe("classify", tmp_path, reviews)
    call, inputs = config_of(made, tmp_path)
    with pytest.raises(UserError, match=f"layout.{name}"):
        settled_task(call, LayoutConfig(**{name: 2}), 2, 2, inputs, SILENT)
