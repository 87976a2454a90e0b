"""This machine's figures are those of what it was seen to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import tiny_config
from tests.scale.test_planner import H100, work
from tianti.scale import machine
from tianti.scale.estimate import estimate


def test_this_processor_is_described_by_what_it_does():
    found = machine.this_processor(tiny_config())
    assert (found.kind, found.source) == ("cpu", "measured")
    assert found.bf16_tflops > 1e-3
    assert 0.1 < found.products < 3
    assert found.attention is not None
    assert 0.02 < found.attention < 3
    assert found.memory_gbps > 0.5


def test_the_usual_duration_is_the_middle_one_after_the_first(monkeypatch):
    clock = iter([0.0, 100.0, *(second for n in range(10) for second in (200.0, 200.0 + n))])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    assert machine._usual_seconds(lambda: None) == pytest.approx(4.5)


def test_attention_that_was_measured_takes_as_long_as_it_did():
    usual = estimate(work(), H100).seconds
    slow = estimate(work(), replace(H100, attention=0.45 / 2)).seconds
    assert slow.attention == pytest.approx(2 * usual.attention)
    assert slow.products == usual.products
