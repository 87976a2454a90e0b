"""Intervals cover and tests alarm as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tianti.evaluate.metrics.diversity import Distinct
from tianti.evaluate.statistics import (
    RESAMPLES,
    Jackknifed,
    Ratio,
    _student,
    bootstrap,
    bootstrap_ratio,
    interval,
    jackknife_interval,
    mcnemar,
    paired_difference,
    proportion,
)

DRAWS = 2000


def test_the_bootstrap_interval_covers_as_often_as_it_says(rng):
    covered = 0
    for seed in range(DRAWS):
        sizes = rng.lognormal(0, 0.5, 60)
        figures = sizes * (2 + 0.3 * rng.standard_normal(60))
        made = bootstrap_ratio(figures, sizes, seed=seed, resamples=300)
        covered += made.low <= 2 <= made.high
    assert 0.93 <= covered / DRAWS <= 0.97


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_the_interval_of_a_share_covers_as_often_as_it_says(rng, share):
    found = [proportion(int(k), 150) for k in rng.binomial(150, share, DRAWS)]
    assert 0.93 <= np.mean([one.low <= share <= one.high for one in found]) <= 0.97


def test_the_paired_test_alarms_falsely_as_often_as_it_says(rng):
    alarms = outside = 0
    for seed in range(DRAWS):
        common = rng.standard_normal(40)
        one, other = (common + rng.standard_normal(40) for _ in range(2))
        found = paired_difference(Ratio(np.concatenate((one, other))), 40, seed=seed, resamples=199)
        alarms += found.p <= 0.05
        outside += not found.low <= 0 <= found.high
    assert 0.04 <= alarms / DRAWS <= 0.06
    assert 0.03 <= outside / DRAWS <= 0.07


def test_mcnemar_alarms_falsely_as_often_as_it_says(rng):
    alarms = 0
    for _ in range(DRAWS):
        one, other = rng.random(400) < 0.7, rng.random(400) < 0.7
        alarms += mcnemar(int((one & ~other).sum()), int((other & ~one).sum())) <= 0.05
    assert 0.04 <= alarms / DRAWS <= 0.06


def test_mcnemar_is_the_mid_p_of_the_binomial():
    stats = pytest.importorskip("scipy.stats")
    for first, second in ((0, 0), (3, 9), (20, 20), (0, 5), (400, 320)):
        n, few = first + second, min(first, second)
        law = stats.binom(n, 0.5)
        expected = min(1.0, 2 * law.cdf(few) - law.pmf(few)) if n else 1.0
        assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(expected)


def test_wilsons_interval_is_its_closed_form():
    found = proportion(8, 10)
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert proportion(0, 10).low == 0
    assert proportion(10, 10).high == 1
    assert math.isnan(proportion(0, 0).value)


def test_a_clear_difference_is_found_and_none_is_not(rng):
    one = rng.random(200)
    found = paired_difference(Ratio(np.concatenate((one + 0.1, one))), 200, resamples=300)
    assert found.value == pytest.approx(0.1)
    assert found.p < 0.01
    assert found.low > 0
    same = paired_difference(Ratio(np.concatenate((one, one))), 200, resamples=300)
    assert (same.value, same.p) == (0, 1)


def test_few_items_say_little():
    one = bootstrap(Ratio(np.array([3.0])), 1)
    assert one.value == 3
    assert math.isnan(one.low)
    assert math.isnan(paired_difference(Ratio(np.array([3.0, 2.0])), 1).p)
    assert Ratio(np.array([1.0]), np.array([0.0]))(np.ones(1)) == 0
    assert math.isnan(jackknife_interval(1.0, np.array([1.0]), 1).low)


@pytest.mark.parametrize(("degrees", "apart"), [(4, 5e-4), (9, 2e-5), (29, 1e-6)])
def test_students_quantile_is_scipys(degrees, apart):
    stats = pytest.importorskip("scipy.stats")
    assert _student(0.975, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=apart)


def test_the_interval_of_distinct_words_holds_it_and_covers(rng):
    def texts(count):
        return [" ".join(f"w{n}" for n in rng.zipf(1.5, 12)) for _ in range(count)]

    found = [interval(Jackknifed(Distinct(texts(100), 1)), 100) for _ in range(60)]
    assert all(metric.low < metric.value < metric.high for metric in found)
    true = np.mean([metric.value for metric in found])
    assert np.mean([metric.low <= true <= metric.high for metric in found]) > 0.85
    both = Jackknifed(Distinct([*texts(100), *(f"{n} a b c" for n in range(100))], 1))
    apart = paired_difference(both, 100)
    assert apart.low < apart.value < apart.high


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=12)
    found = bootstrap(Ratio(values), 12, resamples=20_000)
    half = _student(0.975, 11) * values.std(ddof=1) / 12**0.5
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.02)


def test_the_least_p_is_that_of_one_more_draw_than_was_made():
    both = Ratio(np.array([*np.ones(40), *np.zeros(40)]))
    assert paired_difference(both, 40).p == pytest.approx(1 / (RESAMPLES + 1))


def test_the_same_seed_gives_the_same_interval(rng):
    values = rng.random(50)
    assert bootstrap(Ratio(values), 50, seed=3) == bootstrap(Ratio(values), 50, seed=3)
