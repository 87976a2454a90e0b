"""Objectives that bring states of texts together which belong together, and others apart.

Both give sums over texts, or pairs. What is contrasted is what stands in one micro-batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_contrast(states_NW: Tensor, labels_N: Tensor, temperature: float = 0.1) -> Tensor:
    """Gives how far texts of one class are from each other against those of others, summed.

    A text that no other shares its class with adds nothing (Khosla et al. 2020, arXiv:2004.11362,
    eq. 2; beside cross-entropy in Gunel et al. 2021, arXiv:2011.01403).

    Args:
        states_NW: of texts.
        labels_N: their classes.
        temperature: what cosines are divided by.
    """
    directions = F.normalize(states_NW.float(), dim=1)
    scores = directions @ directions.T / temperature
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    log_probs = scores.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    same = (labels_N[:, None] == labels_N) & ~itself
    of_same = log_probs.masked_fill(~same, 0.0).sum(dim=1)
    return -(of_same / same.sum(dim=1).clamp(min=1)).sum()


def alignment(
    sources_NW: Tensor, targets_NW: Tensor, temperature: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Gives how hard each of a pair is to find among all, both ways, summed over pairs.

    InfoNCE (van den Oord et al. 2018, arXiv:1807.03748, eq. 4) with the mean of both directions, as
    in CLIP and LaBSE.

    Args:
        sources_NW: states of the texts that pairs have first.
        targets_NW: of those they have second.
        temperature: what cosines are divided by.

    Returns:
        The sum, and how many of each pair are found first, mean of both ways, without gradient.
    """
    if not len(sources_NW):
        return (sources_NW.sum() + targets_NW.sum()).float(), sources_NW.new_zeros(())
    one, other = (F.normalize(states.float(), dim=1) for states in (sources_NW, targets_NW))
    scores = one @ other.T / temperature
    own = torch.arange(len(scores), device=scores.device)
    total = F.cross_entropy(scores, own, reduction="sum")
    total = (total + F.cross_entropy(scores.T, own, reduction="sum")) / 2
    found = sum((way.argmax(dim=1) == own).sum() for way in (scores, scores.T))
    return total, torch.as_tensor(found) / 2
