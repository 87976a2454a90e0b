"""The decoder-only Transformer: pre-norm layers on one residual stream."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from tianti.model.attention import (
    Attention,
    Columns,
    causal_mask,
    document_blocks,
    document_mask,
)
from tianti.model.cache import KeyValueCache
from tianti.model.config import TransformerConfig
from tianti.model.experts import Experts
from tianti.model.feedforward import FeedForward
from tianti.model.norm import make_norm
from tianti.model.precision import in_product_precision
from tianti.model.products import Linear, linear
from tianti.model.rotary import rotary_table
from tianti.model.softcap import soft_capped


class Layer(nn.Module):
    """Attention and feed-forward, each on the normalised stream and added to it."""

    def __init__(self, config: TransformerConfig, index: int, dropout: float = 0.0):
        super().__init__()
        self.dropout, self.has_window = dropout, config.has_window(index)
        before, after = config.norm_place != "after", config.norm_place != "before"
        self.attention_norm = _norm(config) if before else None
        self.attention = Attention(config)
        self.attention_out_norm = _norm(config) if after else None
        self.feedforward_norm = _norm(config) if before else None
        self.feedforward = Experts(config) if config.has_experts(index) else FeedForward(config)
        self.feedforward_out_norm = _norm(config) if after else None

    def forward(
        self,
        x_BTW: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | BlockMask | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Gives the residual stream `(batch, time, width)` after this layer."""
        gathered_BTW = self.attention(
            _normalized(self.attention_norm, x_BTW), rotary, mask, cache, layer
        )
        x_BTW = x_BTW + self._dropped(_normalized(self.attention_out_norm, gathered_BTW))
        found_BTW = self.feedforward(_normalized(self.feedforward_norm, x_BTW))
        return x_BTW + self._dropped(_normalized(self.feedforward_out_norm, found_BTW))

    def _dropped(self, branch_BTW: Tensor) -> Tensor:
        # Without it not even a copy is made.
        return F.dropout(branch_BTW, self.dropout) if self.dropout and self.training else branch_BTW


def _norm(config: TransformerConfig) -> nn.Module:
    return make_norm(config.norm, config.width, config.norm_eps)


def _normalized(norm: nn.Module | None, x_BTW: Tensor) -> Tensor:
    return x_BTW if norm is None else norm(x_BTW)


