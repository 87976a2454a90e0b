"""Products of hidden layers in 8 bits (Micikevicius et al. 2022, arXiv:2209.05433), by torchao.

Weights stay float32 and keep their names: each product rounds its own inputs, with one scale a
tensor, so checkpoints, averages and exports know nothing of it.
"""

from __future__ import annotations

import torch
from torch import nn

from tianti.errors import UserError, not_installed
from tianti.messages import tr
from tianti.model.transformer import Transformer

# Tensor cores take float8 in sixteens.
_STEP = 16
_FIRST_CAPABILITY = (8, 9)


def use_float8(model: Transformer, device: torch.device, *, emulate: bool = False) -> None:
    """Has the products of all layers, but not the output layer, round their inputs to 8 bits.

    Args:
        model: the network.
        device: it is trained on.
        emulate: compute rounded values in the precision at hand, on any device: for tests.

    Raises:
        UserError: torchao is not installed, or the device has no 8-bit products.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise not_installed("torchao", "float8", "train.float8") from error
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FIRST_CAPABILITY
    if not (able or emulate):
        raise UserError(
            tr("{device} has no products in 8 bits", device=device),
            where="train.float8",
            remedy=tr("Set train.float8=false"),
        )
    convert_to_float8_training(
        model.layers,
        config=Float8LinearConfig(emulate=emulate),
        module_filter_fn=lambda module, name: _fits(module),
    )


def _fits(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Linear)
        and module.in_features % _STEP == 0
        and module.out_features % _STEP == 0
    )
