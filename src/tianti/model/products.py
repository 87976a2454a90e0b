"""Matrix products by the fastest library at hand.

On AMD's processors PyTorch multiplies float32 matrices with MKL, which keeps to AVX2 there, while
oneDNN, which every build for x86 has too, takes AVX-512: large products are then a fifth to a
quarter faster (docs/experiments.md). PyTorch has no switch for it, so large products go through
operators of our own; everywhere else they are PyTorch's.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

# `onednn` or `pytorch`, to try what this module would not choose.
CHOICE = "TIANTI_PRODUCTS"
# Multiplications below which a call by way of Python costs more than it gains.
SMALLEST = 1 << 24
# oneDNN prepares a kernel for every shape: rows of generated text are of too many.
FEWEST_ROWS = 128


def _onednn_is_faster() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    if choice := os.environ.get(CHOICE):
        return choice == "onednn"
    described = Path("/proc/cpuinfo")
    # Not more of it than the first processor's lines, of which there may be hundreds.
    text = platform.processor()
    if described.is_file():
        with described.open(encoding="utf-8", errors="replace") as lines:
            text = lines.read(2048)
    return "AuthenticAMD" in text


ONEDNN = _onednn_is_faster()


def linear(x: Tensor, weight_NK: Tensor) -> Tensor:
    """Gives `x @ weight.T`, differentiable.

    Args:
        x: `(…, K)`.
        weight_NK: as `torch.nn.Linear` has it.
    """
    if not _goes_through_onednn(x, weight_NK):
        return F.linear(x, weight_NK)
    return _onednn_linear(x.flatten(0, -2), weight_NK).unflatten(0, x.shape[:-1])


def matmul_transposed(a_MK: Tensor, b_NK: Tensor) -> Tensor:
    """Gives `a @ b.T` of matrices, differentiable."""
    return _onednn_linear(a_MK, b_NK) if _goes_through_onednn(a_MK, b_NK) else a_MK @ b_NK.t()


def transposed_matmul(a_MN: Tensor, b_MK: Tensor) -> Tensor:
    """Gives `a.T @ b` of matrices, not differentiable where it goes through oneDNN."""
    if _goes_through_onednn(b_MK, a_MN.t()):
        return _onednn_weight_gradient(a_MN, b_MK)
    return a_MN.t() @ b_MK


class Linear(nn.Linear):
    """A linear layer whose product goes the fastest way.

    Attributes:
        adapter: adds to the product, given what it is of, itself, and this layer; see
            `tianti.model.lora`.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__(inputs, outputs, bias=bias)
        self.adapter: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Gives `(…, outputs)` from `(…, inputs)`."""
        found = self.product(x)
        if self.adapter is not None:
            found = self.adapter(x, found, self)
        return found if self.bias is None else found + self.bias.to(found.dtype)

    def product(self, x: Tensor) -> Tensor:
        """Gives the product without bias and adapter."""
        return linear(x, self.weight)


def _goes_through_onednn(x: Tensor, weight_NK: Tensor) -> bool:
    return (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight_NK.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and x.numel() * weight_NK.shape[0] >= SMALLEST
        # A tensor that is laid out over devices has products of its own.
        and type(weight_NK) in (Tensor, nn.Parameter)
    )


@torch.library.custom_op("tianti::linear", mutates_args=())
def _onednn_linear(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_MK, weight_NK, None, "none", [], "")


@_onednn_linear.register_fake
def _(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    return x_MK.new_empty(x_MK.shape[0], weight_NK.shape[0])


@torch.library.custom_op("tianti::weight_gradient", mutates_args=())
def _onednn_weight_gradient(grad_MN: Tensor, x_MK: Tensor) -> Tensor:
    """Gives `grad.T @ x`, for which oneDNN has a kernel of its own."""
    grad, x = grad_MN.contiguous().to_mkldnn(), x_MK.contiguous().to_mkldnn()
    like = x_MK.new_empty(grad_MN.shape[1], x_MK.shape[1])
    found, _ = torch.ops.aten.mkldnn_linear_backward_weights(grad, x, like, False)
    return found.to_dense()


@_onednn_weight_gradient.register_fake
def _(grad_MN: Tensor, x_MK: Tensor) -> Tensor:
    return x_MK.new_empty(grad_MN.shape[1], x_MK.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x_MK, weight_NK = ctx.saved_tensors
    wants_x, wants_weight = ctx.needs_input_grad
    return (
        _onednn_linear(grad_MN, weight_NK.t()) if wants_x else None,
        _onednn_weight_gradient(grad_MN, x_MK) if wants_weight else None,
    )


_onednn_linear.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.tianti.linear)
def _linear_flops(x: torch.Size, weight: torch.Size, *_: Any, **named: Any) -> int:
    return 2 * x[0] * x[1] * weight[0]


@register_flop_formula(torch.ops.tianti.weight_gradient)
def _weight_gradient_flops(grad: torch.Size, x: torch.Size, *_: Any, **named: Any) -> int:
    return 2 * grad[0] * grad[1] * x[1]
