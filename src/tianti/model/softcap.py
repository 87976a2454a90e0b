"""Scores that a tanh keeps within bounds (Gemma 2, arXiv:2408.00118)."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_capped(scores: Tensor, cap: float) -> Tensor:
    """Gives scores within `-cap` and `cap`; as they are where it is 0."""
    return cap * torch.tanh(scores / cap) if cap else scores


def through_soft_cap(slope: Tensor, capped: Tensor, cap: float) -> Tensor:
    """Gives a gradient by scores from that by what `soft_capped` made of them."""
    return slope * (1 - (capped / cap).square()) if cap else slope
