"""Collectives with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Named otherwise before PyTorch 2.13.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gathered(x: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """Gives the parts of all ranks one after the other; backward, gradients are added up."""
    return _ThereAndBack.apply(x, _gather, _scatter, dimension, group)


def scattered(x: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """Gives this rank's part of the sum over all; backward, the gradients of all parts."""
    return _ThereAndBack.apply(x, _scatter, _gather, dimension, group)


class _ThereAndBack(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, there: Any, back: Any, dimension: int, group: dist.ProcessGroup
    ) -> Tensor:
        ctx.back, ctx.dimension, ctx.group = back, dimension, group
        return there(x, dimension, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.back(gradient, ctx.dimension, ctx.group), *[None] * 4


def _gather(x: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    count = group.size()
    every = x.new_empty(count * x.shape[0], *x.shape[1:])
    _all_gather(every, x.contiguous(), group=group)
    return every if dimension == 0 else torch.cat(every.chunk(count), dim=dimension)


def _scatter(x: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    count = group.size()
    parts = x.contiguous() if dimension == 0 else torch.cat(x.chunk(count, dim=dimension))
    mine = parts.new_empty(parts.shape[0] // count, *parts.shape[1:])
    _reduce_scatter(mine, parts, group=group)
    return mine
