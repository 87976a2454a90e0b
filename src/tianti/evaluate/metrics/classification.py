"""Figures of classification, each from the table of what was predicted for what.

The same as scikit-learn's; from weighted counts, so that a draw of the bootstrap costs one count.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

Average = Literal["micro", "macro", "weighted"]


class Predictions:
    """Predicted and true classes of items.

    Args:
        predicted: one label an item.
        gold: the true ones.
        labels: all classes, in order; those that occur, sorted, when not given.

    Raises:
        ValueError: lengths differ, or a label is none of `labels`.
    """

    def __init__(
        self,
        predicted: Sequence[Hashable],
        gold: Sequence[Hashable],
        labels: Sequence[Hashable] | None = None,
    ):
        if len(predicted) != len(gold):
            raise ValueError(f"{len(predicted)} predictions for {len(gold)} items")
        if labels is None:
            labels = sorted({*predicted, *gold}, key=lambda label: (str(type(label)), label))
        self.labels = list(labels)
        place = {label: number for number, label in enumerate(self.labels)}
        unknown = {label for label in (*predicted, *gold) if label not in place}
        if unknown:
            raise ValueError(f"unknown labels: {sorted(map(str, unknown))[:5]}")
        self.predicted = np.array([place[label] for label in predicted], dtype=np.int64)
        self.gold = np.array([place[label] for label in gold], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.gold)

    def confusion(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Gives the weighted counts `(true class, predicted class)`."""
        count = len(self.labels)
        cells = np.bincount(
            self.gold * count + self.predicted, weights=weights, minlength=count * count
        )
        return cells.reshape(count, count).astype(np.float64)

    def accuracy(self, weights: np.ndarray) -> float:
        """Gives the share of items whose class is right."""
        return float(weights @ (self.predicted == self.gold)) / max(float(weights.sum()), 1e-300)

    def matthews(self, weights: np.ndarray) -> float:
        """Gives Matthews' correlation for any number of classes (Gorodkin 2004)."""
        table = self.confusion(weights)
        total, right = table.sum(), np.trace(table)
        true, found = table.sum(axis=1), table.sum(axis=0)
        above = right * total - true @ found
        below = (total**2 - found @ found) * (total**2 - true @ true)
        return float(above / np.sqrt(below)) if below > 0 else 0.0

    def per_class(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Gives `precision`, `recall`, `f1` and `support` of each class; 0 / 0 is 0."""
        return _rates(self.confusion(weights))

    def averaged(self, name: str, average: Average, weights: np.ndarray) -> float:
        """Gives precision, recall or f1 over classes.

        Args:
            name: `precision`, `recall` or `f1`.
            average: `micro` over items, `macro` over classes alike, `weighted` by their support.
            weights: of the items.
        """
        if average == "micro":
            # Every item has one class and one prediction: what is found and what is true coincide.
            return self.accuracy(weights)
        rates = self.per_class(weights)
        if average == "macro":
            # A class that neither occurs nor is predicted in a draw says nothing.
            there = (rates["support"] + rates["found"]) > 0
            return float(rates[name][there].mean()) if there.any() else 0.0
        return float(np.average(rates[name], weights=rates["support"]))


def _rates(table: np.ndarray) -> dict[str, np.ndarray]:
    right, true, found = np.diag(table), table.sum(axis=1), table.sum(axis=0)

    def share(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

    return {
        "precision": share(right, found),
        "recall": share(right, true),
        "f1": share(2 * right, true + found),
        "support": true,
        "found": found,
    }
