"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout, and the
ways in which longer texts than the first training saw are given positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tianti.model.config import RopeScaling


def rotary_table(
    width: int,
    context: int,
    theta: float,
    scaling: RopeScaling | None = None,
    *,
    long: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gives cosines and sines of every position, `(context, width)` each, float32.

    The second half repeats the first: dimension `i` turns together with `i + width / 2`.

    Args:
        width: dimensions of a head that turn.
        context: number of positions.
        theta: base.
        scaling: for longer contexts.
        long: those of `longrope` for texts beyond the original context.
    """
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width)
    strength = 1.0
    if scaling is not None:
        frequencies = _scaled(frequencies, width, theta, scaling, long)
        strength = _strength(scaling)
    angles = torch.outer(torch.arange(context).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * strength, angles.sin() * strength


def _scaled(
    frequencies: Tensor, width: int, theta: float, scaling: RopeScaling, long: bool
) -> Tensor:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "longrope":
        factors = torch.tensor(scaling.long_factor if long else scaling.short_factor)
        return frequencies / factors
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling)
    return _yarn(frequencies, width, theta, scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    wavelengths = 2 * math.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = (scaling.original_context / wavelengths - low) / (high - low)
    kept = kept.clamp(0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn(frequencies: Tensor, width: int, theta: float, scaling: RopeScaling) -> Tensor:
    def dimension(rotations: float) -> float:
        turns = scaling.original_context / (rotations * 2 * math.pi)
        return width * math.log(turns) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (torch.arange(width // 2).float() - low) / ((high - low) or 0.001)
    divided = ramp.clamp(0.0, 1.0)
    return frequencies / scaling.factor * divided + frequencies * (1 - divided)


def _strength(scaling: RopeScaling) -> float:
    """Gives what queries and keys are multiplied by."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1 or scaling.kind in ("linear", "llama3"):
        return 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_context))


def rotate(x_BHTD: Tensor, cosine_TD: Tensor, sine_TD: Tensor) -> Tensor:
    """Turns each pair of dimensions of `x` by the angle of its position.

    Args:
        x_BHTD: queries or keys; dimensions beyond the table's stay.
        cosine_TD: from `rotary_table` at the positions, the same for all rows or
            `(batch, 1, time, width)`.
        sine_TD: the same of the sines.
    """
    width = cosine_TD.shape[-1]
    turning = x_BHTD if width == x_BHTD.shape[-1] else x_BHTD[..., :width]
    first, second = turning.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    turned = turning * cosine_TD + turned * sine_TD
    return turned if turning is x_BHTD else torch.cat((turned, x_BHTD[..., width:]), dim=-1)
