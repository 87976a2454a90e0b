"""From scores to the next token."""

from __future__ import annotations

import torch
from torch import Tensor

from tianti.generate.config import SamplingConfig


def penalize_repetition(logits_V: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens that are already there less likely (Keskar et al. 2019, arXiv:1909.05858).

    Args:
        logits_V: scores `(vocabulary,)`.
        seen: ids already there, int64.
        penalty: positive scores are divided by it, negative ones multiplied.
    """
    if penalty == 1.0 or not len(seen):
        return logits_V
    scores = logits_V[seen]
    scores = torch.where(scores > 0, scores / penalty, scores * penalty)
    return logits_V.scatter(0, seen, scores)


def keep_top_k(logits_V: Tensor, k: int) -> Tensor:
    """Rules out all but the k likeliest tokens, more where scores tie with the last."""
    if k >= len(logits_V):
        return logits_V
    threshold = logits_V.topk(k).values[-1]
    return logits_V.masked_fill(logits_V < threshold, -torch.inf)


def keep_top_p(logits_V: Tensor, p: float) -> Tensor:
    """Rules out all but the fewest likeliest tokens that hold probability p (nucleus sampling).

    Holtzman et al. 2019, arXiv:1904.09751. The likeliest token always stays.
    """
    ordered, order = logits_V.softmax(0).sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    return logits_V.masked_fill((before >= p).gather(0, order.argsort()), -torch.inf)


def keep_min_p(logits_V: Tensor, share: float) -> Tensor:
    """Rules out tokens less than `share` as likely as the likeliest (Nguyen et al. 2024,
    arXiv:2407.01082).
    """
    chances = logits_V.softmax(0)
    return logits_V.masked_fill(chances < share * chances.max(), -torch.inf)


def next_token(
    logits_V: Tensor, seen: Tensor, config: SamplingConfig, generator: torch.Generator
) -> int:
    """Gives the next token.

    Args:
        logits_V: scores `(vocabulary,)`, float32.
        seen: ids already there, int64.
        config: how to draw.
        generator: where chance comes from.
    """
    logits_V = penalize_repetition(logits_V, seen, config.repetition_penalty)
    if config.temperature == 0:
        return int(logits_V.argmax())
    logits_V = logits_V / config.temperature
    if config.top_k is not None:
        logits_V = keep_top_k(logits_V, config.top_k)
    if config.top_p is not None and config.top_p < 1:
        logits_V = keep_top_p(logits_V, config.top_p)
    if config.min_p:
        logits_V = keep_min_p(logits_V, config.min_p)
    return int(torch.multinomial(logits_V.softmax(0).cpu(), 1, generator=generator))
