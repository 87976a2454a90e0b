"""How sure a figure is, and how sure a difference between two models is.

Every figure here is a statistic of weighted items: a function that takes one weight an item and
gives the figure of the items so weighted. With weights of 1 it is the figure itself, with the
counts of a draw with replacement a draw of the bootstrap, and over the items of two models one
after the other it gives both, and their exchange.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
JACKKNIFE_GROUPS = 20

Statistic = Callable[[np.ndarray], float]


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


@dataclass(frozen=True)
class Difference:
    """How far apart two models are on the same items.

    Args:
        value: figure of the first less that of the second.
        low: of the 95 % interval of the difference.
        high: of the same.
        p: chance of a difference as large if the models were exchangeable.
        n: number of items.
    """

    value: float
    low: float
    high: float
    p: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """Gives the fields as plain values."""
        return asdict(self)


class Ratio:
    """The statistic `Σ w·numerator / Σ w·denominator`; a mean where the denominators are 1.

    Args:
        numerators: one number an item, float `(items,)`.
        denominators: one number an item, float `(items,)`; 1 when not given.
    """

    def __init__(self, numerators: np.ndarray, denominators: np.ndarray | None = None):
        self.numerators = np.asarray(numerators, dtype=np.float64)
        self.denominators = (
            np.ones(len(self.numerators)) if denominators is None else np.asarray(denominators)
        )

    def __call__(self, weights: np.ndarray) -> float:
        """Gives the ratio of the weighted sums; 0 / 0 is 0."""
        below = float(weights @ self.denominators)
        return float(weights @ self.numerators) / below if below else 0.0


class Share(Ratio):
    """The share of items that are right: its interval and its paired test are exact ones.

    Args:
        right: one boolean an item.
    """

    def __init__(self, right: np.ndarray):
        self.right = np.asarray(right, dtype=bool)
        super().__init__(self.right)


class Jackknifed:
    """A statistic that drawing an item twice would change: its interval is a jackknife's.

    Args:
        statistic: of weighted items.
        least: what it cannot be below.
    """

    def __init__(self, statistic: Statistic, *, least: float = -math.inf):
        self._statistic, self._least = statistic, least

    def __call__(self, weights: np.ndarray) -> float:
        """Gives the figure."""
        return self._statistic(weights)

    def interval(self, items: int) -> Metric:
        """Gives the figure with its interval."""
        found = jackknife_interval(self(np.ones(items)), _without_groups(self, items), items)
        return replace(found, low=max(found.low, self._least) if items > 1 else found.low)


def _without_groups(statistic: Statistic, items: int) -> np.ndarray:
    """Gives the figure with each of the groups left out in turn."""
    groups = min(JACKKNIFE_GROUPS, items)
    numbers = np.arange(items) % groups
    return np.array([statistic((numbers != group).astype(float)) for group in range(groups)])


def interval(statistic: Statistic, items: int) -> Metric:
    """Gives a figure with the best interval that is known for its kind."""
    if isinstance(statistic, Share):
        return proportion(int(statistic.right.sum()), items)
    if isinstance(statistic, Jackknifed):
        return statistic.interval(items)
    return bootstrap(statistic, items)


def bootstrap(
    statistic: Statistic, items: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Metric:
    """Gives a figure with its bootstrap interval.

    Items (documents) are drawn with replacement (Efron 1979), whole, because what is inside one
    document is not independent. Percentiles are those of the expanded interval (Hesterberg 2015,
    arXiv:1411.5279, section 5.3), which is as much wider as Student's t and the variance's divisor
    ask for, so that it covers with few items too. One item alone has no interval that could be
    known: it is NaN.

    Args:
        statistic: the figure as a function of the items' weights.
        items: their number.
        seed: of the draws.
        resamples: number of draws.
    """
    value = statistic(np.ones(items))
    if items < 2:
        return Metric(value, math.nan, math.nan, items)
    drawn = np.array([statistic(weights) for weights in _draws(items, seed, resamples)])
    low, high = _percentiles(drawn, items)
    return Metric(value, low, high, items)


def bootstrap_ratio(
    numerators: np.ndarray, denominators: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Metric:
    """Gives a ratio of sums over items with its bootstrap interval; see `Ratio`."""
    ratio = Ratio(numerators, denominators)
    return bootstrap(ratio, len(numerators), seed=seed, resamples=resamples)


def proportion(successes: int, n: int) -> Metric:
    """Gives a share of items with Wilson's score interval (1927); none of 0 items is known.

    Its coverage is nearest to what it says over all shares (Brown, Cai and DasGupta 2001).
    """
    if not n:
        return Metric(math.nan, math.nan, math.nan, 0)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends rounding may pass them by a hair.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Metric(share, low, high, n)


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
        return Metric(value, math.nan, math.nan, n)
    variance = (groups - 1) / groups * float(((left_out - left_out.mean()) ** 2).sum())
    half = _student((1 + LEVEL) / 2, groups - 1) * variance**0.5
    return Metric(value, value - half, value + half, n)


def paired_difference(
    both: Statistic, items: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Compares two models on the same items.

    The interval is a paired bootstrap's (Koehn 2004), or a jackknife's for a statistic that asks
    for it. `p` is that of approximate randomisation (Noreen 1989; Riezler and Maxwell 2005): the
    two answers to an item change places by chance.

    Args:
        both: a statistic over `2 * items` weights: the first model's items, then the second's.
        items: number of items.
        seed: of the draws.
        resamples: number of draws for each of the two.
    """
    nothing, all_ = np.zeros(items), np.ones(items)

    def apart(first: np.ndarray, second: np.ndarray) -> float:
        return both(np.concatenate((first, nothing))) - both(np.concatenate((nothing, second)))

    value = apart(all_, all_)
    if items < 2:
        return Difference(value, math.nan, math.nan, math.nan, items)
    if isinstance(both, Jackknifed):
        left_out = _without_groups(lambda weights: apart(weights, weights), items)
        found = jackknife_interval(value, left_out, items)
        low, high = found.low, found.high
    else:
        drawn = np.array([apart(weights, weights) for weights in _draws(items, seed, resamples)])
        low, high = _percentiles(drawn, items)
    random = np.random.default_rng(seed + 1)
    as_large = 0
    for _ in range(resamples):
        stays = random.integers(0, 2, items).astype(np.float64)
        exchanged = both(np.concatenate((stays, 1 - stays)))
        exchanged -= both(np.concatenate((1 - stays, stays)))
        as_large += abs(exchanged) >= abs(value) * (1 - 1e-12)
    return Difference(value, low, high, (as_large + 1) / (resamples + 1), items)


def mcnemar(first_only: int, second_only: int) -> float:
    """Gives the p of McNemar's test (1947) on items that one of two models alone gets right.

    Exact, with half the chance of the observed split (mid-p), which unlike the plain exact test is
    not too cautious (Fagerland, Lydersen and Laake 2013).

    Args:
        first_only: items that only the first gets right.
        second_only: items that only the second gets right.
    """
    n, few = first_only + second_only, min(first_only, second_only)
    if not n:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(few + 1)
    ]
    chances = [math.exp(value) for value in logs]
    return min(1.0, 2 * math.fsum(chances) - chances[-1])


def _draws(items: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = random.integers(0, items, items)
        yield np.bincount(drawn, minlength=items).astype(np.float64)


def _percentiles(drawn: np.ndarray, items: int) -> tuple[float, float]:
    normal = NormalDist()
    wide = _student((1 + LEVEL) / 2, items - 1) * math.sqrt(items / (items - 1))
    share = normal.cdf(-wide)
    low, high = np.quantile(drawn, [share, 1 - share])
    return float(low), float(high)


def _student(share: float, degrees: int) -> float:
    """Gives a quantile of Student's t by Hill's expansion (1970) of the normal one."""
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))
