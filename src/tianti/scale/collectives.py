"""Collectives with gradients, by the names that this version of PyTorch has for them."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as functional

# Named `…_tensor_autograd` before PyTorch 2.13.
_gather = getattr(functional, "all_gather_single_autograd", None) or (
    functional.all_gather_tensor_autograd
)
_scatter = getattr(functional, "reduce_scatter_single_autograd", None) or (
    functional.reduce_scatter_tensor_autograd
)


def gathered(x: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """Gives the parts of all ranks one after the other; backward, gradients are added up."""
    return _gather(x.contiguous(), dimension, group)


def scattered(x: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """Gives this rank's part of the sum over all; backward, the gradients of all parts."""
    return _scatter(x.contiguous(), "sum", dimension, group)
