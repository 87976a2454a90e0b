"""Causal self-attention with grouped key/value heads, over all or a window of the tokens before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from tianti.model.cache import KeyValueCache
from tianti.model.config import TransformerConfig
from tianti.model.norm import make_norm
from tianti.model.products import Linear
from tianti.model.rotary import rotate
from tianti.model.softcap import soft_capped

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


def document_mask(
    segments_BT: Tensor, columns: Columns | None = None, window: int = 0, causal: bool = True
) -> Tensor:
    """Gives which token may look at which: earlier ones of its own document.

    Args:
        segments_BT: number of the document each token belongs to.
        columns: the tokens that look and those looked at; all, in order, when not given.
        window: tokens that each looks back on, itself among them; 0 for all.
        causal: no token looks at later ones; else a window reaches as far in both directions.

    Returns:
        Booleans `(batch, 1, tokens that look, tokens looked at)`.
    """
    if not causal:
        if columns is not None:
            raise ValueError("rows that are shared out are looked at causally alone")
        same = segments_BT[:, :, None] == segments_BT[:, None, :]
        return (same.triu(1 - window).tril(window - 1) if window else same).unsqueeze(1)
    if columns is None:
        same = segments_BT[:, :, None] == segments_BT[:, None, :]
        return (same.tril().triu(1 - window) if window else same.tril()).unsqueeze(1)
    looking, seen = segments_BT[:, columns.here], segments_BT[:, columns.all]
    back = columns.here[:, None] - columns.all[None, :]
    within = (back >= 0) & (back < window) if window else back >= 0
    return ((looking[:, :, None] == seen[:, None, :]) & within).unsqueeze(1)


def causal_mask(earlier: int, time: int, window: int, device: torch.device) -> Tensor:
    """Gives the same of `time` new tokens behind `earlier` cached ones, all of one document.

    Returns:
        Booleans `(time, earlier + time)`.
    """
    mask = torch.ones(time, earlier + time, dtype=torch.bool, device=device)
    mask = mask.tril(diagonal=earlier)
    return mask.triu(earlier + 1 - window) if window else mask


def document_blocks(
    segments_BT: Tensor, columns: Columns | None = None, window: int = 0
) -> BlockMask:
    """Gives the same as `document_mask` as blocks, of which empty ones are not computed.

    For compiled steps on a GPU (FlexAttention, Dong et al. 2024, arXiv:2412.05496). Which blocks
    are empty or full is told from the first and last document and place of each, so no table of
    all pairs is ever made.
    """
    if columns is None:
        order = torch.arange(segments_BT.shape[1], device=segments_BT.device)
        columns = Columns(order, order)
    here, all_columns = columns.here, columns.all
    reach = window or segments_BT.shape[1]
    looking_BR, seen_BC = segments_BT[:, here], segments_BT[:, all_columns]

    def may_look(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        same = looking_BR[batch, row] == seen_BC[batch, column]
        back = here[row] - all_columns[column]
        return (back >= 0) & (back < reach) & same

    first_Q, last_Q = _block_ends(looking_BR)
    first_K, last_K = _block_ends(seen_BC)
    begin_Q, end_Q = _block_ends(here[None])
    begin_K, end_K = _block_ends(all_columns[None])
    # Rows are blocks that look, columns those looked at.
    shared = (first_Q[:, :, None] <= last_K[:, None, :]) & (last_Q[:, :, None] >= first_K[:, None])
    one_Q, one_K = first_Q == last_Q, first_K == last_K
    alike = (first_Q[:, :, None] == first_K[:, None]) & one_Q[:, :, None] & one_K[:, None]
    full = alike & (begin_Q[:, :, None] >= end_K[:, None])
    full &= end_Q[:, :, None] - begin_K[:, None] < reach
    if len(here) % BLOCK:
        # What is behind the end is looked at by none.
        full[:, -1] = False
    if len(all_columns) % BLOCK:
        full[:, :, -1] = False
    part = shared & (end_Q[:, :, None] >= begin_K[:, None]) & ~full
    part &= begin_Q[:, :, None] - end_K[:, None] < reach
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
        heads, keys, width = config.attention_width, config.kv_width, config.width
        self.qkv = Linear(width, heads + 2 * keys, config.attention_bias != "none")
        self.out = Linear(heads, width, config.attention_bias == "all")
        self.query_norm = self.key_norm = None
        if config.query_key_norm != "none":
            each = config.query_key_norm == "head"
            kind, eps = config.norm, config.norm_eps
            self.query_norm = make_norm(kind, config.head_dim if each else heads, eps)
            self.key_norm = make_norm(kind, config.head_dim if each else keys, eps)

    def forward(
        self,
        x_BTW: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | BlockMask | None,
        cache: KeyValueCache | None,
        layer: int,
    ) -> Tensor:
        """Gives what each token gathers from the tokens it may look at.

        Args:
            x_BTW: normalised residual stream `(batch, time, width)`.
            rotary: cosines and sines of the tokens' positions, `(time, width that turns)` or
                `(batch, 1, time, width that turns)` each; None where none turns.
            mask: from `document_mask` or `document_blocks`, booleans over cached and new tokens, or
                None for one token, or plain causal attention with nothing cached.
            cache: earlier keys and values, which this call extends, or None.
            layer: index of this layer in the cache.

        Returns:
            `(batch, time, width)`.
        """
        config = self.config
        batch, time, _ = x_BTW.shape
        widths = [config.attention_width, config.kv_width, config.kv_width]
        query, key, value = self.qkv(x_BTW).split(widths, dim=-1)
        query, key = self._heads(query, self.query_norm), self._heads(key, self.key_norm)
        value = self._heads(value)
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        if self.gather is not None:
            key, value = self.gather(key), self.gather(value)
        options: dict[str, Any] = {"enable_gqa": config.num_heads != config.num_kv_heads}
        if config.attention_scale:
            options["scale"] = config.attention_scale
        if isinstance(mask, BlockMask):
            gathered = _blockwise(query, key, value, mask, config.attention_softcap, options)
            return self._out(gathered, batch, time)
        if cache is not None:
            key, value = cache.append(layer, key, value)
        if config.attention_softcap:
            if mask is None:
                mask = causal_mask(key.shape[2] - time, time, 0, x_BTW.device)
                mask = mask if config.causal else torch.ones_like(mask)
            cap = config.attention_softcap
            return self._out(_capped(query, key, value, mask, cap, options), batch, time)
        # One token looks at all there are.
        causal = config.causal and mask is None and time > 1
        gathered = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, **options
        )
        return self._out(gathered, batch, time)

    def _heads(self, x_BTW: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Gives `(batch, heads, time, head_dim)`, normalised."""
        whole = norm is not None and self.config.query_key_norm == "all"
        if norm is not None and whole:
            x_BTW = norm(x_BTW)
        x_BHTD = x_BTW.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        return x_BHTD if norm is None or whole else norm(x_BHTD)

    def _out(self, gathered_BHTD: Tensor, batch: int, time: int) -> Tensor:
        return self.out(gathered_BHTD.transpose(1, 2).reshape(batch, time, -1))


def _blockwise(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    softcap: float,
    options: dict[str, Any],
) -> Tensor:
    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return soft_capped(score, softcap)

    # The rotation leaves queries and keys in float32 where products are in bfloat16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if softcap:
        options = options | {"score_mod": capped}
    gathered = flex_attention(query, key, value, block_mask=mask, **options)
    assert isinstance(gathered, Tensor)
    return gathered


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    softcap: float,
    options: dict[str, Any],
) -> Tensor:
    """Gives attention whose scores stay within `softcap`, for which PyTorch has no kernel."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scale = options.get("scale", query.shape[-1] ** -0.5)
    scores = soft_capped(query @ key.transpose(2, 3) * scale, softcap)
    scores = scores.masked_fill(~mask, float("-inf"))
    return scores.float().softmax(dim=-1).to(value.dtype) @ value
