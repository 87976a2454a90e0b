"""Blocks of documents, which a CPU's FlexAttention does not look at, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from tianti.model.attention import Columns, document_blocks, document_mask


def by_a_table(segments, window=0):
    def may_look(batch, head, row, column):
        within = row - column < (window or segments.shape[1])
        return (row >= column) & within & (segments[batch, row] == segments[batch, column])

    batch, time = segments.shape
    return create_block_mask(may_look, batch, None, time, time, device="cpu")


def filled(counts, indices):
    """The blocks that counts and indices name, `(batch, rows, columns)`."""
    batch, _, rows, columns = indices.shape
    table = torch.zeros(batch, rows, columns, dtype=torch.bool)
    for b in range(batch):
        for row in range(rows):
            table[b, row, indices[b, 0, row, : counts[b, 0, row]].long()] = True
    return table


def parts(blocks):
    partial = filled(blocks.kv_num_blocks, blocks.kv_indices)
    return partial, filled(blocks.full_kv_num_blocks, blocks.full_kv_indices)


@pytest.mark.parametrize("time", [100, 128, 300, 512, 1000])
@pytest.mark.parametrize("ends", [0, 0.003, 0.02, 0.3])
@pytest.mark.parametrize("window", [0, 100, 129, 300])
def test_the_same_blocks_are_empty_partial_and_full(time, ends, window):
    generator = torch.Generator().manual_seed(time)
    segments = (torch.rand(3, time, generator=generator) < ends).cumsum(1)
    found, expected = document_blocks(segments, window=window), by_a_table(segments, window)
    for mine, theirs in zip(parts(found), parts(expected), strict=True):
        assert torch.equal(mine, theirs)
    assert found.seq_lengths == expected.seq_lengths
    rows = columns = torch.arange(time)
    looks = found.mask_mod(torch.tensor(1), torch.tensor(0), rows[:, None], columns)
    assert torch.equal(looks, document_mask(segments, window=window)[1, 0])


def test_documents_in_any_order_lose_nothing():
    segments = torch.randint(0, 3, (2, 300), generator=torch.Generator().manual_seed(0))
    looked_at = document_mask(segments).squeeze(1)
    partial, full = parts(document_blocks(segments))
    size = 128
    for batch, row, column in looked_at.nonzero().tolist():
        place = batch, row // size, column // size
        assert partial[place] or full[place]
    for batch, row, column in full.nonzero().tolist():
        rows, columns = (
            slice(row * size, (row + 1) * size),
            slice(column * size, (column + 1) * size),
        )
        assert looked_at[batch, rows, columns].all()


@pytest.mark.parametrize("time", [512, 320, 96])
@pytest.mark.parametrize("ends", [0, 0.02])
@pytest.mark.parametrize("window", [0, 50, 200])
def test_some_tokens_of_a_row_look_as_they_do_in_the_whole_row(time, ends, window):
    generator = torch.Generator().manual_seed(time)
    segments = (torch.rand(2, time, generator=generator) < ends).cumsum(1)
    pieces = torch.arange(time).view(4, -1)
    of_rank = [torch.cat((pieces[rank], pieces[-1 - rank])) for rank in range(2)]
    whole = document_mask(segments, window=window)
    for here in of_rank:
        columns = Columns(here, torch.cat(of_rank))
        expected = whole[:, :, columns.here][..., columns.all]
        assert torch.equal(document_mask(segments, columns, window), expected)
        partial, full = parts(document_blocks(segments, columns, window))
        size = 128
        for batch, row, column in full.nonzero().tolist():
            rows = slice(row * size, (row + 1) * size)
            assert expected[batch, 0, rows, column * size : (column + 1) * size].all()
        for batch, row, column in expected.squeeze(1).nonzero().tolist():
            place = batch, row // size, column // size
            assert partial[place] or full[place]
