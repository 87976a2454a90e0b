"""One training on many processes gives what it gives on one: losses, weights, sample order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model.test_experts import SIGMOID, SOFTMAX
from tests.train.test_trainer import trainer
from tests.train.training_data import write_splits
from tianti.errors import Damaged
from tianti.files import read_sealed, write_sealed
from tianti.train.checkpoint import STATE, list_checkpoints, load_checkpoint, load_last_good
from tianti.train.log import read_log
from tianti.train.trainer import CHECKPOINTS, LOG

ROOT = Path(__file__).parents[2]
LAYOUTS = {
    2: [
        ({"tensor": 2}, ("adamw",)),
        ({"pipeline": 2}, ("experts",)),
        ({"shard": 2, "expert": 2}, ("experts-muon",)),
    ],
    4: [
        ({"replicate": 2, "shard": 2}, ("muon",)),
        ({"context": 2, "shard": 2}, ("muon",)),
        ({"tensor": 2, "shard": 2}, ("muon",)),
        ({"pipeline": 2, "shard": 2}, ("adamw",)),
        ({"shard": 4, "expert": 2}, ("experts-muon",)),
    ],
    8: [({"tensor": 2, "pipeline": 2, "shard": 2}, ("adamw",))],
}
# The long form, of `make faults`.
MORE = {
    2: [
        ({"shard": 2}, ("muon", "experts", "adamw")),
        ({"replicate": 2}, ("muon", "experts", "adamw")),
        ({"context": 2}, ("muon", "experts", "adamw")),
        ({"pipeline": 2, "stages": 2}, ("deep",)),
        ({"tensor": 2}, ("muon", "experts", "experts-muon")),
        ({"pipeline": 2}, ("muon", "adamw", "experts-muon")),
        ({"shard": 2, "expert": 2}, ("experts",)),
    ],
    4: [
        ({"shard": 4}, ("muon", "experts", "adamw")),
        ({"replicate": 2, "shard": 2}, ("experts", "adamw")),
        ({"context": 2, "shard": 2}, ("experts", "adamw")),
        ({"context": 2, "shard": 2, "expert": 2}, ("experts-muon",)),
        ({"tensor": 2, "shard": 2}, ("experts", "experts-muon", "adamw")),
        ({"tensor": 2, "shard": 2, "expert": 2}, ("experts-muon",)),
        ({"tensor": 2, "context": 2}, ("muon", "experts", "deep")),
        ({"tensor": 2, "replicate": 2}, ("muon", "experts")),
        ({"tensor": 2, "pipeline": 2}, ("muon", "experts")),
        ({"pipeline": 2, "shard": 2}, ("muon", "experts", "experts-muon")),
        ({"pipeline": 2, "shard": 2, "stages": 2}, ("deep",)),
    ],
    8: [
        ({"shard": 4, "context": 2}, ("muon", "experts", "adamw")),
        ({"replicate": 2, "shard": 2, "context": 2}, ("muon", "experts", "adamw")),
        ({"tensor": 2, "pipeline": 2, "shard": 2}, ("muon", "experts")),
        ({"tensor": 2, "pipeline": 2, "shard": 2, "expert": 2}, ("experts",)),
        ({"replicate": 2, "pipeline": 2, "shard": 2, "expert": 2}, ("experts-muon",)),
        ({"context": 2, "pipeline": 2, "stages": 2, "tensor": 2}, ("deep",)),
    ],
}
if os.environ.get("TIANTI_LAYOUTS") == "all":
    LAYOUTS = {count: LAYOUTS[count] + MORE[count] for count in LAYOUTS}
UNTIED = {"tied_embeddings": False}
VARIANTS = {
    "muon": ({}, {"micro_batch_rows": 1}),
    "experts": (
        SIGMOID,
        # A seed with which no token has two experts closer than rounding, and enough rows that no
        # weight sees so little that AdamW makes much of it: both tell of one process with other
        # micro-batches too.
        {
            "optimizer": "adamw",
            "balance_rate": 0.01,
            "micro_batch_rows": 1,
            "batch_rows": 8,
            "seed": 10,
        },
    ),
    "experts-muon": (SOFTMAX, {"balance_loss": 0.1, "micro_batch_rows": 1, "batch_rows": 8}),
    "adamw": (
        UNTIED,
        {
            "optimizer": "adamw",
            "average": 0.9,
            "decay_embeddings": False,
            "label_smoothing": 0.1,
            "z_loss": 1e-3,
            "micro_batch_rows": 1,
        },
    ),
    "deep": (
        UNTIED | {"depth": 4},
        {"optimizer": "adamw", "micro_batch_rows": 1, "activation_checkpointing": "full"},
    ),
}
COMMON = {"batch_rows": 4, "budget": "20 steps", "validate_every": 5}
# A training that four processes left in the middle, and what goes on with it.
BROKEN_OFF, SAVED = 9, {"save_every": 1e-9, "keep_checkpoints": 2}
GOES_ON = {
    2: {"replicate": 2},
    4: {"shard": 2, "tensor": 2},
    8: {"replicate": 2, "shard": 2, "context": 2},
}
# What Muon makes of rounding shows in the norm first: 1 × 8 and 8 × 1 rows differ by 5e-6 in it.
TOLERATED = {"loss": 1e-5, "validation_bits_per_byte": 1e-5, "grad_norm": 1e-4}


def start(processes: int, cases: list[dict], folder: Path) -> subprocess.CompletedProcess:
    file = folder / f"cases-{processes}.json"
    file.write_text(json.dumps(cases))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "tests.distributed.training", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def alone(splits, tmp_path_factory):
    """The same trainings by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, (shape, changes) in VARIANTS.items():
        trainer(splits, folder / name, shape=shape, validation_rows=8, **COMMON | changes).fit()
    return folder


