"""The keys and values of the tokens seen so far, for decoding one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from tianti.model.config import TransformerConfig


class KeyValueCache:
    """Preallocated keys and values of every layer, `(batch, kv_heads, context, head_dim)` each.

    Args:
        config: the shape of the network.
        batch: number of sequences, all of one length.
        capacity: most tokens it can hold; the context when not given.
        device: where the tensors lie.
        dtype: type of keys and values.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int = 1,
        capacity: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.capacity = capacity or config.context
        shape = (config.depth, batch, config.num_kv_heads, self.capacity, config.head_dim)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values of one layer and gives all of them.

        Args:
            layer: index of the layer.
            keys: `(batch, kv_heads, new, head_dim)`.
            values: the same shape.

        Returns:
            Keys and values from the first token on, `(batch, kv_heads, length + new, head_dim)`.
        """
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Says that `tokens` more are stored in every layer."""
        self.length += tokens

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self.length = length

    def keep(self, rows: Tensor) -> None:
        """Forgets all sequences but some.

        Args:
            rows: numbers of those that stay, int64.
        """
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
