"""Whether a model is right as often as it says: calibration error, Brier score, reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Items whose confidence lies in one range: their mean confidence and how many are right."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


class Calibration:
    """Chances that a model gave to classes, and which class was true.

    Args:
        chances: `(items, classes)`, rows sum to 1.
        gold: number of the true class, `(items,)`.
    """

    def __init__(self, chances: np.ndarray, gold: np.ndarray):
        self.chances, self.gold = np.asarray(chances, dtype=np.float64), np.asarray(gold)
        self.confidence = self.chances.max(axis=1)
        self.right = (self.chances.argmax(axis=1) == self.gold).astype(np.float64)
        self._bins = np.clip(np.ceil(self.confidence * BINS).astype(int) - 1, 0, BINS - 1)

    def expected_calibration_error(self, weights: np.ndarray) -> float:
        """Gives ECE over 15 bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
        total = max(float(weights.sum()), 1e-300)
        gap = weights * (self.right - self.confidence)
        return float(np.abs(np.bincount(self._bins, weights=gap, minlength=BINS)).sum() / total)

    def brier(self, weights: np.ndarray) -> float:
        """Gives the mean squared distance of chances from the truth, 0 to 2 (Brier 1950)."""
        truth = np.zeros_like(self.chances)
        truth[np.arange(len(self.gold)), self.gold] = 1
        each = ((self.chances - truth) ** 2).sum(axis=1)
        return float(weights @ each / max(float(weights.sum()), 1e-300))

    def reliability(self) -> list[Bin]:
        """Gives the points of the reliability curve, bins without items left out."""
        points = []
        for number in range(BINS):
            inside = self._bins == number
            if count := int(inside.sum()):
                points.append(
                    Bin(
                        number / BINS,
                        (number + 1) / BINS,
                        float(self.confidence[inside].mean()),
                        float(self.right[inside].mean()),
                        count,
                    )
                )
        return points
