"""Tensors that ranks hold in pieces: whoever reads gets its own pieces, whoever wrote."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tianti.errors import Damaged
from tianti.train.muon import parts_of
from tianti.train.parts import Holding, Piece, read_parts


def cut(whole: tuple[int, int], splits: list[int], ranks: int, by: str) -> list[Holding]:
    """What each of some ranks holds: rows of each fused matrix, columns, or rows of all."""
    height, width = whole
    found = []
    for rank in range(ranks):
        if by == "columns":
            size = width // ranks
            piece = Piece(0, (0, rank * size), (height, size))
            found.append(Holding(whole, piece.size, (piece,)))
            continue
        pieces, begin, at = [], 0, 0
        for rows in splits if by == "fused" else [height]:
            size = rows // ranks
            pieces.append(Piece(at, (begin + rank * size, 0), (size, width)))
            begin, at = begin + rows, at + size
        found.append(Holding(whole, (at, width), tuple(pieces)))
    return found


def sharded(holding: Holding, ranks: int) -> list[Holding]:
    """The same cut further by rows, as FSDP2 does; the last may have fewer or none."""
    height = holding.shape[0]
    size = -(-height // ranks)
    starts = [min(rank * size, height) for rank in range(ranks + 1)]
    return [holding.rows(*ends) for ends in itertools.pairwise(starts)]


layouts = st.tuples(st.sampled_from(["fused", "columns", "rows"]), st.sampled_from([1, 2, 4]))
splits_of = st.lists(st.sampled_from([4, 8, 12]), min_size=1, max_size=3)


@given(splits_of, layouts, layouts, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_any_ranks_read_what_any_others_wrote(tmp_path_factory, splits, wrote, reads, many, more):
    folder = tmp_path_factory.mktemp("parts")
    whole = torch.arange(float(sum(splits) * 8)).view(-1, 8)
    shape = tuple(whole.shape)
    where = {}
    parts = [s for h in cut(shape, splits, wrote[1], wrote[0]) for s in sharded(h, many)]
    for number, holding in enumerate(parts):
        held = torch.full(holding.shape, -1.0)
        holding.fill(held, whole)
        if not held.numel():
            continue
        file = f"model-{number:05d}.safetensors"
        save_file({"w": held, "other": torch.ones(2)}, folder / file)
        pieces = [[piece.at, piece.start, piece.size] for piece in holding.pieces]
        where[file] = {"w": {"whole": list(shape), "pieces": pieces}}
    for holding in cut(shape, splits, reads[1], reads[0]):
        for wanted in sharded(holding, more):
            expected = torch.empty(wanted.shape)
            wanted.fill(expected, whole)
            found = read_parts(folder, list(where), where, {"w": wanted}, {"w"})
            # What nobody here holds is not read at all.
            assert found.keys() == {"w"}
            assert torch.equal(found["w"], expected)
            # Each fused matrix is held as one block, at its own place.
            begin = 0
            for height, part in zip(splits, parts_of(expected, splits, wanted), strict=True):
                rows = whole[begin : begin + height][part.first :][: len(part.block)]
                columns = rows[:, part.left :][:, : part.block.shape[1]]
                assert part.block.numel() == 0 or torch.equal(part.block, columns)
                assert (part.height, part.width) == (height, 8)
                begin += height
    lost = next(iter(where))
    missing = {file: there for file, there in where.items() if file != lost}
    if missing:
        with pytest.raises(Damaged, match="missing"):
            read_parts(folder, list(missing), missing, {})
