"""Output layer and cross-entropy in one, by chunks: no table of all logits ever exists.

The idea of Wijmans et al. 2024 ("Cut your losses in large-vocabulary language models",
arXiv:2411.09009) and of Liger Kernel (arXiv:2410.10989): the gradient of the logits is known as
soon as the logits are, so both products of the backward pass are taken at once and the logits
thrown away. Memory is that of one chunk whatever the vocabulary, and the work is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tianti.model.precision import in_product_precision
from tianti.model.products import matmul_transposed, transposed_matmul
from tianti.model.softcap import soft_capped, through_soft_cap
from tianti.objective.chunks import CHUNK_LOGITS, GPU_CHUNK_LOGITS

IGNORED = -100


class VocabularyShare(Protocol):
    """Which rows of the output layer are here, where several ranks share them.

    Attributes:
        first: number of the first one.
        size: of the whole vocabulary.
        most: rows of the rank that has most of them.
    """

    @property
    def first(self) -> int: ...  # noqa: D102 - see above
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def most(self) -> int: ...  # noqa: D102

    def log_sum(self, here_N: Tensor) -> Tensor:
        """Gives the logarithm of the sum of all ranks' exponentials from that of each."""
        ...

    def sum(self, here_N: Tensor) -> Tensor:
        """Gives the sum over the ranks."""
        ...


class Chunk(NamedTuple):
    """What the loss finds for some tokens; gradients are empty where none are wanted.

    Args:
        total: sum to descend.
        nats: plain cross-entropy, summed.
        grad_hidden: of `total`, like the hidden states.
        grad_weight: of `total`, like the weight, in the precision of products; empty where the
            weight is frozen.
    """

    total: Tensor
    nats: Tensor
    grad_hidden: Tensor
    grad_weight: Tensor


def linear_cross_entropy(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    labels_N: Tensor,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    chunk: Callable[..., Chunk] | None = None,
    share: VocabularyShare | None = None,
) -> tuple[Tensor, Tensor]:
    """Gives the summed cross-entropy of `softmax(hidden @ weight.T)` against labels.

    Args:
        hidden_NW: final stream, `(tokens, width)`.
        weight_VW: output layer, `(vocabulary, width)`.
        labels_N: int64; `IGNORED` is not supervised.
        label_smoothing: share of the target that is spread evenly over the vocabulary (Szegedy et
            al. 2016).
        z_loss: weight of the squared log of the denominator (PaLM, Chowdhery et al. 2022).
        softcap: scores stay within it by a tanh; 0 for none.
        chunk: `chunk_loss` compiled; itself when not given.
        share: which rows of the output layer `weight_VW` has; all when not given. Then every rank
            gives the loss of the whole vocabulary, and of the gradient of `hidden_NW` its part,
            which is for the caller to add up.

    Returns:
        The sum to descend, and the plain cross-entropy in nats, which is not differentiated.
    """
    wanted = torch.is_grad_enabled() and (hidden_NW.requires_grad or weight_VW.requires_grad)
    options = (label_smoothing, z_loss, softcap, wanted, wanted and weight_VW.requires_grad)
    return _LinearCrossEntropy.apply(
        hidden_NW, weight_VW, labels_N, options, chunk or chunk_loss, share
    )


