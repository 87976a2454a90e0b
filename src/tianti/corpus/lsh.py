"""Near-duplicates: from MinHash signatures to clusters, one band at a time.

Locality-sensitive hashing (Indyk and Motwani 1998; Leskovec, Rajaraman and Ullman, chapter 3): two
documents whose signatures agree in all rows of one band are a candidate pair, which counts when
enough of their whole signatures agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tianti.corpus.kernels import kernel, mix
from tianti.corpus.minhash import HASHES

_RECALL = 0.99
_PAIRS_TOGETHER = 1 << 14


@dataclass(frozen=True)
class Banding:
    """How signatures are cut, and from which share of equal entries a pair counts."""

    bands: int
    rows: int
    threshold: float


def banding(similarity: float, hashes: int = HASHES) -> Banding:
    """Gives the banding that finds 99 of 100 pairs of a similarity, with the fewest false ones.

    A pair of similarity s becomes a candidate with 1 - (1 - s^rows)^bands; it is then accepted when
    its estimate is at most 2.6 standard deviations below s.
    """
    spread = math.sqrt(similarity * (1 - similarity) / hashes)
    threshold = max(similarity - 2.6 * spread, 0.05)
    best = Banding(hashes, 1, threshold)
    for rows in range(1, 33):
        bands = hashes // rows
        if 1 - (1 - similarity**rows) ** bands >= (1 + _RECALL) / 2:
            best = Banding(bands, rows, threshold)
    return best


class Signatures:
    """The signature files of all documents, of which single entries are read.

    Args:
        paths: files of shape `(HASHES, documents)`, uint16, in the order of the documents.
    """

    def __init__(self, paths: list[Path]):
        self._parts = [np.load(path, mmap_mode="r") for path in paths]
        self._starts = np.cumsum([0] + [part.shape[1] for part in self._parts])
        self.count = int(self._starts[-1])

    def entry(self, index: int) -> np.ndarray:
        """Gives one entry of every document: `(documents,)` uint16."""
        return np.concatenate([np.asarray(part[index]) for part in self._parts])

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Gives the whole signatures of some documents: `(HASHES, numbers)` uint16."""
        out = np.empty((HASHES, len(numbers)), np.uint16)
        order = np.argsort(numbers, kind="stable")
        cuts = np.searchsorted(numbers[order], self._starts)
        for part, start, first, last in zip(
            self._parts, self._starts, cuts[:-1], cuts[1:], strict=False
        ):
            if first < last:
                mine = order[first:last]
                out[:, mine] = part[:, numbers[mine] - start]
        return out

    def band(self, number: int, rows: int) -> np.ndarray:
        """Gives a 64-bit hash of each document's entries in one band."""
        value = np.zeros(self.count, np.uint64)
        with np.errstate(over="ignore"):
            for index in range(number * rows, (number + 1) * rows):
                value = (value + self.entry(index)) * np.uint64(0x9E3779B97F4A7C15)
                value ^= value >> np.uint64(29)
        return value


def near_duplicate_clusters(
    signatures: Signatures,
    cut: Banding,
    eligible: np.ndarray | None = None,
    on_band: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Gives for each document the smallest number in its cluster: its own where it is alone.

    Args:
        signatures: of all documents.
        cut: the banding.
        eligible: which documents take part; all when not given.
        on_band: called after each band.

    Returns:
        `(documents,)` int64.
    """
    parents = np.arange(signatures.count)
    if not signatures.count:
        return parents
    numbers = parents.copy() if eligible is None else np.flatnonzero(eligible)
    for number in range(cut.bands):
        left, right = candidate_pairs(signatures.band(number, cut.rows)[numbers], numbers)
        # What is joined already need not be looked at again.
        roots_left, roots_right = roots_of(parents, left), roots_of(parents, right)
        apart = roots_left != roots_right
        left, right = left[apart], right[apart]
        good = agreement(signatures, left, right) >= cut.threshold
        join(parents, left[good], right[good])
        on_band()
    return roots_of(parents, np.arange(signatures.count))


def candidate_pairs(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the pairs of documents with equal keys: each with the first and the one before it."""
    size = 16
    while size < 2 * len(keys):
        size *= 2
    return _equal_pairs(keys, numbers.astype(np.int64), np.zeros(size, np.int64))


@kernel
def _equal_pairs(
    keys: np.ndarray, numbers: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds equal keys by open addressing; the table holds places counted from one."""
    mask = len(table) - 1
    last = np.empty(len(keys), np.int64)
    left = np.empty(2 * len(keys), np.int64)
    right = np.empty(2 * len(keys), np.int64)
    count = 0
    for index in range(len(keys)):
        place = np.int64(mix(keys[index]) & np.uint64(mask))
        while table[place] and keys[table[place] - 1] != keys[index]:
            place = (place + 1) & mask
        if table[place] == 0:
            table[place] = index + 1
            last[index] = index
            continue
        first = table[place] - 1
        left[count], right[count] = numbers[first], numbers[index]
        count += 1
        if last[first] != first:
            left[count], right[count] = numbers[last[first]], numbers[index]
            count += 1
        last[first] = index
    return left[:count], right[:count]


def agreement(signatures: Signatures, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Gives the share of equal entries of each pair, float64."""
    shares = np.empty(len(left))
    for start in range(0, len(left), _PAIRS_TOGETHER):
        here = slice(start, start + _PAIRS_TOGETHER)
        equal = signatures.of(left[here]) == signatures.of(right[here])
        shares[here] = equal.sum(axis=0) / HASHES
    return shares


@kernel
def _root(parents: np.ndarray, number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


@kernel
def roots_of(parents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Gives the smallest number in the cluster of each."""
    out = np.empty(len(numbers), np.int64)
    for index in range(len(numbers)):
        out[index] = _root(parents, numbers[index])
    return out


@kernel
def join(parents: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Joins the clusters of each pair under the smaller number (Tarjan 1975)."""
    for index in range(len(left)):
        a, b = _root(parents, left[index]), _root(parents, right[index])
        if a < b:
            parents[b] = a
        elif b < a:
            parents[a] = b
