"""Causal self-attention with grouped key/value heads and normalised queries and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from tianti.model.cache import KeyValueCache
from tianti.model.config import TransformerConfig
from tianti.model.products import Linear
from tianti.model.rotary import rotate

# Tokens in a block of FlexAttention, its default.
BLOCK = 128


@dataclass(frozen=True)
class Columns:
    """Which tokens of a row are computed here, and in which order all of them are looked at.

    Args:
        here: places in the row of the tokens that look, int64.
        all: places of those looked at, all of the row.
    """

    here: Tensor
    all: Tensor


def document_mask(segments_BT: Tensor, columns: Columns | None = None) -> Tensor:
    """Gives which token may look at which: earlier ones of its own document.

    Args:
        segments_BT: number of the document each token belongs to.
        columns: the tokens that look and those looked at; all, in order, when not given.

    Returns:
        Booleans `(batch, 1, tokens that look, tokens looked at)`.
    """
    if columns is None:
        same = segments_BT[:, :, None] == segments_BT[:, None, :]
        return same.tril().unsqueeze(1)
    looking, seen = segments_BT[:, columns.here], segments_BT[:, columns.all]
    not_later = columns.here[:, None] >= columns.all[None, :]
    return ((looking[:, :, None] == seen[:, None, :]) & not_later).unsqueeze(1)


def document_blocks(segments_BT: Tensor, columns: Columns | None = None) -> BlockMask:
    """Gives the same as `document_mask` as blocks, of which empty ones are not computed.

    For compiled steps on a GPU (FlexAttention, Dong et al. 2024, arXiv:2412.05496). Which blocks
    are empty or full is told from the first and last document and place of each, so no table of
    all pairs is ever made.
    """
    if columns is None:
        order = torch.arange(segments_BT.shape[1], device=segments_BT.device)
        columns = Columns(order, order)
    here, all_columns = columns.here, columns.all
    looking_BR, seen_BC = segments_BT[:, here], segments_BT[:, all_columns]

    def may_look(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        same = looking_BR[batch, row] == seen_BC[batch, column]
        return (here[row] >= all_columns[column]) & same

    first_Q, last_Q = _block_ends(looking_BR)
    first_K, last_K = _block_ends(seen_BC)
    begin_Q, end_Q = _block_ends(here[None])
    begin_K, end_K = _block_ends(all_columns[None])
    # Rows are blocks that look, columns those looked at.
    shared = (first_Q[:, :, None] <= last_K[:, None, :]) & (last_Q[:, :, None] >= first_K[:, None])
    one_Q, one_K = first_Q == last_Q, first_K == last_K
    alike = (first_Q[:, :, None] == first_K[:, None]) & one_Q[:, :, None] & one_K[:, None]
    full = alike & (begin_Q[:, :, None] >= end_K[:, None])
    if len(here) % BLOCK:
        # What is behind the end is looked at by none.
        full[:, -1] = False
    if len(all_columns) % BLOCK:
        full[:, :, -1] = False
    part = shared & (end_Q[:, :, None] >= begin_K[:, None]) & ~full
    return BlockMask.from_kv_blocks(
        *_counted(part),
        *_counted(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=may_look,
        seq_lengths=(len(here), len(all_columns)),
    )


def _block_ends(values_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the least and the greatest value of each block, `(batch, blocks)`."""
    time = values_BT.shape[1]
    padded = F.pad(values_BT[:, None].float(), (0, -time % BLOCK), "replicate").squeeze(1)
    blocks = padded.unflatten(1, (-1, BLOCK))
    return blocks.amin(2), blocks.amax(2)


def _counted(blocks_BQK: Tensor) -> tuple[Tensor, Tensor]:
    """Gives for each row how many columns are set, and all columns, those that are set first."""
    counts = blocks_BQK.sum(2, dtype=torch.int32)
    order = blocks_BQK.int().argsort(dim=2, descending=True, stable=True).int()
    return counts.unsqueeze(1), order.unsqueeze(1)


class Attention(nn.Module):
    """Self-attention of one layer; queries, keys and values come from one fused product.

    Attributes:
        gather: puts keys or values of all who share a row together, `(batch, heads, time, width)`
            in and out; None where all of a row is here.
    """

    gather: Callable[[Tensor], Tensor] | None = None

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.qkv = Linear(config.width, config.attention_width + 2 * config.kv_width)
        self.out = Linear(config.attention_width, config.width)
        self.query_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.key_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)

    def forward(
        self,
        x_BTW: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None,
        cache: KeyValueCache | None,
        layer: int,
    ) -> Tensor:
        """Gives what each token gathers from the tokens it may look at.

        Args:
            x_BTW: normalised residual stream `(batch, time, width)`.
            rotary: cosines and sines of the tokens' positions, `(time, head_dim)` or
                `(batch, 1, time, head_dim)` each.
            mask: from `document_mask` or `document_blocks`, booleans over cached and new tokens, or
                None for plain causal attention.
            cache: earlier keys and values, which this call extends, or None.
            layer: index of this layer in the cache.

        Returns:
            `(batch, time, width)`.
        """
        config = self.config
        batch, time, _ = x_BTW.shape
        query, key, value = (
            part.view(batch, time, -1, config.head_dim).transpose(1, 2)
            for part in self.qkv(x_BTW).split(
                [config.attention_width, config.kv_width, config.kv_width], dim=-1
            )
        )
        query = rotate(self.query_norm(query), *rotary)
        key = rotate(self.key_norm(key), *rotary)
        if self.gather is not None:
            key, value = self.gather(key), self.gather(value)
        if isinstance(mask, BlockMask):
            return self._out(_blockwise(query, key, value, mask), batch, time)
        causal = mask is None
        if cache is not None:
            earlier = cache.length
            key, value = cache.append(layer, key, value)
            if time == 1:
                causal = False
            elif earlier and causal:
                causal, mask = False, _causal_after(earlier, time, x_BTW.device)
        gathered = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal,
            enable_gqa=config.num_heads != config.num_kv_heads,
        )
        return self._out(gathered, batch, time)

    def _out(self, gathered_BHTD: Tensor, batch: int, time: int) -> Tensor:
        return self.out(gathered_BHTD.transpose(1, 2).reshape(batch, time, -1))


def _blockwise(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    # The rotation leaves queries and keys in float32 where products are in bfloat16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    gathered = flex_attention(query, key, value, block_mask=mask, enable_gqa=grouped)
    assert isinstance(gathered, Tensor)
    return gathered


def _causal_after(earlier: int, time: int, device: torch.device) -> Tensor:
    """Gives the causal mask of `time` new tokens behind `earlier` cached ones."""
    mask = torch.ones(time, earlier + time, dtype=torch.bool, device=device)
    return mask.tril(diagonal=earlier)
