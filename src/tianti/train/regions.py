"""Compiling a step in regions: one layer, which serves for all of them, and the loss.

The whole step as one graph gives kernels that are no faster and takes as many times as long to
compile as there are layers (docs/experiments.md).
"""

from __future__ import annotations

from tianti.model.transformer import Transformer


def compile_layers(model: Transformer) -> None:
    """Has the layers of a network compiled when they are first called.

    Args:
        model: the network; its weights and their names stay as they are.
    """
    for layer in model.layers:
        layer.compile()
