"""How sure a figure is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Metric:
    """A figure with its 95 % confidence interval and the number of items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """Gives `{"value": …, "low": …, "high": …, "n": …}`."""
        return asdict(self)


def bootstrap_ratio(
    numerators: np.ndarray, denominators: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Metric:
    """Gives a ratio of sums over items with a percentile-bootstrap interval.

    Items (documents) are drawn with replacement (Efron 1979), whole, because what is inside one
    document is not independent. One item alone has no interval of finite width that could be
    known: its interval is NaN.

    Args:
        numerators: one number an item, float `(items,)`.
        denominators: one number an item, float `(items,)`.
        seed: of the draws.
        resamples: number of draws.
    """
    items = len(numerators)
    value = float(numerators.sum() / denominators.sum())
    if items < 2:
        return Metric(value, float("nan"), float("nan"), items)
    random = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    for index in range(resamples):
        # Multinomial counts are the same draws, summed instead of listed.
        weights = random.multinomial(items, np.full(items, 1 / items))
        ratios[index] = (weights @ numerators) / max(weights @ denominators, 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Metric(value, float(low), float(high), items)


def jackknife_interval(value: float, left_out: np.ndarray, n: int) -> Metric:
    """Gives a figure with the interval that its delete-a-group jackknife has.

    For figures such as the size of a compressed file, where drawing an item twice would change what
    is measured (Quenouille 1956; Tukey 1958).

    Args:
        value: the figure from all items.
        left_out: the figure with each group of items left out in turn.
        n: number of items.
    """
    groups = len(left_out)
    if groups < 2:
        return Metric(value, float("nan"), float("nan"), n)
    variance = (groups - 1) / groups * float(((left_out - left_out.mean()) ** 2).sum())
    half = 1.96 * variance**0.5
    return Metric(value, value - half, value + half, n)