def places_within(segments_BT: Tensor) -> Tensor:
    """Gives the place of each token in its own text, int64 `(batch, time)`."""
    order = torch.arange(segments_BT.shape[1], device=segments_BT.device).expand_as(segments_BT)
    begins = torch.ones_like(segments_BT, dtype=torch.bool)
    begins[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return order - torch.where(begins, order, 0).cummax(dim=1).values


class Transformer(nn.Module):
    """The one network of tianti; with its defaults, Qwen3.

    Weights are uninitialised memory until `tianti.model.initialization.initialize` or a loader has
    filled them.

    Args:
        config: the shape.
        dropout: share of what each branch adds that training drops (Srivastava et al. 2014);
            no part of the shape, because the trained network knows nothing of it.

    Attributes:
        block_masks: documents in a row are kept apart by `document_blocks`, for compiled steps on a
            GPU, rather than by `document_mask`.
    """

    def __init__(self, config: TransformerConfig, dropout: float = 0.0):
        super().__init__()
        self.config = config
        self.block_masks = False
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.context, config.width) if learned else None
        self.layers = nn.ModuleList(Layer(config, index, dropout) for index in range(config.depth))
        self.final_norm = _norm(config)
        self.head = None if config.tied_embeddings else Linear(config.width, config.vocab_size)
        self.classifier = None
        if config.classes:
            self.classifier = Linear(config.width, config.classes, config.classified == "token")
        # What is learnt besides the output layer; see `tianti.model.lora`.
        self.head_adapter: Any = None
        for name, table in self.rotary_buffers(config).items():
            self.register_buffer(name, table, persistent=False)

    @staticmethod
    def rotary_buffers(config: TransformerConfig) -> dict[str, Tensor]:
        """Gives the cosines and sines of every position of the context.

        Returns:
            `cosine` and `sine`; with `local_` before their names those of layers with a window
            where they have another base, and with `long_` those of texts beyond the original
            context where these are other.
        """
        if config.positions == "learned":
            return {}
        width, context, scaling = config.rotary_width, config.context, config.rope_scaling
        tables = {"": rotary_table(width, context, config.rope_theta, scaling)}
        if config.window and config.local_rope_theta:
            tables["local_"] = rotary_table(width, context, config.local_rope_theta)
        if scaling is not None and scaling.kind == "longrope":
            tables["long_"] = rotary_table(width, context, config.rope_theta, scaling, long=True)
        return {
            f"{kind}{name}": table
            for kind, pair in tables.items()
            for name, table in zip(("cosine", "sine"), pair, strict=True)
        }

    @torch.no_grad()
    def fill_buffers(self) -> None:
        """Fills what is no weight, in a network that was made without memory."""
        for name, values in self.rotary_buffers(self.config).items():
            self.get_buffer(name).copy_(values)
        for experts in self.mixtures().values():
            experts.forget_routing()

    def mixtures(self) -> dict[str, Experts]:
        """Gives the layers' mixtures of experts by name; none where the network is dense."""
        return {
            name: module for name, module in self.named_modules() if isinstance(module, Experts)
        }

    def routing_state(self) -> dict[str, Tensor]:
        """Gives what training moves besides weights, by name: loads of experts, and biases."""
        return {
            f"{name}.{kind}": values
            for name, experts in self.mixtures().items()
            for kind, values in (("load", experts.load), ("bias", experts.bias))
            if values is not None
        }

    @property
    def device(self) -> torch.device:
        """Gives where the weights lie."""
        return next(self.parameters()).device

    def forward(
        self,
        ids_BT: Tensor | None = None,
        *,
        embeddings_BTW: Tensor | None = None,
        segments_BT: Tensor | None = None,
        columns: Columns | None = None,
        positions_BT: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Gives the final normalised stream; `logits` turns it into scores of the vocabulary.

        Args:
            ids_BT: token ids `(batch, time)`, int64; or
            embeddings_BTW: what stands in their place, `(batch, time, width)`.
            segments_BT: document number of each token of the row; None where it is one document.
            columns: the tokens of the row that `ids_BT` has, where others have the rest; needs
                `segments_BT`.
            positions_BT: place of each token in its text, where tokens do not stand in order, as
                those of several texts that share a beginning; needs `mask`.
            mask: which token looks at which, booleans `(batch, 1, time, cached + time)`, in place
                of `segments_BT`.
            cache: keys and values of earlier tokens, extended by this call.

        Returns:
            `(batch, time, width)`.

        Raises:
            ValueError: the sequence is longer than the context.
        """
        x_BTW = self._embedded(ids_BT) if embeddings_BTW is None else embeddings_BTW
        # Of the stream each of several devices may have a part.
        given = (segments_BT, ids_BT, embeddings_BTW)
        time = next(tensor.shape[1] for tensor in given if tensor is not None)
        start = cache.length if cache is not None else 0
        end = start + time
        if columns is not None:
            places: Tensor | slice = columns.here
        elif positions_BT is not None:
            places = positions_BT
        elif end > self.config.context:
            raise ValueError(f"{end} tokens exceed the context of {self.config.context}")
        else:
            places = slice(start, end)
        if self.positions is not None:
            # Of texts that share a row each has places of its own; rotary ones see distances alone.
            learned = places
            if segments_BT is not None and columns is None:
                learned = places_within(segments_BT)
            x_BTW = x_BTW + self.positions.weight[learned]
        # The stream passes through memory between the layers' kernels: in half of the bytes.
        x_BTW = in_product_precision(x_BTW)
        looks = self._looks(mask, segments_BT, columns, start, end)
        turns = self._turns(places, end, x_BTW.dtype)
        for index, layer in enumerate(self.layers):
            # Without a cache the layers are called alike, so that compiled they are one kernel.
            place = () if cache is None else (cache, index)
            windowed = bool(layer.has_window)
            x_BTW = layer(x_BTW, turns[windowed], looks[windowed], *place)
        if cache is not None:
            cache.advance(time)
        return self.final_norm(x_BTW)

    def _embedded(self, ids_BT: Tensor | None) -> Tensor:
        x_BTW, scale = self.embedding(ids_BT), self.config.embedding_scale
        return x_BTW if scale == 1 else x_BTW * scale

    def _looks(
        self,
        mask: Tensor | None,
        segments_BT: Tensor | None,
        columns: Columns | None,
        start: int,
        end: int,
    ) -> dict[bool, Tensor | BlockMask | None]:
        """Gives which token looks at which, in layers without (False) and with a window (True)."""
        window = self.config.window
        if not self.config.causal:
            return self._all_looks(mask, segments_BT, start, end)
        if segments_BT is not None:
            apart = self._mask(segments_BT, columns, 0)
            return {
                False: apart,
                True: self._mask(segments_BT, columns, window) if window else apart,
            }
        beyond = window and end > window
        if beyond and mask is not None:
            raise ValueError(f"{end} tokens exceed the window of {window}, which a mask knows not")
        if mask is None and start and end - start > 1:
            mask = causal_mask(start, end - start, 0, self.device)
        windowed = causal_mask(start, end - start, window, self.device) if beyond else mask
        return {False: mask, True: windowed}

    def _all_looks(
        self, mask: Tensor | None, segments_BT: Tensor | None, start: int, end: int
    ) -> dict[bool, Tensor | BlockMask | None]:
        """Gives the same where tokens look at later ones too."""
        window = self.config.window
        if start:
            raise ValueError("what comes later changes what was kept: no cache")
        if segments_BT is None:
            if not window or end <= window:
                return {False: mask, True: mask}
            if mask is not None:
                raise ValueError(f"{end} tokens exceed the window of {window}")
            segments_BT = torch.zeros(1, end, dtype=torch.long, device=self.device)
        return {
            windowed: document_mask(segments_BT, None, window if windowed else 0, causal=False)
            for windowed in (False, True)
        }

    def _mask(
        self, segments_BT: Tensor, columns: Columns | None, window: int
    ) -> Tensor | BlockMask:
        make = document_blocks if self.block_masks else document_mask
        return make(segments_BT, columns, window)

    def _turns(
        self, places: Tensor | slice, end: int, dtype: torch.dtype
    ) -> dict[bool, tuple[Tensor, Tensor] | None]:
        """Gives cosines and sines for layers without (False) and with a window (True)."""
        if self.config.positions == "learned":
            return {False: None, True: None}

        def table(kind: str) -> tuple[Tensor, Tensor]:
            # One table for all heads of a row, where rows have places of their own.
            found = (self.get_buffer(f"{kind}{name}")[places] for name in ("cosine", "sine"))
            cosine, sine = (part.unsqueeze(1) if part.ndim == 3 else part for part in found)
            return cosine.to(dtype), sine.to(dtype)

        scaling = self.config.rope_scaling
        long = scaling is not None and scaling.kind == "longrope" and end > scaling.original_context
        usual = table("long_" if long else "")
        local = self.config.window and self.config.local_rope_theta
        return {False: usual, True: table("local_") if local else usual}

    def logits(self, hidden: Tensor) -> Tensor:
        """Gives float32 scores `(…, vocabulary or classes)` from the final stream `(…, width)`."""
        if self.classifier is not None:
            return self.classifier(hidden).float()
        scores = linear(hidden, self.output_weight).float()
        return soft_capped(scores, self.config.logit_softcap)

    @property
    def output_weight(self) -> Tensor:
        """The output layer, `(vocabulary, width)`; tied, it is the embedding."""
        weight = (self.embedding if self.head is None else self.head).weight
        return weight if self.head_adapter is None else self.head_adapter.merged(weight)
