"""The feed-forward layer: SwiGLU (Shazeer 2020, arXiv:2002.05202) and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from tianti.model.config import TransformerConfig
from tianti.model.products import Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """`down(act(gate(x)) * up(x))`, gate and up from one fused product; ungated `down(act(up(x)))`.

    Args:
        config: the network's shape.
        inner: width of the gate; `mlp_width` when not given.
    """

    def __init__(self, config: TransformerConfig, inner: int | None = None):
        super().__init__()
        width, inner, bias = config.width, inner or config.mlp_width, config.mlp_bias
        self.activation = ACTIVATIONS[config.activation]
        if config.gated:
            self.gate_up = Linear(width, 2 * inner, bias)
        else:
            self.up = Linear(width, inner, bias)
        self.gated = config.gated
        self.down = Linear(inner, width, bias)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Gives `(batch, time, width)` from `(batch, time, width)`."""
        if not self.gated:
            return self.down(self.activation(self.up(x_BTW)))
        gate, up = self.gate_up(x_BTW).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)
