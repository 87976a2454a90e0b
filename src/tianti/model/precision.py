"""The precision that matrix products have here."""

from __future__ import annotations

import torch
from torch import Tensor


def in_product_precision(tensor: Tensor) -> Tensor:
    """Gives a tensor in the precision autocast gives products; itself where that is off."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor
