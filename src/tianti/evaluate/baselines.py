"""What a model must beat: a general compressor and counting."""

from __future__ import annotations

import lzma
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tianti.evaluate.statistics import Metric, bootstrap_ratio, jackknife_interval

XZ_GROUPS = 10
_VALUES = 256


def xz_bits_per_byte(texts: list[str]) -> Metric:
    """Gives the bits per byte of `xz -9e` on the texts, joined by empty lines.

    Args:
        texts: the documents, as one file is what the compressor gets.
    """
    if not any(texts):
        return Metric(math.nan, math.nan, math.nan, len(texts))
    value = _xz_bits_per_byte(texts)
    groups = min(XZ_GROUPS, len(texts))
    without = [
        [text for i, text in enumerate(texts) if i % groups != group]
        for group in range(groups)
        if len(texts) > 1
    ]
    with ThreadPoolExecutor() as pool:  # lzma computes without the interpreter's lock
        left_out = list(pool.map(_xz_bits_per_byte, without))
    return jackknife_interval(value, np.array(left_out), len(texts))


def _xz_bits_per_byte(texts: list[str]) -> float:
    data = "\n\n".join(texts).encode("utf-8")
    # The preset's dictionary is 64 MiB and takes ten times that; one as large as the data gives the
    # same bytes.
    window = min(64 << 20, max(4_096, len(data)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return 8 * len(lzma.compress(data, filters=filters)) / len(data)


class ByteTrigrams:
    """A byte 3-gram model with add-one smoothing: P(c | a b) = (n(abc) + 1) / (n(ab) + 256)."""

    def __init__(self) -> None:
        self._counts = np.zeros(_VALUES**3, dtype=np.int64)
        self._contexts = np.zeros(_VALUES**2, dtype=np.int64)

    def learn(self, text: str) -> None:
        """Counts the 3-grams of one document, zero bytes standing before its first."""
        keys = self._keys(text)
        values, counts = np.unique(keys, return_counts=True)
        self._counts[values] += counts
        np.add.at(self._contexts, values // _VALUES, counts)

    def bits(self, text: str) -> float:
        """Gives the code length of one document in bits."""
        keys = self._keys(text)
        chances = (self._counts[keys] + 1) / (self._contexts[keys // _VALUES] + _VALUES)
        return float(-np.log2(chances).sum())

    def bits_per_byte(self, texts: list[str]) -> Metric:
        """Gives the bits per byte over documents with a bootstrap interval."""
        return bootstrap_ratio(
            np.array([self.bits(text) for text in texts]),
            np.array([len(text.encode("utf-8")) for text in texts], dtype=np.float64),
        )

    @staticmethod
    def _keys(text: str) -> np.ndarray:
        data = np.frombuffer(b"\0\0" + text.encode("utf-8"), dtype=np.uint8).astype(np.int64)
        return (data[:-2] * _VALUES + data[1:-1]) * _VALUES + data[2:]


def uniform_bits_per_byte(vocab_size: int, tokens: int, num_bytes: int) -> float:
    """Gives the bits per byte of a model that knows nothing but its tokenizer."""
    return tokens * math.log2(vocab_size) / max(num_bytes, 1)
