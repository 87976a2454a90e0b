"""The SwiGLU feed-forward layer (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tianti.model.products import Linear


class FeedForward(nn.Module):
    """`down(silu(gate(x)) * up(x))`, gate and up from one fused product.

    Args:
        width: of the residual stream.
        inner: width of the gate.
    """

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_up = Linear(width, 2 * inner)
        self.down = Linear(inner, width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Gives `(batch, time, width)` from `(batch, time, width)`."""
        gate, up = self.gate_up(x_BTW).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
