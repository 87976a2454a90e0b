"""Log-probabilities of tokens by chunks, for objectives that need those of whole answers.

Unlike `linear_cross_entropy` the gradient by each token's value is known only after all of them,
so chunks of scores are computed once more on the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tianti.model.precision import in_product_precision
from tianti.model.products import matmul_transposed, transposed_matmul
from tianti.model.softcap import soft_capped, through_soft_cap
from tianti.objective.linear_cross_entropy import IGNORED, chunk_rows


def token_log_probs(
    hidden_BTW: Tensor, weight_VW: Tensor, labels_BT: Tensor, softcap: float = 0.0
) -> Tensor:
    """Gives the log-probability of each label, `(batch, time)`, float32; 0 where there is none.

    Args:
        hidden_BTW: final stream.
        weight_VW: output layer, `(vocabulary, width)`.
        labels_BT: int64; `IGNORED` is none.
        softcap: scores stay within it by a tanh; 0 for none.
    """
    labels_N = labels_BT.flatten()
    places = (labels_N != IGNORED).nonzero().squeeze(1)
    # Prompts, which are often most of a row, cost no product.
    found = _TokenLogProbs.apply(
        hidden_BTW.flatten(0, 1)[places], weight_VW, labels_N[places], softcap
    )
    return found.new_zeros(len(labels_N)).index_copy(0, places, found).view_as(labels_BT)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NW: Tensor, weight_VW: Tensor, labels_N: Tensor, softcap: float
    ) -> Tensor:
        hidden, weight = in_product_precision(hidden_NW), in_product_precision(weight_VW)
        full = torch.promote_types(weight_VW.dtype, torch.float32)
        found = hidden.new_empty(len(hidden), dtype=full)
        log_sums = torch.empty_like(found)
        rows = chunk_rows(len(hidden), weight, len(weight))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            scores = _scores(hidden[part], weight, softcap, full)
            log_sums[part] = scores.logsumexp(dim=1)
            found[part] = scores.gather(1, labels_N[part, None]).squeeze(1) - log_sums[part]
        ctx.save_for_backward(hidden, weight, labels_N, log_sums)
        ctx.softcap, ctx.full = softcap, full
        return found

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, labels_N, log_sums = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=ctx.full) if wants_weight else None
        rows = chunk_rows(len(hidden), weight, len(weight))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            scores = _scores(hidden[part], weight, ctx.softcap, ctx.full)
            # (onehot - softmax) · gradient
            slope = (scores - log_sums[part, None]).exp().neg_()
            slope.scatter_add_(1, labels_N[part, None], torch.ones_like(slope[:, :1]))
            slope *= grad_N[part, None]
            slope = through_soft_cap(slope, scores, ctx.softcap).to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = matmul_transposed(slope, weight.t())
            if grad_weight is not None:
                grad_weight += transposed_matmul(slope, hidden[part])
        return grad_hidden, grad_weight, None, None


def _scores(hidden_NW: Tensor, weight_VW: Tensor, softcap: float, full: torch.dtype) -> Tensor:
    return soft_capped(matmul_transposed(hidden_NW, weight_VW).to(full), softcap)
