from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tianti.units import (
    Budget,
    format_bytes,
    format_duration,
    parse_budget,
    parse_count,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10M", 10_000_000),
        ("2k", 2000),
        ("1.5B", 1_500_000_000),
        ("1e3", 1000),
        (7, 7),
        ("3 M", 3_000_000),
    ],
)
def test_counts_read_as_people_write_them(text, value):
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "10X", "ten", "1.5", True, None, "-3", "1e-3"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError, match=r"count|whole"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("3m", 180), ("1h30m", 5400), ("2d", 172800), (5, 5), ("250ms", 0.25)],
)
def test_durations_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("10m", Budget("seconds", 600)),
        ("500M tokens", Budget("tokens", 5e8)),
        ("2000 steps", Budget("steps", 2000)),
        ("1 step", Budget("steps", 1)),
        ("1.5 epochs", Budget("epochs", 1.5)),
    ],
)
def test_budgets_read_as_people_write_them(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["10M", 10, "0 steps", "soon", "0s"])
def test_a_budget_without_a_unit_or_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"budget|unit"):
        parse_budget(text)


@given(
    st.sampled_from(["tokens", "steps", "seconds", "epochs"]),
    st.integers(min_value=1, max_value=10**13),
)
def test_a_budget_survives_being_written(kind, amount):
    assert parse_budget(str(Budget(kind, float(amount)))) == Budget(kind, float(amount))


def test_formats_are_short():
    assert format_bytes(3 * 2**30) == "3 GiB"
    assert [format_duration(s) for s in (0.42, 42, 200, 18720)] == [
        "0.42s",
        "42s",
        "3m 20s",
        "5h 12m",
    ]
