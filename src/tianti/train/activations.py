"""Activation checkpointing: what the backward pass needs is computed again rather than kept.

Chen et al. 2016 (arXiv:1604.06174); the selective form keeps products and attention, because these
are dear to compute and the rest is dear to keep (Korthikanti et al. 2022, arXiv:2205.05198).
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from tianti.model.transformer import Transformer

Mode = Literal["off", "selective", "full"]
_aten = torch.ops.aten
_KEPT = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    torch.ops.tianti.linear.default,
    torch.ops.tianti.grouped_linear.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}


def checkpoint_activations(model: Transformer, mode: Mode) -> None:
    """Has each layer forget what its backward pass can compute again.

    Args:
        model: the network; its weights and their names stay as they are.
        mode: `full` keeps the stream between layers alone, `selective` the outputs of products and
            attention too, `off` everything.
    """
    if mode == "off":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    for layer in model.layers:
        layer.forward = functools.partial(_forward, layer.forward, model, options)  # type: ignore[method-assign]


def _forward(inner: Any, model: Transformer, options: dict[str, Any], *arguments: Any) -> Any:
    if not (model.training and torch.is_grad_enabled()):
        return inner(*arguments)
    return checkpoint(inner, *arguments, **options)


def _policy(context: Any, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    kept = operator in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
