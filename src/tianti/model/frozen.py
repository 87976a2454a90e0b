"""Products whose weights are frozen and held in few bits.

Adapters beside them learn as beside any others (QLoRA, Dettmers et al. 2023, arXiv:2305.14314): the
weight is made whole again for each product, forwards and backwards, and kept for neither.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tianti.model.products import Linear, linear
from tianti.model.transformer import Transformer

Kind = Literal["int8", "nf4"]
BLOCK = 64
# Quantiles of a normal distribution, scaled to reach from -1 to 1, with 0 among them (appendix E).
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_LEVELS = torch.tensor(NF4)
_BETWEEN = (_LEVELS[1:] + _LEVELS[:-1]) / 2
# What the two halves of each byte stand for.
_PAIRS = torch.stack([_LEVELS.repeat_interleave(16), _LEVELS.repeat(16)], dim=1)


def quantized(weight_NK: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """Gives a weight in few bits: codes, and what they are multiplied by.

    Args:
        weight_NK: of a product.
        kind: `int8`, rounded to 255 steps of each row; `nf4`, to the 16 levels of `NF4` of each 64
            weights in a row, two to a byte.
    """
    weight = weight_NK.detach().float()
    if kind == "int8":
        scales = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)
        return (weight / scales).round().to(torch.int8), scales
    blocks = nn.functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    codes = torch.bucketize(blocks / scales, _BETWEEN.to(weight.device)).to(torch.uint8)
    return (codes[:, 0::2] << 4) | codes[:, 1::2], scales


def restored(codes: Tensor, scales: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Gives the weight that `quantized` was given, as near as its bits allow."""
    if codes.dtype == torch.int8:
        return (codes * scales).to(dtype)
    pairs = nn.functional.embedding(codes.int(), _PAIRS.to(codes.device))
    whole = (pairs.view(-1, BLOCK) * scales).view(-1)
    return whole[: shape.numel()].view(shape).to(dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.shape = shape
        return linear(x, restored(codes, scales, shape, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        codes, scales = ctx.saved_tensors
        weight = restored(codes, scales, ctx.shape, gradient.dtype)
        return linear(gradient, weight.t()), None, None, None


class FrozenLinear(Linear):
    """A linear layer whose weight is held in few bits, and is not learnt.

    Args:
        source: what it is made of; its bias and adapter are taken as they are.
        kind: see `quantized`.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, source: Linear, kind: Kind):
        nn.Module.__init__(self)
        self.in_features, self.out_features = source.in_features, source.out_features
        self.shape = source.weight.shape
        codes, scales = quantized(source.weight, kind)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.bias, self.adapter = source.bias, source.adapter

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Gives the weight made whole, of which nothing can be learnt."""
        return restored(self.codes, self.scales, self.shape, torch.float32)

    def product(self, x: Tensor) -> Tensor:
        """Gives the product without bias and adapter."""
        return _Product.apply(x, self.codes, self.scales, self.shape)

    @torch.no_grad()
    def whole(self) -> Linear:
        """Gives the layer with its weight made whole, frozen still."""
        with torch.device("meta"):
            made = Linear(self.in_features, self.out_features)
        made.weight = nn.Parameter(self.weight, requires_grad=False)
        made.bias, made.adapter = self.bias, self.adapter
        return made


def freeze(model: Transformer, kind: Kind) -> None:
    """Holds the weights of products in layers that are not learnt in few bits."""
    for name, parameter in list(model.named_parameters()):
        if not parameter.requires_grad:
            freeze_one(model, name, kind)


def freeze_one(model: Transformer, name: str, kind: Kind) -> None:
    """Holds one parameter in few bits, where it is the weight of a product in layers.

    Args:
        model: the network.
        name: of the parameter.
        kind: see `quantized`.
    """
    product, _, last = name.rpartition(".")
    inside = name.startswith("layers.") and last == "weight" and not product.endswith("router")
    module = model.get_submodule(product) if inside else None
    if isinstance(module, Linear) and not isinstance(module, FrozenLinear):
        _replace(model, product, FrozenLinear(module, kind))


def take_frozen(model: Transformer, other: Transformer) -> set[str]:
    """Gives a network the products that another holds in few bits; gives their weights' names."""
    found = set()
    for name, module in other.named_modules():
        if isinstance(module, FrozenLinear):
            _replace(model, name, module)
            found.add(f"{name}.weight")
    return found


def thaw(model: Transformer) -> None:
    """Makes whole again what `freeze` holds in few bits."""
    for name, module in list(model.named_modules()):
        if isinstance(module, FrozenLinear):
            _replace(model, name, module.whole())


def _replace(model: Transformer, name: str, made: Linear) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, made)
