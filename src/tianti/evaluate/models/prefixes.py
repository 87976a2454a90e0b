"""Texts that begin alike, laid so that what they share is computed once.

The texts of a call form a tree: those that begin alike share the tokens up to where they part. A
row holds a part of that tree, each token once and looking only at its own ancestors (as in Miao et
al. 2023, arXiv:2305.09781, who do so with guesses of one text). Where very many texts share a long
beginning, as with few-shot examples, its keys and values are kept and rows hold only what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

# A shared beginning shorter than this is not worth a cache of its own.
LEAST_SHARED = 32
# Tokens of a row behind a cached beginning: enough for large products, few enough that the part of
# attention which the mask throws away stays small.
CACHED_ROW = 512
# A row's mask grows with its square: a longer beginning is kept, however few follow it.
LONGEST_TREE = 2_048


@dataclass(frozen=True)
class Asked:
    """A text of which a model is asked about the end.

    Args:
        tokens: of the text; all but the last are read, all but the first predicted.
        first: place in what is read from which on predictions are asked for.
    """

    tokens: np.ndarray
    first: int

    @property
    def read(self) -> np.ndarray:
        """Gives what is read."""
        return self.tokens[:-1]

    @property
    def labels(self) -> np.ndarray:
        """Gives what is to be predicted where predictions are asked for."""
        return self.tokens[self.first + 1 :]


@dataclass
class Row:
    """A part of the tree.

    Attributes:
        pieces: new tokens of each text, in order.
        starts: position of the first new token of each text.
        paths: for each text, its number and the places in the row of all its tokens.
        size: tokens.
    """

    pieces: list[np.ndarray] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    paths: list[tuple[int, np.ndarray]] = field(default_factory=list)
    size: int = 0

    def add(self, number: int, read: np.ndarray, shared: int, start: int) -> None:
        """Adds a text.

        Args:
            number: of the text.
            read: its tokens.
            shared: how many of them are those of the text before it.
            start: position of the first one.
        """
        path = np.arange(self.size - shared, self.size + len(read) - shared)
        if shared:
            path[:shared] = self.paths[-1][1][:shared]
        self.paths.append((number, path))
        self.pieces.append(read[shared:])
        self.starts.append(start + shared)
        self.size += len(read) - shared

    @property
    def is_chain(self) -> bool:
        """Gives whether every token follows the one before it: a plain text."""
        return all(len(path) == path[-1] + 1 for _, path in self.paths)

    def ids(self) -> np.ndarray:
        """Gives the tokens."""
        return np.concatenate(self.pieces)

    def positions(self) -> np.ndarray:
        """Gives the place of each token in its text."""
        pairs = zip(self.starts, self.pieces, strict=True)
        return np.concatenate([np.arange(start, start + len(piece)) for start, piece in pairs])

    def looks(self, size: int) -> np.ndarray:
        """Gives which token looks at which, booleans `(size, size)`; padding looks at itself."""
        mask = np.eye(size, dtype=bool)
        seen = 0
        for (_, path), piece in zip(self.paths, self.pieces, strict=True):
            new = len(piece)
            if new:
                shared = path[: len(path) - new]
                mask[seen : seen + new, shared] = True
                mask[seen : seen + new, seen : seen + new] = np.tri(new, dtype=bool)
                seen += new
        return mask


@dataclass
class Family:
    """Texts with the beginning they share.

    Args:
        beginning: tokens that all rows follow; may be empty.
        rows: what follows.
    """

    beginning: np.ndarray
    rows: list[Row]


def families(texts: Sequence[Asked], worth: float) -> Iterator[Family]:
    """Lays texts into families of rows; the first has no beginning and may have no rows.

    Args:
        texts: what is asked.
        worth: to how many tokens a token must look until that costs as much as the products with
            the weights.
    """
    order = sorted(range(len(texts)), key=lambda n: texts[n].tokens.astype(">u4").tobytes())
    shared = [0] * len(order)
    for place in range(1, len(order)):
        shared[place] = _shared(texts[order[place - 1]].read, texts[order[place]].read)
    plain: list[tuple[int, int]] = []
    cached = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order) and shared[stop] >= LEAST_SHARED:
            continue
        members = list(zip(order[start:stop], shared[start:stop], strict=True))
        base = _base(texts, members)
        if base:
            rows = _cached_rows(texts, members, base)
            cached.append(Family(texts[order[start]].read[:base], rows))
            if stop < len(order):
                # The text before it stands in no row of the others.
                shared[stop] = 0
        else:
            plain += members
        start = stop
    yield Family(np.empty(0, np.int64), _rows(texts, plain, worth))
    yield from cached


def _base(texts: Sequence[Asked], members: Sequence[tuple[int, int]]) -> int:
    """Gives how many tokens all members begin with; 0 where keeping them does not pay."""
    base = min([same for _, same in members[1:]] + [texts[number].first for number, _ in members])
    new = len(texts[members[0][0]].read) - base
    new += sum(len(texts[number].read) - same for number, same in members[1:])
    pays = base >= LEAST_SHARED and new > CACHED_ROW
    return base if len(members) > 1 and (pays or base >= LONGEST_TREE) else 0


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    common = min(len(one), len(other))
    differs = np.flatnonzero(one[:common] != other[:common])
    return int(differs[0]) if len(differs) else common


def _rows(texts: Sequence[Asked], members: Sequence[tuple[int, int]], worth: float) -> list[Row]:
    """Gives rows in which what is saved outweighs what is looked at in vain."""
    rows: list[Row] = []
    for place, (number, same) in enumerate(members):
        read = texts[number].read
        if place:
            size = rows[-1].size
            larger = size + len(read) - same
            grown = larger * (worth + larger) - size * (worth + size)
            if grown < len(read) * (worth + len(read)):
                rows[-1].add(number, read, same, 0)
                continue
        rows.append(Row())
        rows[-1].add(number, read, 0, 0)
    return rows


def _cached_rows(
    texts: Sequence[Asked], members: Sequence[tuple[int, int]], base: int
) -> list[Row]:
    rows = [Row()]
    for place, (number, same) in enumerate(members):
        read = texts[number].read[base:]
        known = same - base if place and rows[-1].paths else 0
        if rows[-1].paths and rows[-1].size + len(read) - known > CACHED_ROW:
            rows.append(Row())
            known = 0
        rows[-1].add(number, read, known, base)
    return rows


def batches(rows: Sequence[Row], budget: int) -> Iterator[list[Row]]:
    """Gives rows of about one size together, at most `budget` tokens with their padding."""
    # Plain texts apart: they need no mask.
    ordered = sorted(rows, key=lambda row: (row.is_chain, row.size), reverse=True)
    start = 0
    while start < len(ordered):
        first = ordered[start]
        most = start + max(1, budget // first.size)
        group = [row for row in ordered[start:most] if row.is_chain == first.is_chain]
        yield group
        start += len(group)
