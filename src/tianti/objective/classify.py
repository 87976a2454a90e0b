"""Objectives of classification, with what helps where classes are unbalanced.

All give sums over examples, so that any split of a batch adds up to the same; what a sum is divided
by (`weight`) is given beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tianti.objective.linear_cross_entropy import IGNORED


@dataclass(frozen=True)
class ClassLoss:
    """The loss of some examples.

    Args:
        total: sum to descend, a scalar tensor.
        weight: what it is divided by for a mean, a scalar tensor without gradient.
    """

    total: Tensor
    weight: Tensor


def class_weights(
    counts: Sequence[int], kind: Literal["inverse", "effective"], beta: float = 0.999
) -> Tensor:
    """Gives a weight for each class, `(classes,)` float32, of mean 1 over the training examples.

    Args:
        counts: training examples of each class.
        kind: the inverse of the count, or of the effective number of examples, to which each new
            one adds less (Cui et al. 2019, arXiv:1901.05555).
        beta: of the effective number: `1 / (1 - beta)` at most.
    """
    number = torch.tensor(counts, dtype=torch.float64)
    seen = number.clamp(min=1)
    effective = seen if kind == "inverse" else (1 - beta**seen) / (1 - beta)
    weights = 1 / effective
    weights = weights * number.sum() / (weights * number).sum()
    return weights.float()


def log_priors(counts: Sequence[int]) -> Tensor:
    """Gives the logarithm of each class's share of the training examples, `(classes,)` float32.

    A class without any counts as one example.
    """
    number = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return (number / number.sum()).log().float()


def class_loss(
    logits_NC: Tensor,
    labels_N: Tensor,
    *,
    weights_C: Tensor | None = None,
    focus: float = 0.0,
    log_priors_C: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> ClassLoss:
    """Gives the cross-entropy of one class out of several, of texts or of tokens.

    Args:
        logits_NC: scores.
        labels_N: int64; `IGNORED` is not supervised.
        weights_C: of the classes.
        focus: the focal loss's γ: examples that are right already count less (Lin et al. 2017,
            arXiv:1708.02002).
        log_priors_C: added to the scores in training alone, so that what is learnt is as good for
            rare classes as for frequent ones (Menon et al. 2021, arXiv:2007.07314, eq. 10).
        label_smoothing: share of the target spread over the classes.
    """
    scores = logits_NC.float()
    if log_priors_C is not None:
        scores = scores + log_priors_C
    supervised = labels_N != IGNORED
    labels = labels_N.clamp(min=0)
    log_probs = scores.log_softmax(dim=1)
    of_label = log_probs.gather(1, labels[:, None]).squeeze(1)
    each = -(1 - label_smoothing) * of_label
    if label_smoothing:
        each = each - label_smoothing * log_probs.mean(dim=1)
    if focus:
        each = each * (1 - of_label.exp()) ** focus
    weight = supervised.float() if weights_C is None else weights_C[labels] * supervised
    return ClassLoss((each * weight).sum(), weight.sum().detach())


def multi_label_loss(
    logits_NC: Tensor, labels_NC: Tensor, *, positive_weights_C: Tensor | None = None
) -> ClassLoss:
    """Gives the binary cross-entropy of classes of which any number may be right.

    Args:
        logits_NC: scores.
        labels_NC: 1 for those that are, 0 for those that are not; `IGNORED` is not known.
        positive_weights_C: of those that are, for each class.
    """
    known = labels_NC != IGNORED
    each = F.binary_cross_entropy_with_logits(
        logits_NC.float(),
        labels_NC.clamp(min=0).float(),
        pos_weight=positive_weights_C,
        reduction="none",
    )
    return ClassLoss((each * known).sum(), known.sum().float())


def regression_loss(values_N: Tensor, targets_N: Tensor) -> ClassLoss:
    """Gives the squared error.

    Args:
        values_N: foretold.
        targets_N: true ones; not a number is not supervised.
    """
    known = ~targets_N.isnan()
    each = (values_N.float() - targets_N.nan_to_num().float()).square() * known
    return ClassLoss(each.sum(), known.sum().float())


def distance(scores_NC: Tensor, others_NC: Tensor) -> Tensor:
    """Gives how far two sets of scores are apart, the same both ways, summed, a scalar tensor.

    The mean of both Kullback–Leibler divergences: what R-Drop adds for two passes with other
    dropout (Liang et al. 2021, arXiv:2106.14448, eq. 2).
    """
    one, other = (scores.float().log_softmax(dim=1) for scores in (scores_NC, others_NC))
    return ((one.exp() - other.exp()) * (one - other)).sum() / 2
