"""Products of rows that are sorted by group with the matrix of each group.

On a GPU PyTorch's grouped product in bfloat16; on a CPU a loop over groups, each a product of its
own, in one operator, so that compiled steps need not know how many rows each group has. These go
through PyTorch: oneDNN would prepare a kernel for every number of rows (docs/experiments.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from tianti.model.precision import in_product_precision


def grouped_linear(rows_MK: Tensor, weight: Tensor, counts_E: Tensor) -> Tensor:
    """Gives `rows @ matrix.T` with the matrix of each row's group, differentiable.

    Args:
        rows_MK: sorted by group.
        weight: the matrices one below the other, `(groups · N, K)`.
        counts_E: rows of each group, int64.

    Returns:
        `(M, N)`.
    """
    rows_MK, weight = in_product_precision(rows_MK), in_product_precision(weight)
    if rows_MK.device.type == "cuda":
        matrices_EKN = weight.unflatten(0, (len(counts_E), -1)).transpose(1, 2)
        return F.grouped_mm(rows_MK, matrices_EKN, offs=counts_E.cumsum(0).to(torch.int32))
    return _grouped_linear(rows_MK, weight, counts_E)


def _runs(counts_E: Tensor) -> list[tuple[int, slice]]:
    """Gives the groups that have rows, and where these are."""
    runs, start = [], 0
    for group, count in enumerate(counts_E.tolist()):
        if count:
            runs.append((group, slice(start, start + count)))
        start += count
    return runs


@torch.library.custom_op("tianti::grouped_linear", mutates_args=())
def _grouped_linear(rows_MK: Tensor, weight: Tensor, counts_E: Tensor) -> Tensor:
    matrices_ENK = weight.unflatten(0, (len(counts_E), -1))
    found_MN = rows_MK.new_empty(len(rows_MK), matrices_ENK.shape[1])
    for group, run in _runs(counts_E):
        torch.mm(rows_MK[run], matrices_ENK[group].t(), out=found_MN[run])
    return found_MN


@_grouped_linear.register_fake
def _(rows_MK: Tensor, weight: Tensor, counts_E: Tensor) -> Tensor:
    return rows_MK.new_empty(rows_MK.shape[0], weight.shape[0] // counts_E.shape[0])


@torch.library.custom_op("tianti::grouped_row_gradient", mutates_args=())
def _row_gradient(grad_MN: Tensor, weight: Tensor, counts_E: Tensor) -> Tensor:
    matrices_ENK = weight.unflatten(0, (len(counts_E), -1))
    found_MK = grad_MN.new_empty(len(grad_MN), weight.shape[1])
    for group, run in _runs(counts_E):
        torch.mm(grad_MN[run], matrices_ENK[group], out=found_MK[run])
    return found_MK


@_row_gradient.register_fake
def _(grad_MN: Tensor, weight: Tensor, counts_E: Tensor) -> Tensor:
    return grad_MN.new_empty(grad_MN.shape[0], weight.shape[1])


@torch.library.custom_op("tianti::grouped_weight_gradient", mutates_args=())
def _weight_gradient(grad_MN: Tensor, rows_MK: Tensor, counts_E: Tensor) -> Tensor:
    groups, outputs = len(counts_E), grad_MN.shape[1]
    found = rows_MK.new_zeros(groups, outputs, rows_MK.shape[1])
    for group, run in _runs(counts_E):
        torch.mm(grad_MN[run].t(), rows_MK[run], out=found[group])
    return found.flatten(0, 1)


@_weight_gradient.register_fake
def _(grad_MN: Tensor, rows_MK: Tensor, counts_E: Tensor) -> Tensor:
    return rows_MK.new_empty(counts_E.shape[0] * grad_MN.shape[1], rows_MK.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    rows_MK, weight, counts_E = ctx.saved_tensors
    wants_rows, wants_weight, _ = ctx.needs_input_grad
    return (
        _row_gradient(grad_MN, weight, counts_E) if wants_rows else None,
        _weight_gradient(grad_MN, rows_MK, counts_E) if wants_weight else None,
        None,
    )


_grouped_linear.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.tianti.grouped_linear)
def _linear_flops(
    rows: torch.Size, weight: torch.Size, counts: torch.Size, *_: Any, **named: Any
) -> int:
    return 2 * rows[0] * rows[1] * (weight[0] // counts[0])


@register_flop_formula(torch.ops.tianti.grouped_row_gradient)
def _row_gradient_flops(grad: torch.Size, weight: torch.Size, *_: Any, **named: Any) -> int:
    return 2 * grad[0] * grad[1] * weight[1]


@register_flop_formula(torch.ops.tianti.grouped_weight_gradient)
def _weight_gradient_flops(grad: torch.Size, rows: torch.Size, *_: Any, **named: Any) -> int:
    return 2 * grad[0] * grad[1] * rows[1]
