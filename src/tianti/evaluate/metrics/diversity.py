"""How varied texts are: distinct n-grams, likeness to each other, repetition, compressibility."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tianti.evaluate.metrics.text import words
from tianti.evaluate.statistics import Ratio


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Gives all runs of `n` words."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


class Distinct:
    """distinct-n (Li et al. 2016, arXiv:1510.03055) over texts: distinct n-grams over all n-grams.

    Args:
        texts: what was generated.
        n: words in a run.
    """

    def __init__(self, texts: Sequence[str], n: int):
        self._grams = [ngrams(words(text), n) for text in texts]

    def __call__(self, weights: np.ndarray) -> float:
        """Gives the share; a text drawn twice would add to all n-grams and none to the distinct
        ones, so its interval is a jackknife's.
        """
        seen: set[tuple[str, ...]] = set()
        total = 0.0
        for weight, grams in zip(weights, self._grams, strict=True):
            if weight:
                seen.update(grams)
                total += weight * len(grams)
        return len(seen) / total if total else 0.0


def repetition(texts: Sequence[str], n: int = 4) -> Ratio:
    """Gives the share of n-grams of a text that it had before (seq-rep-n, Welleck et al. 2020)."""
    repeated, total = [], []
    for text in texts:
        counts = Counter(ngrams(words(text), n))
        total.append(sum(counts.values()))
        repeated.append(total[-1] - len(counts))
    return Ratio(np.array(repeated), np.array(total, dtype=np.float64))


def compression_ratio(texts: Sequence[str]) -> Ratio:
    """Gives bytes over compressed bytes (Shaib et al. 2024), each text by itself."""
    data = [text.encode("utf-8") for text in texts]
    return Ratio(
        np.array([len(part) for part in data]),
        np.array([len(zlib.compress(part, 9)) for part in data], dtype=np.float64),
    )


def self_bleu(texts: Sequence[str], most: int = 100) -> list[float]:
    """Gives each text's BLEU-4 against all others (Zhu et al. 2018), 0 to 100.

    Args:
        texts: what was generated.
        most: texts taken, from the first on: the work grows with their square.

    Raises:
        UserError: sacrebleu is not installed.
    """
    from tianti.evaluate.metrics.translation import bleu

    taken = [" ".join(words(text)) for text in texts[:most]]
    return [
        bleu([text], [[*taken[:i], *taken[i + 1 :]]], "none")(np.ones(1))
        for i, text in enumerate(taken)
        if len(taken) > 1
    ]
