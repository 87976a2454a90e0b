"""The benchmark for GPUs passes on a CPU, at a tiny size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import gpu

    yield gpu
    for name in ("gpu", "train_peers", "train_speed"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["tianti", "tianti-adamw", "transformers-compiled"])
def test_each_contender_trains(gpu, name):
    figures = gpu.measure(name, gpu.GPU_SHAPES["tiny"], "cpu", steps=2, compiled=False)
    assert figures["tokens_per_second"] > 0
    assert figures["flops"] > 1e6


def test_a_profile_names_what_takes_longest(gpu):
    text = gpu.profile("tianti-adamw", gpu.GPU_SHAPES["tiny"], "cpu", compiled=False)
    first, *rows = text.splitlines()
    assert first.endswith("ms in all")
    assert any("aten::mm" in row for row in rows)


def test_the_table_holds_share_ratio_and_what_failed(gpu):
    row = {"tokens_per_second": 2000, "flops": 98.9e12, "memory_gb": 2.0, "cold_seconds": 3.0}
    figures = {
        "124m tianti": row,
        "124m transformers-compiled": row | {"tokens_per_second": 1000},
        "124m tianti-float8": {"failed": "no torchao"},
    }
    text = gpu.table(figures, "NVIDIA H200")
    assert "| 124m | tianti | 2,000 | 10.0% | 2.00 | 2.0 GB | 3.0 s |" in text
    assert "no torchao" in text
