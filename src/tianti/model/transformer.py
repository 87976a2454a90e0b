"""The decoder-only Transformer: pre-norm layers on one residual stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from tianti.model.attention import Attention, Columns, document_blocks, document_mask
from tianti.model.cache import KeyValueCache
from tianti.model.config import TransformerConfig
from tianti.model.experts import Experts
from tianti.model.feedforward import FeedForward
from tianti.model.precision import in_product_precision
from tianti.model.products import Linear, linear
from tianti.model.rotary import rotary_table


class Layer(nn.Module):
    """Attention and feed-forward, each on the normalised stream and added to it."""

    def __init__(self, config: TransformerConfig, dropout: float = 0.0, sparse: bool = False):
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feedforward_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.feedforward = (
            Experts(config) if sparse else FeedForward(config.width, config.mlp_width)
        )

    def forward(
        self,
        x_BTW: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Gives the residual stream `(batch, time, width)` after this layer."""
        gathered_BTW = self.attention(self.attention_norm(x_BTW), rotary, mask, cache, layer)
        x_BTW = x_BTW + self._dropped(gathered_BTW)
        return x_BTW + self._dropped(self.feedforward(self.feedforward_norm(x_BTW)))

    def _dropped(self, branch_BTW: Tensor) -> Tensor:
        # Without it not even a copy is made.
        return F.dropout(branch_BTW, self.dropout) if self.dropout and self.training else branch_BTW


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

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: TransformerConfig, dropout: float = 0.0):
        super().__init__()
        self.config = config
        self.block_masks = False
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(
            Layer(config, dropout, config.has_experts(index)) for index in range(config.depth)
        )
        self.final_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = None if config.tied_embeddings else Linear(config.width, config.vocab_size)
        cosine, sine = self.rotary_buffers(config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    @staticmethod
    def rotary_buffers(config: TransformerConfig) -> tuple[Tensor, Tensor]:
        """Gives the cosines and sines of every position of the context."""
        return rotary_table(config.head_dim, config.context, config.rope_theta)

    @torch.no_grad()
    def fill_buffers(self) -> None:
        """Fills what is no weight, in a network that was made without memory."""
        for buffer, values in zip(
            (self.cosine, self.sine), self.rotary_buffers(self.config), strict=True
        ):
            buffer.copy_(values)
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
        return self.cosine.device

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
        x_BTW = self.embedding(ids_BT) if embeddings_BTW is None else embeddings_BTW
        # Of the stream each of several devices may have a part.
        given = (segments_BT, ids_BT, embeddings_BTW)
        time = next(tensor.shape[1] for tensor in given if tensor is not None)
        start = cache.length if cache is not None else 0
        end = start + time
        if columns is not None:
            places: Tensor | slice = columns.here
        elif positions_BT is not None:
            # One table for all heads of a row.
            places = positions_BT.unsqueeze(1)
        elif end > self.config.context:
            raise ValueError(f"{end} tokens exceed the context of {self.config.context}")
        else:
            places = slice(start, end)
        rotary = (self.cosine[places].to(x_BTW.dtype), self.sine[places].to(x_BTW.dtype))
        # The stream passes through memory between the layers' kernels: in half of the bytes.
        x_BTW = in_product_precision(x_BTW)
        looks: Tensor | BlockMask | None = mask
        if segments_BT is not None:
            looks = self._mask(segments_BT, columns)
        for index, layer in enumerate(self.layers):
            # Without a cache the layers are called alike, so that compiled they are one kernel.
            place = () if cache is None else (cache, index)
            x_BTW = layer(x_BTW, rotary, looks, *place)
        if cache is not None:
            cache.advance(time)
        return self.final_norm(x_BTW)

    def _mask(self, segments_BT: Tensor, columns: Columns | None) -> Tensor | BlockMask:
        mask = document_blocks if self.block_masks else document_mask
        return mask(segments_BT, columns)

    def logits(self, hidden: Tensor) -> Tensor:
        """Gives float32 scores `(…, vocabulary)` from the final stream `(…, width)`."""
        return linear(hidden, self.output_weight).float()

    @property
    def output_weight(self) -> Tensor:
        """The output layer, `(vocabulary, width)`; tied, it is the embedding."""
        return (self.embedding if self.head is None else self.head).weight
