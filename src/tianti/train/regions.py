"""Compiling a step in regions: one layer, which serves for all of them, and the loss.

The whole step as one graph gives kernels that are no faster and takes as many times as long to
compile as there are layers (docs/experiments.md).
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from tianti.model.transformer import Transformer
from tianti.objective.linear_cross_entropy import chunk_loss


def compile_regions(model: Transformer, loss: Any) -> Any:
    """Has the layers of a network compiled when they are first called.

    Args:
        model: the network; its weights and their names stay as they are.
        loss: `causal_loss`, its settings given.

    Returns:
        The loss with each chunk of its output layer compiled too.
    """
    for layer in model.layers:
        layer.compile()
    return functools.partial(loss, chunk=torch.compile(chunk_loss))
