"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(head_dim: int, context: int, theta: float) -> tuple[Tensor, Tensor]:
    """Gives cosines and sines of every position, `(context, head_dim)` each, float32.

    The second half repeats the first: dimension `i` turns together with `i + head_dim / 2`.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    angles = torch.outer(torch.arange(context).float(), 1.0 / theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHTD: Tensor, cosine_TD: Tensor, sine_TD: Tensor) -> Tensor:
    """Turns each pair of dimensions of `x` by the angle of its position.

    Args:
        x_BHTD: queries or keys.
        cosine_TD: from `rotary_table` at the positions, the same for all rows or
            `(batch, 1, time, head_dim)`.
        sine_TD: the same of the sines.
    """
    first, second = x_BHTD.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x_BHTD * cosine_TD + turned * sine_TD