def name_of(layout: dict) -> str:
    return "-".join(f"{key}{value}" for key, value in layout.items())


def case_of(splits, out, layout, variant, **changes):
    shape, settings = VARIANTS[variant]
    return {
        "layout": layout,
        "splits": str(splits),
        "out": str(out),
        "shape": shape,
        "changes": COMMON | settings | changes,
    }


@pytest.fixture(scope="module")
def broken_off(splits, tmp_path_factory):
    """A training that four processes left in the middle."""
    folder = tmp_path_factory.mktemp("broken-off")
    case = case_of(splits, folder / "out", {"shard": 4}, "muon", **SAVED)
    done = start(4, [case | {"until": BROKEN_OFF}], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out"


@pytest.fixture(scope="module", params=LAYOUTS)
def finished(request, splits, broken_off, tmp_path_factory):
    """All cases of some number of processes, in one start of them."""
    folder = tmp_path_factory.mktemp(f"world-{request.param}")
    cases = [
        case_of(splits, folder / name_of(layout) / variant, layout, variant)
        for layout, variants in LAYOUTS[request.param]
        for variant in variants
    ]
    went_on = folder / "went-on" / "muon"
    shutil.copytree(broken_off, went_on)
    cases.append(case_of(splits, went_on, GOES_ON[request.param], "muon", **SAVED))
    done = start(request.param, cases, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Path(case["out"]) for case in cases]


def checkpoint(out: Path):
    found = load_last_good(out / CHECKPOINTS, pytest.fail)
    assert found is not None
    return found


def test_losses_and_weights_are_those_of_one_process(finished, alone):
    for out in finished:
        assert_same_training(alone / out.name, out)


def assert_same_training(alone, out):
    logs = [read_log(folder / LOG) for folder in (alone, out)]
    assert len(logs[0]) == len(logs[1]) == 24
    for expected, found in zip(*logs, strict=True):
        for field, error in TOLERATED.items():
            if field in expected:
                assert found[field] == pytest.approx(expected[field], rel=error), (out, found)
    wanted, got = checkpoint(alone), checkpoint(out)
    for kind in ("model", "optimizer", "average"):
        tensors, others = getattr(wanted, kind), getattr(got, kind)
        assert tensors.keys() == others.keys()
        for key, tensor in tensors.items():
            torch.testing.assert_close(others[key], tensor, rtol=1e-4, atol=1e-4)


def test_one_process_goes_on_where_four_left_off(splits, broken_off, alone, tmp_path):
    out = tmp_path / "muon"
    shutil.copytree(broken_off, out)
    assert checkpoint(out).state.step == BROKEN_OFF
    made = trainer(splits, out, validation_rows=8, **COMMON | VARIANTS["muon"][1])
    made.fit()
    assert_same_training(alone / "muon", out)


def test_a_part_that_is_missing_is_told(broken_off, tmp_path):
    shutil.copytree(broken_off, tmp_path / "out")
    newest = list_checkpoints(tmp_path / "out" / CHECKPOINTS)[0]
    state = read_sealed(newest / STATE)
    lost = "model-00002.safetensors"
    (newest / lost).unlink()
    with pytest.raises(Damaged, match=lost):
        load_checkpoint(newest)
    # Nor does it help to say that it never was.
    state["files"].pop(lost)
    write_sealed(newest / STATE, state)
    with pytest.raises(Damaged, match=r"a part of .* is missing"):
        load_checkpoint(newest)


def test_each_of_several_ranks_checks_some_of_the_files(broken_off, tmp_path):
    shutil.copytree(broken_off, tmp_path / "out")
    newest = list_checkpoints(tmp_path / "out" / CHECKPOINTS)[0]
    files = sorted(newest.glob("*.safetensors"))
    content = bytearray(files[2].read_bytes())
    content[-1] ^= 1
    files[2].write_bytes(content)
    with pytest.raises(Damaged, match=files[2].name):
        load_checkpoint(newest)
    found = []
    for number in range(4):
        try:
            load_checkpoint(newest, share=(number, 4))
        except Damaged:
            found.append(number)
    assert found == [2]
