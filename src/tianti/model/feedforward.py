"""The SwiGLU feed-forward layer (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tianti.model.config import TransformerConfig
from tianti.model.products import Linear


class FeedForward(nn.Module):
    """`down(silu(gate(x)) * up(x))`, gate and up from one fused product."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.gate_up = Linear(config.width, 2 * config.mlp_width)
        self.down = Linear(config.mlp_width, config.width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Gives `(batch, time, width)` from `(batch, time, width)`."""
        gate, up = self.gate_up(x_BTW).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
