"""Norms of the residual stream, and of queries and keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tianti.model.config import NormKind


class RMSNormPlusOne(nn.Module):
    """RMSNorm whose gain is one more than its weight, which starts at zero (Gemma).

    Args:
        width: of what is normalised.
        eps: added to the mean square.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Gives `x`, `(…, width)`, at a root mean square of one times the gain."""
        return F.rms_norm(x, self.weight.shape, 1.0 + self.weight, self.eps)


def make_norm(kind: NormKind, width: int, eps: float) -> nn.Module:
    """Gives a norm.

    Args:
        kind: RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), the same with a gain of one more
            than the weight, or LayerNorm with a bias (Ba et al. 2016, arXiv:1607.06450).
        width: of what is normalised.
        eps: added to the mean square, or variance.
    """
    if kind == "layer":
        return nn.LayerNorm(width, eps=eps)
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else RMSNormPlusOne(width, eps)
