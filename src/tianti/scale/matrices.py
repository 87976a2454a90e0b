"""Muon's matrices, orthogonalised by many ranks: each gathers some whole, and gives parts back."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from tianti.train.muon import MatrixPart, orthogonalize_parts


class SharedMatrices:
    """Orthogonalises matrices together.

    Every matrix is computed by one rank of one copy. Ranks of that copy send it what they hold of
    it and get theirs of the result; the other copies get that from their like.

    Args:
        shards: the ranks over which a matrix is cut by rows.
        copies: the ranks that hold the same rows.
    """

    def __init__(self, shards: dist.ProcessGroup, copies: dist.ProcessGroup):
        self.shards, self.copies = shards, copies
        self._spans: Tensor | None = None

    def orthogonalize(self, parts: list[MatrixPart]) -> list[Tensor]:
        """Gives what this rank holds of the orthogonalised matrices.

        Args:
            parts: what is held here, the same matrices in the same order on every rank and at
                every call.
        """
        count = self.shards.size()
        owners = _owners(parts, self.copies.size() * count)
        mine = [i for i, owner in enumerate(owners) if owner // count == self.copies.rank()]
        if count == 1:
            made = orthogonalize_parts([parts[i] for i in mine])
        else:
            if self._spans is None:
                self._spans = _all_rows(parts, self.shards)
            made = _in_one_copy(parts, mine, owners, self._spans, self.shards)
        solved = dict(zip(mine, made, strict=True))
        if self.copies.size() == 1:
            return [solved[i] for i in range(len(parts))]
        return _among_copies(parts, solved, owners, count, self.copies)


def _owners(parts: list[MatrixPart], ranks: int) -> list[int]:
    """Gives who computes each matrix: the dearest first, each to who has least to do."""
    load = [0] * ranks
    owners = [0] * len(parts)
    costs = [_cost(part) for part in parts]
    for index in sorted(range(len(parts)), key=lambda i: (-costs[i], i)):
        owners[index] = min(range(ranks), key=lambda rank: (load[rank], rank))
        load[owners[index]] += costs[index]
    return owners


def _cost(part: MatrixPart) -> int:
    short, long = sorted((part.height, part.rows.shape[1]))
    return short * short * (2 * long + short)


def _in_one_copy(
    parts: list[MatrixPart],
    mine: list[int],
    owners: list[int],
    spans: Tensor,
    group: dist.ProcessGroup,
) -> list[Tensor]:
    """Gives what is held of the matrices that this copy computes."""
    count, number = group.size(), group.rank()
    owned = [[i for i in mine if owners[i] % count == rank] for rank in range(count)]
    sent = [torch.cat([parts[i].rows.flatten() for i in some]) if some else None for some in owned]
    received = _exchange(
        sent, [_length(parts, spans, owned[number], rank) for rank in range(count)], parts, group
    )
    # What came from each rank is its rows of each matrix, in turn.
    pieces = [
        list(chunk.split([int(spans[rank, i]) * _width(parts[i]) for i in owned[number]]))
        for rank, chunk in enumerate(received)
    ]
    whole = [
        torch.cat([pieces[rank][at] for rank in range(count)]).view(-1, _width(parts[i]))
        for at, i in enumerate(owned[number])
    ]
    made = orthogonalize_parts(
        [MatrixPart(matrix.contiguous(), 0, len(matrix)) for matrix in whole]
    )
    back = []
    for rank in range(count):
        rows = [
            matrix[int(spans[:rank, i].sum()) :][: int(spans[rank, i])].flatten()
            for matrix, i in zip(made, owned[number], strict=True)
        ]
        back.append(torch.cat(rows) if rows else None)
    returned = _exchange(
        back, [_length(parts, spans, owned[rank], number) for rank in range(count)], parts, group
    )
    found = {}
    for rank, chunk in enumerate(returned):
        sizes = [parts[i].rows.numel() for i in owned[rank]]
        for i, piece in zip(owned[rank], chunk.split(sizes), strict=True):
            found[i] = piece.view_as(parts[i].rows)
    return [found[i] for i in mine]


def _width(part: MatrixPart) -> int:
    return part.rows.shape[1]


def _length(parts: list[MatrixPart], spans: Tensor, some: list[int], rank: int) -> int:
    return sum(int(spans[rank, i]) * _width(parts[i]) for i in some)


def _all_rows(parts: list[MatrixPart], group: dist.ProcessGroup) -> Tensor:
    """Gives how many rows of each matrix each rank holds, `(ranks, matrices)`."""
    device = parts[0].rows.device
    held = torch.tensor([len(part.rows) for part in parts], device=device)
    spans = [torch.empty_like(held) for _ in range(group.size())]
    dist.all_gather(spans, held, group=group)
    return torch.stack(spans).cpu()


def _exchange(
    sent: list[Tensor | None], lengths: list[int], parts: list[MatrixPart], group: dist.ProcessGroup
) -> list[Tensor]:
    """Sends something to each rank of a group; gives what each sent here."""
    like = parts[0].rows
    chunks = [like.new_empty(0) if chunk is None else chunk for chunk in sent]
    received = like.new_empty(sum(lengths))
    dist.all_to_all_single(
        received, torch.cat(chunks), lengths, [len(chunk) for chunk in chunks], group=group
    )
    return list(received.split(lengths))


def _among_copies(
    parts: list[MatrixPart],
    solved: dict[int, Tensor],
    owners: list[int],
    count: int,
    group: dist.ProcessGroup,
) -> list[Tensor]:
    """Gives all matrices' rows held here, each from the copy that computed it."""
    like = parts[0].rows
    by_copy = [
        [i for i, owner in enumerate(owners) if owner // count == copy]
        for copy in range(group.size())
    ]
    lengths = [sum(parts[i].rows.numel() for i in some) for some in by_copy]
    longest = max(lengths)
    mine = like.new_zeros(longest)
    held = [solved[i].flatten() for i in by_copy[group.rank()]]
    if held:
        filled = torch.cat(held)
        mine[: len(filled)] = filled
    every = [torch.empty_like(mine) for _ in range(group.size())]
    dist.all_gather(every, mine, group=group)
    found: list[Tensor] = [like] * len(parts)
    for some, chunk, length in zip(by_copy, every, lengths, strict=True):
        sizes = [parts[i].rows.numel() for i in some]
        for i, piece in zip(some, chunk[:length].split(sizes), strict=True):
            found[i] = piece.view_as(parts[i].rows)
    return found
