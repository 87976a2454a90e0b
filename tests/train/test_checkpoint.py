from __future__ import annotations

import json
import os

import pytest
import torch

from tianti.errors import Damaged, UserError
from tianti.train.checkpoint import (
    Checkpoint,
    TrainState,
    list_checkpoints,
    load_checkpoint,
    load_last_good,
    save_checkpoint,
)
from tianti.train.log import TrainLog, read_log


def make(step):
    return Checkpoint(
        TrainState(step=step, total_steps=100, tokens=step * 10),
        {"w": torch.full((4, 4), float(step))},
        {"w/momentum_buffer": torch.ones(4, 4), "w/step": torch.tensor(float(step))},
    )


def test_a_checkpoint_comes_back(tmp_path):
    save_checkpoint(tmp_path, make(3), keep=2)
    loaded = load_checkpoint(tmp_path / "step-00000003")
    assert loaded.state == make(3).state
    assert torch.equal(loaded.model["w"], make(3).model["w"])
    assert loaded.optimizer["w/step"].item() == 3


def test_only_the_newest_are_kept(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, make(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000004", "step-00000003"]


FILES = ["model.safetensors", "optimizer.safetensors", "state.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, name, damage):
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step), keep=2)
    path = tmp_path / "step-00000002" / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    told: list[Damaged] = []
    good = load_last_good(tmp_path, told.append)
    assert good is not None
    assert good.state.step == 1
    assert len(told) == 1
    assert name in str(told[0])


def test_every_flipped_bit_of_the_state_is_found(tmp_path):
    save_checkpoint(tmp_path, make(7), keep=2)
    path = tmp_path / "step-00000007" / "state.json"
    data = path.read_bytes()
    values = json.loads(data)
    for place in range(0, len(data), 7):
        broken = bytearray(data)
        broken[place] ^= 2
        path.write_bytes(broken)
        try:
            load_checkpoint(path.parent)
        except Damaged:
            continue
        # The flip hit white space between values: nothing that is read has changed.
        assert json.loads(bytes(broken)) == values


def test_nothing_to_load_is_none(tmp_path):
    assert load_last_good(tmp_path / "none", pytest.fail) is None


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, make(1), keep=2)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_checkpoint(tmp_path, make(2), keep=2)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert load_last_good(tmp_path, pytest.fail).state.step == 1


def test_the_log_is_cut_back_to_its_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    log = TrainLog(path, 0)
    log.write(step=1)
    kept = log.sync()
    log.write(step=2)
    log.close()
    log = TrainLog(path, kept)
    log.write(step=2, again=True)
    log.close()
    assert read_log(path) == [{"step": 1}, {"step": 2, "again": True}]
    path.write_bytes(path.read_bytes()[:-5])
    assert read_log(path) == [{"step": 1}]