def chunk_loss(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    labels_N: Tensor,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    wanted: bool,
    weight_wanted: bool,
    share: VocabularyShare | None = None,
) -> Chunk:
    """Gives loss and gradients of as many tokens as are computed at once.

    Args:
        hidden_NW: in the precision of products.
        weight_VW: the same.
        labels_N: see `linear_cross_entropy`.
        label_smoothing: see there.
        z_loss: see there.
        softcap: see there.
        wanted: whether gradients are.
        weight_wanted: whether that of the weight is.
        share: see there.
    """
    full = torch.promote_types(weight_VW.dtype, torch.float32)
    logits = soft_capped(matmul_transposed(hidden_NW, weight_VW).to(full), softcap)
    supervised = (labels_N != IGNORED).to(full)
    size = len(weight_VW) if share is None else share.size
    places, has_label = labels_N.clamp(min=0).unsqueeze(1), supervised
    log_sum = logits.logsumexp(dim=1)
    if share is not None:
        log_sum = share.log_sum(log_sum)
        places = places - share.first
        here = ((places >= 0) & (places < len(weight_VW))).squeeze(1)
        has_label = has_label * here
        places = places.clamp(0, len(weight_VW) - 1)
    of_label = logits.gather(1, places).squeeze(1) * has_label
    if share is not None:
        of_label = share.sum(of_label)
    plain = log_sum * supervised - of_label
    each = (1 - label_smoothing) * plain
    if label_smoothing:
        total = logits.sum(dim=1)
        mean = (total if share is None else share.sum(total)) / size
        each = each + label_smoothing * (log_sum - mean) * supervised
    if z_loss:
        each = each + z_loss * log_sum.square() * supervised
    if not wanted:
        return Chunk(each.sum(), plain.sum(), hidden_NW[:0], weight_VW[:0])
    # softmax · (1 + 2 z log_sum) - (1 - s) onehot - s / V
    factor = supervised * (1 + 2 * z_loss * log_sum) if z_loss else supervised
    slope = (logits - log_sum.unsqueeze(1)).exp() * factor.unsqueeze(1)
    if label_smoothing:
        slope = slope - (supervised * (label_smoothing / size)).unsqueeze(1)
    slope = _less_at(slope, places, (1 - label_smoothing) * has_label)
    slope = through_soft_cap(slope, logits, softcap).to(weight_VW.dtype)
    return Chunk(
        each.sum(),
        plain.sum(),
        matmul_transposed(slope, weight_VW.t()),
        transposed_matmul(slope, hidden_NW) if weight_wanted else weight_VW[:0],
    )


def _less_at(table_NV: Tensor, places_N1: Tensor, amounts_N: Tensor) -> Tensor:
    """Gives a table with less at one place of each row."""
    if table_NV.device.type == "cpu":
        return table_NV.scatter_add_(1, places_N1, -amounts_N.unsqueeze(1))
    # Compiled, this joins what comes before and after in one kernel; to scatter is one of its own.
    here = torch.arange(table_NV.shape[1], device=table_NV.device) == places_N1
    return torch.where(here, table_NV - amounts_N.unsqueeze(1), table_NV)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NW: Tensor,
        weight_VW: Tensor,
        labels_N: Tensor,
        options: tuple[float, float, float, bool, bool],
        chunk: Callable[..., Chunk],
        share: VocabularyShare | None,
    ) -> tuple[Tensor, Tensor]:
        *_, wanted, weight_wanted = options
        hidden, weight = in_product_precision(hidden_NW), in_product_precision(weight_VW)
        full = torch.promote_types(weight_VW.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=full)
        nats = hidden.new_zeros((), dtype=full)
        grad_hidden = torch.empty_like(hidden)
        # Beside a frozen weight its gradient would be the largest tensor of all.
        grad_weight = torch.zeros_like(weight if weight_wanted else weight[:0], dtype=full)
        # All ranks that share the vocabulary have the same chunks.
        rows = chunk_rows(len(hidden), weight, len(weight) if share is None else share.most)
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            labels = labels_N[start : start + rows]
            found = chunk(part, weight, labels, *options, share)
            total += found.total
            nats += found.nats
            if wanted:
                grad_hidden[start : start + rows] = found.grad_hidden
            if weight_wanted:
                grad_weight += found.grad_weight
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nats)
        return total, nats

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, grad_nats: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        # In place: a second gradient of the output layer's size would be the peak of a step.
        of_weight = grad_weight.mul_(grad_total) if ctx.needs_input_grad[1] else None
        return grad_hidden * grad_total, of_weight, *[None] * 4


def chunk_rows(tokens: int, weight: Tensor, vocabulary: int) -> int:
    """Gives how many tokens are computed at once; where it can, chunks of one size."""
    if weight.device.type == "cpu":
        most = max(1, CHUNK_LOGITS // vocabulary)
    else:
        # Tiles of a GPU's products are this high.
        most = max(1, GPU_CHUNK_LOGITS // vocabulary // 128) * 128
    if not tokens:
        return most
    chunks = -(-tokens // most)
    even = next((n for n in range(chunks, 2 * chunks) if tokens % n == 0), chunks)
    return max(1, tokens // even) if tokens % even == 0 else most
