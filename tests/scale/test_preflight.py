"""Clocks, disks and speed of all ranks are looked at before training, and who is wrong is named."""

from __future__ import annotations

import shutil

import pytest
import torch

from tianti.errors import UserError
from tianti.scale import preflight


@pytest.fixture
def ranks(monkeypatch):
    """What four ranks say, in place of asking them."""
    said: list[list[float]] = []
    monkeypatch.setattr(preflight, "_of_all_ranks", lambda values: said or [values] * 4)
    monkeypatch.setattr(preflight.dist, "barrier", lambda: None)
    monkeypatch.setattr(preflight.dist, "all_reduce", lambda tensor: None)
    monkeypatch.setattr(preflight.dist, "get_world_size", lambda: 4)
    return said


def test_four_alike_pass(ranks, tmp_path):
    preflight.refuse_what_is_wrong(tmp_path, 1e3)
    speed, slow = preflight.slow_ranks(torch.device("cpu"))
    assert speed > 0
    assert slow == []


def test_a_wrong_clock_is_named(ranks, tmp_path):
    ranks += [[1e9, 1e12], [1e9 + 5, 1e12], [1e9 + 3600, 1e12], [1e9, 1e12]]
    with pytest.raises(UserError, match=r"clock of rank 2 is wrong.*2001-09-09 01:46") as refused:
        preflight.refuse_what_is_wrong(tmp_path, 1e3)
    assert refused.value.where == "train"


def test_a_full_disk_is_named(ranks, tmp_path):
    ranks += [[1e9, 1e12], [1e9, 10.0], [1e9, 1e12], [1e9, 20.0]]
    with pytest.raises(UserError, match=r"rank 1, 3 has no room for checkpoints of 1000 B"):
        preflight.refuse_what_is_wrong(tmp_path, 1e3)


def test_what_earlier_checkpoints_take_counts_as_room(ranks, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=600)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="no room"):
        preflight.refuse_what_is_wrong(tmp_path, 1e3)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "earlier").write_bytes(bytes(400))
    preflight.refuse_what_is_wrong(tmp_path, 1e3)


def test_a_slow_rank_is_named(ranks):
    ranks += [[1.0], [1.1], [0.9], [2.5]]
    assert preflight.slow_ranks(torch.device("cpu"))[1] == [3]
