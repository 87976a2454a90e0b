"""The batch stream: which tokens step `s` sees is a pure function of (seed, step).

The tokens of a split are one circle. An epoch cuts it into rows of `context` tokens, from an offset
of its own, and takes the rows in an order of its own; every token is predicted exactly once an
epoch. End-of-text closes a document and, as an input, opens the next: it is the first token of the
next document's segment and has that document's first token as its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tianti.tokens.permutation import Permutation, mix
from tianti.tokens.shards import TokenSplit


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents, int64 arrays of shape `(rows, context)`.

    Args:
        ids: input tokens.
        labels: the token after each input.
        segments: number of the document within its row that each input belongs to.
        weight: what the loss of the whole step, of all ranks, is divided by.
        units: number in `targets` of the example that each input belongs to.
        targets: what is wanted of examples, a row each, where labels do not say it.
    """

    ids: np.ndarray
    labels: np.ndarray
    segments: np.ndarray
    weight: float
    units: np.ndarray | None = None
    targets: np.ndarray | None = None


class Stream(Protocol):
    """Rows to train on, each a function of its number.

    Attributes:
        context: tokens in a row.
        rows: rows in a global batch.
    """

    context: int
    rows: int

    @property
    def rows_per_epoch(self) -> int:
        """Gives the rows of the first pass over all there is."""
        ...

    @property
    def epoch_tokens(self) -> int:
        """Gives the tokens of one pass."""
        ...

    def batch(self, step: int, rank: int = 0, world: int = 1, progress: float = 0.0) -> Batch:
        """Gives the rows of one step that belong to one rank; see `BatchStream.batch`."""
        ...

    def rows_numbered(self, numbers: Sequence[int], progress: float = 0.0) -> Batch:
        """Gives some rows; see `BatchStream.rows_numbered`."""
        ...


class BatchStream:
    """Batches of a split for any step, on any number of ranks.

    Args:
        split: the tokens.
        context: tokens in a row.
        rows: rows in a global batch.
        seed: another seed gives another order.
        late: rows that take the place of others, none at first and twice their share at the end.
    """

    def __init__(
        self,
        split: TokenSplit,
        *,
        context: int,
        rows: int,
        seed: int,
        late: BatchStream | None = None,
    ):
        if split.num_tokens < context + 1:
            raise ValueError(
                f"the split holds {split.num_tokens} tokens, one row needs {context + 1}"
            )
        self.split, self.context, self.rows, self.seed = split, context, rows, seed
        self.late = late
        self.rows_per_epoch = split.num_tokens // context
        self.epoch_tokens = split.num_tokens
        self._orders: dict[int, tuple[int, Permutation]] = {}

    def _order(self, epoch: int) -> tuple[int, Permutation]:
        """Gives where the cutting of an epoch begins, and the order of its rows."""
        if epoch not in self._orders:
            key = mix(self.seed * 2**20 + epoch)
            self._orders = {
                epoch: (key % self.split.num_tokens, Permutation(self.rows_per_epoch, key))
            }
        return self._orders[epoch]

    def row_start(self, row: int) -> int:
        """Gives where row number `row`, counted from the first step on, begins in the split."""
        epoch, index = divmod(row, self.rows_per_epoch)
        offset, order = self._order(epoch)
        return (offset + order[index] * self.context) % self.split.num_tokens

    def tokens_at(self, row: int) -> np.ndarray:
        """Gives the `context + 1` tokens of a row, int64."""
        start, total = self.row_start(row), self.split.num_tokens
        stop = start + self.context + 1
        if stop <= total:
            return self.split.read(start, stop)
        return np.concatenate([self.split.read(start, total), self.split.read(0, stop - total)])

    def _row(self, row: int, progress: float) -> np.ndarray:
        """Gives a row of the split or, the more often the later, one of `late` in its place."""
        if self.late is None:
            return self.tokens_at(row)
        share = self.late.split.num_tokens / (self.late.split.num_tokens + self.split.num_tokens)
        chance = mix(mix(self.seed) ^ row) / 2**64
        return (self.late if chance < 2 * share * progress else self).tokens_at(row)

    def batch(self, step: int, rank: int = 0, world: int = 1, progress: float = 0.0) -> Batch:
        """Gives the rows of one step that belong to one rank.

        Args:
            step: number of the step, from 0.
            rank: which process asks.
            world: number of processes; must divide `rows`.
            progress: how much of training is done, in [0, 1]; decides how many rows are `late`.
        """
        if self.rows % world:
            raise ValueError(f"{self.rows} rows cannot be shared evenly by {world} processes")
        first = step * self.rows
        return self.rows_numbered(range(first + rank, first + self.rows, world), progress)

    def rows_numbered(self, numbers: Sequence[int], progress: float = 0.0) -> Batch:
        """Gives some rows.

        Args:
            numbers: of the rows, counted from the first step on.
            progress: as in `batch`.
        """
        rows = np.stack([self._row(number, progress) for number in numbers])
        ids, labels = rows[:, :-1], rows[:, 1:]
        segments = np.cumsum(ids == self.split.index["end_of_text"], axis=1)
        # All labels are supervised.
        weight = float(self.rows * self.context)
        return Batch(np.ascontiguousarray(ids), np.ascontiguousarray(labels), segments, weight)
