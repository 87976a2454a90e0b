"""Output layer and cross-entropy in one, by chunks: no table of all logits ever exists.

The idea of Wijmans et al. 2024 ("Cut your losses in large-vocabulary language models",
arXiv:2411.09009) and of Liger Kernel (arXiv:2410.10989): the gradient of the logits is known as
soon as the logits are, so both products of the backward pass are taken at once and the logits
thrown away. Memory is that of one chunk whatever the vocabulary, and the work is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tianti.objective.chunks import CHUNK_LOGITS, GPU_CHUNK_LOGITS

IGNORED = -100


def linear_cross_entropy(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    labels_N: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Gives the summed cross-entropy of `softmax(hidden @ weight.T)` against labels.

    Args:
        hidden_NW: final stream, `(tokens, width)`.
        weight_VW: output layer, `(vocabulary, width)`.
        labels_N: int64; `IGNORED` is not supervised.
        label_smoothing: share of the target that is spread evenly over the vocabulary (Szegedy et
            al. 2016).
        z_loss: weight of the squared log of the denominator (PaLM, Chowdhery et al. 2022).

    Returns:
        The sum to descend, and the plain cross-entropy in nats, which is not differentiated.
    """
    wanted = torch.is_grad_enabled() and (hidden_NW.requires_grad or weight_VW.requires_grad)
    return _LinearCrossEntropy.apply(
        hidden_NW, weight_VW, labels_N, label_smoothing, z_loss, wanted
    )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NW: Tensor,
        weight_VW: Tensor,
        labels_N: Tensor,
        label_smoothing: float,
        z_loss: float,
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        hidden, weight = _in_precision(hidden_NW), _in_precision(weight_VW)
        full = torch.promote_types(weight_VW.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=full)
        nats = hidden.new_zeros((), dtype=full)
        rows = _chunk_rows(weight)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=full)
        for start in range(0, len(hidden), rows):
            part, labels = hidden[start : start + rows], labels_N[start : start + rows]
            logits = torch.mm(part, weight.t()).to(full)
            supervised = (labels != IGNORED).to(full)
            places = labels.clamp(min=0).unsqueeze(1)
            log_sum = logits.logsumexp(dim=1)
            plain = (log_sum - logits.gather(1, places).squeeze(1)) * supervised
            each = (1 - label_smoothing) * plain
            if label_smoothing:
                each = each + label_smoothing * (log_sum - logits.mean(dim=1)) * supervised
            if z_loss:
                each = each + z_loss * log_sum.square() * supervised
            nats = nats + plain.sum()
            total = total + each.sum()
            if not wanted:
                continue
            # softmax · (1 + 2 z log_sum) - (1 - s) onehot - s / V
            slope = logits.sub_(log_sum.unsqueeze(1)).exp_()
            factor = supervised * (1 + 2 * z_loss * log_sum) if z_loss else supervised
            slope.mul_(factor.unsqueeze(1))
            if label_smoothing:
                slope.sub_((supervised * (label_smoothing / len(weight))).unsqueeze(1))
            slope.scatter_add_(1, places, ((label_smoothing - 1) * supervised).unsqueeze(1))
            slope = slope.to(weight.dtype)
            grad_hidden[start : start + rows] = torch.mm(slope, weight)
            grad_weight += torch.mm(slope.t(), part)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nats)
        return total, nats

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, grad_nats: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_total, grad_weight * grad_total, None, None, None, None


def _chunk_rows(weight: Tensor) -> int:
    if weight.device.type == "cpu":
        return max(1, CHUNK_LOGITS // len(weight))
    # Tiles of a GPU's products are this high.
    return max(1, GPU_CHUNK_LOGITS // len(weight) // 128) * 128


def _in_precision(tensor: Tensor) -> Tensor:
    """Gives a tensor in the precision that products have here."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor
