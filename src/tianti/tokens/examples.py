"""The stream of examples: short texts packed into rows, in an order that follows from the seed.

An epoch takes every example, or each as often as it is to be drawn, in an order of its own, and
packs them into rows of `context` tokens: each goes where it fits best among some open rows. Masks
keep examples of a row apart, so packing changes nothing but the speed.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tianti.tokens.permutation import mix
from tianti.tokens.stream import Batch

IGNORED = -100
# Rows that are open at once: 64 leave less than 2 % of the places of mixed lengths empty.
OPEN_ROWS = 64


@dataclass(frozen=True)
class Examples:
    """Examples as tokens, one behind the other.

    An example is one text or, of preferences, several, which the network sees each by itself.

    Args:
        ids: tokens of all texts, int64.
        labels: what is wanted at each of them, int64; `IGNORED` is not supervised.
        text_ends: where each text ends in these, int64 `(texts,)`.
        texts: of each example; the same of all.
        weights: what each adds to what a loss is divided by, float64 `(examples,)`.
        targets: what is wanted of each, a row each, where labels do not say it.
    """

    ids: np.ndarray
    labels: np.ndarray
    text_ends: np.ndarray
    weights: np.ndarray
    texts: int = 1
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def starts(self) -> np.ndarray:
        """Gives where each example begins, and where the last one ends, int64."""
        return np.concatenate([[0], self.text_ends[self.texts - 1 :: self.texts]])

    @property
    def lengths(self) -> np.ndarray:
        """Gives the tokens of each example, int64."""
        return np.diff(self.starts)

    @staticmethod
    def of(
        rows: Sequence[tuple[Sequence[int], Sequence[int]]],
        weights: Sequence[float],
        texts: int = 1,
        targets: np.ndarray | None = None,
    ) -> Examples:
        """Puts texts together.

        Args:
            rows: tokens and labels of each text.
            weights: see the class.
            texts: see the class.
            targets: see the class.
        """
        lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)

        def flat(which: int) -> np.ndarray:
            parts = [np.asarray(row[which], dtype=np.int64) for row in rows]
            return np.concatenate(parts) if parts else np.zeros(0, np.int64)

        ends, each = lengths.cumsum(), np.asarray(weights, dtype=np.float64)
        return Examples(flat(0), flat(1), ends, each, texts, targets)


class ExampleStream:
    """Batches of examples for any step, on any number of ranks; see `tianti.tokens.stream.Stream`.

    Args:
        examples: at least one, none longer than `context`.
        context: tokens in a row.
        rows: rows in a global batch.
        seed: another seed gives another order.
        pad: id that fills rows up.
        shares: how often each example is drawn in an epoch, on average; once when not given.
        families: a number for each example; of those that have the same, one is drawn in an epoch.
        noise: share of the tokens that `pad` stands for, but of those at which something is
            wanted; others each time a row comes (word dropout, Iyyer et al. 2015).
    """

    def __init__(
        self,
        examples: Examples,
        *,
        context: int,
        rows: int,
        seed: int,
        pad: int,
        shares: np.ndarray | None = None,
        families: np.ndarray | None = None,
        noise: float = 0.0,
    ):
        if not len(examples):
            raise ValueError("no examples")
        if (longest := int(examples.lengths.max())) > context:
            raise ValueError(f"an example of {longest} tokens does not fit a row of {context}")
        self.examples, self.context, self.rows, self.seed = examples, context, rows, seed
        self._pad, self._shares, self._noise = pad, shares, noise
        self._families = families
        self._starts = examples.starts
        # What each epoch's rows begin with; the last epoch's rows.
        self._firsts: list[int] = [0]
        self._packed: tuple[int, list[list[int]]] = (-1, [])

    @property
    def rows_per_epoch(self) -> int:
        """Gives the rows of the first pass over all examples."""
        self._know(0)
        return self._firsts[1]

    @property
    def epoch_tokens(self) -> int:
        """Gives the tokens of one pass, what fills rows up among them."""
        return self.rows_per_epoch * self.context

    def _know(self, epoch: int) -> None:
        """Packs epochs up to this one, as far as that has not been done."""
        while len(self._firsts) <= epoch + 1:
            number = len(self._firsts) - 1
            self._packed = number, self._pack(number)
            self._firsts.append(self._firsts[-1] + len(self._packed[1]))

    def _rows_of(self, epoch: int) -> list[list[int]]:
        self._know(epoch)
        if self._packed[0] != epoch:
            self._packed = epoch, self._pack(epoch)
        return self._packed[1]

    def _pack(self, epoch: int) -> list[list[int]]:
        """Gives the examples of each row of an epoch."""
        key = mix(self.seed * 2**20 + epoch)
        lengths, rows = self.examples.lengths, []
        # Rows that are open, by the room they have.
        room: list[int] = []
        members: list[list[int]] = []
        for number in self._drawn(key).tolist():
            length = int(lengths[number])
            place = bisect.bisect_left(room, length)
            if place < len(room):
                left, row = room.pop(place) - length, members.pop(place)
            else:
                left, row = self.context - length, []
                if len(room) == OPEN_ROWS:
                    room.pop(0)
                    rows.append(members.pop(0))
            row.append(number)
            place = bisect.bisect_left(room, left)
            room.insert(place, left)
            members.insert(place, row)
        rows += members
        # Rows that were closed late hold short examples.
        order = np.argsort(_hashes(np.arange(len(rows)), mix(key + 1)), kind="stable")
        return [rows[index] for index in order]

    def _drawn(self, key: int) -> np.ndarray:
        """Gives the examples of an epoch in its order."""
        numbers = np.arange(len(self.examples))
        if self._families is not None:
            order = np.lexsort((_hashes(numbers, mix(key + 4)), self._families))
            _, first = np.unique(self._families[order], return_index=True)
            numbers = order[first]
        if self._shares is not None:
            chance = _hashes(numbers, mix(key + 2)) / 2.0**64
            numbers = numbers.repeat(np.floor(self._shares[numbers] + chance).astype(np.int64))
        return numbers[np.argsort(_hashes(np.arange(len(numbers)), key), kind="stable")]

    def members(self, row: int) -> list[int]:
        """Gives the examples of a row, counted from the first step on."""
        while self._firsts[-1] <= row:
            self._know(len(self._firsts) - 1)
        epoch = bisect.bisect_right(self._firsts, row) - 1
        return self._rows_of(epoch)[row - self._firsts[epoch]]

    def batch(self, step: int, rank: int = 0, world: int = 1, progress: float = 0.0) -> Batch:
        """Gives the rows of one step that belong to one rank; see `BatchStream.batch`."""
        first = step * self.rows
        whole = [self.members(number) for number in range(first, first + self.rows)]
        weight = sum(float(self.examples.weights[members].sum()) for members in whole)
        # Who would have a row less than others gets one in which nothing is wanted.
        whole += [[] for _ in range(-self.rows % world)]
        built = self._built(whole[rank::world], weight)
        if self._noise:
            for place in range(len(built.ids)):
                self._hide(built.ids[place], built.labels[place], first + rank + place * world)
        return built

    def _hide(self, ids: np.ndarray, labels: np.ndarray, row: int) -> None:
        """Hides some tokens of a row."""
        key = mix(mix(self.seed + 3) ^ row)
        hidden = _hashes(np.arange(len(ids)), key) / 2.0**64 < self._noise
        if not self._all_wanted:
            hidden &= labels == IGNORED
        ids[hidden & ~self._kept[ids]] = self._pad

    @cached_property
    def _all_wanted(self) -> bool:
        """Tells whether something is wanted at most tokens, rather than at some."""
        return bool((self.examples.labels != IGNORED).mean() > 0.5)

    @cached_property
    def _kept(self) -> np.ndarray:
        """Tells of each id whether it is never hidden: those that end a text do so always."""
        kept = np.zeros(max(int(self.examples.ids.max()), self._pad) + 1, dtype=bool)
        ends = self.examples.ids[self.examples.text_ends - 1]
        ids, counts = np.unique(ends, return_counts=True)
        kept[ids[counts > 0.9 * len(ends)]] = True
        return kept

    def rows_numbered(self, numbers: Sequence[int], progress: float = 0.0) -> Batch:
        """Gives some rows; see `BatchStream.rows_numbered`. Their weight is their own."""
        rows = [self.members(number) for number in numbers]
        return self._built(rows, sum(float(self.examples.weights[row].sum()) for row in rows))

    def _built(self, rows: list[list[int]], weight: float) -> Batch:
        held, shape = self.examples, (len(rows), self.context)
        ids, labels = np.full(shape, self._pad, np.int64), np.full(shape, IGNORED, np.int64)
        segments, units = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        count = 0
        for row, members in enumerate(rows):
            at = 0
            for place, number in enumerate(members):
                begin, end = int(self._starts[number]), int(self._starts[number + 1])
                here = slice(at, at + end - begin)
                ids[row, here], labels[row, here] = held.ids[begin:end], held.labels[begin:end]
                ends = held.text_ends[number * held.texts : (number + 1) * held.texts]
                within = np.searchsorted(ends, np.arange(begin, end), side="right")
                segments[row, here] = place * held.texts + within
                units[row, here] = count + place
                at = here.stop
            # What fills up is a text of its own.
            segments[row, at:] = len(members) * held.texts
            count += len(members)
        targets = None
        if held.targets is not None:
            targets = held.targets[[number for members in rows for number in members]]
        return Batch(ids, labels, segments, max(weight, 1e-12), units, targets)


def _hashes(numbers: np.ndarray, key: int) -> np.ndarray:
    """Gives a number for each that follows from it and the key, uint64 (SplitMix64)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(key & (2**64 - 1))
        x = (x + np.uint64(0x9E3779B97F4A7C15)) & np.uint64(2**64 - 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
