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
        holders: the ranks over which the matrices of a copy are cut.
        copies: the ranks that hold the same blocks.
    """

    def __init__(self, holders: dist.ProcessGroup, copies: dist.ProcessGroup):
        self.holders, self.copies = holders, copies
        self._blocks: list[list[list[int]]] | None = None

    def orthogonalize(self, parts: list[MatrixPart]) -> list[Tensor]:
        """Gives what this rank holds of the orthogonalised matrices.

        Args:
            parts: what is held here, the same matrices in the same order on every rank and at
                every call.
        """
        count = self.holders.size()
        owners = _owners(parts, self.copies.size() * count)
        mine = [i for i, owner in enumerate(owners) if owner // count == self.copies.rank()]
        if count == 1:
            made = orthogonalize_parts([parts[i] for i in mine])
        else:
            if self._blocks is None:
                self._blocks = _all_blocks(parts, self.holders)
            made = _in_one_copy(parts, mine, owners, self._blocks, self.holders)
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
    short, long = sorted((part.height, part.width))
    return short * short * (2 * long + short)


def _in_one_copy(
    parts: list[MatrixPart],
    mine: list[int],
    owners: list[int],
    blocks: list[list[list[int]]],
    group: dist.ProcessGroup,
) -> list[Tensor]:
    """Gives what is held of the matrices that this copy computes."""
    count, number = group.size(), group.rank()
    owned = [[i for i in mine if owners[i] % count == rank] for rank in range(count)]
    here = owned[number]
    sent = [torch.cat([parts[i].block.flatten() for i in some]) if some else None for some in owned]
    sizes = [[_numbers(blocks[rank][i]) for i in here] for rank in range(count)]
    received = _exchange(sent, [sum(some) for some in sizes], parts, group)
    like = parts[0].block
    matrices = [like.new_empty(parts[i].height, parts[i].width) for i in here]
    for rank, chunk in enumerate(received):
        for matrix, i, piece in zip(matrices, here, chunk.split(sizes[rank]), strict=True):
            place = _place(matrix, blocks[rank][i])
            place.copy_(piece.view_as(place))
    orthogonalize_parts([MatrixPart.whole(matrix) for matrix in matrices])
    back = [
        torch.cat(
            [
                _place(matrix, blocks[rank][i]).flatten()
                for matrix, i in zip(matrices, here, strict=True)
            ]
        )
        if here
        else None
        for rank in range(count)
    ]
    returned = _exchange(
        back, [sum(parts[i].block.numel() for i in some) for some in owned], parts, group
    )
    found = {}
    for rank, chunk in enumerate(returned):
        lengths = [parts[i].block.numel() for i in owned[rank]]
        for i, piece in zip(owned[rank], chunk.split(lengths), strict=True):
            found[i] = piece.view_as(parts[i].block)
    return [found[i] for i in mine]


def _numbers(block: list[int]) -> int:
    return block[2] * block[3]


def _place(matrix: Tensor, block: list[int]) -> Tensor:
    first, left, height, width = block
    return matrix[first : first + height, left : left + width]


def _all_blocks(parts: list[MatrixPart], group: dist.ProcessGroup) -> list[list[list[int]]]:
    """Gives for each rank and matrix the first row and column, and rows and columns, of a block."""
    device = parts[0].block.device
    held = torch.tensor(
        [(part.first, part.left, *part.block.shape) for part in parts], device=device
    )
    every = [torch.empty_like(held) for _ in range(group.size())]
    dist.all_gather(every, held, group=group)
    return [blocks.tolist() for blocks in every]


def _exchange(
    sent: list[Tensor | None], lengths: list[int], parts: list[MatrixPart], group: dist.ProcessGroup
) -> list[Tensor]:
    """Sends something to each rank of a group; gives what each sent here."""
    like = parts[0].block
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
    like = parts[0].block
    by_copy = [
        [i for i, owner in enumerate(owners) if owner // count == copy]
        for copy in range(group.size())
    ]
    lengths = [sum(parts[i].block.numel() for i in some) for some in by_copy]
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
        sizes = [parts[i].block.numel() for i in some]
        for i, piece in zip(some, chunk[:length].split(sizes), strict=True):
            found[i] = piece.view_as(parts[i].block)
    return found
