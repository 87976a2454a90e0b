"""Objectives of preference: which of two answers is better, or whether one is good.

All are functions of the log-probabilities of whole answers, given their prompts, and give sums over
pairs (or answers), so that any split of a batch adds up to the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """What a model makes of some answers.

    Args:
        log_probs: of each answer given its prompt, summed over its tokens, `(answers,)`.
        tokens: of each answer, `(answers,)`.
    """

    log_probs: Tensor
    tokens: Tensor

    @property
    def mean_log_probs(self) -> Tensor:
        """Gives the log-probability of a token of each answer, `(answers,)`."""
        return self.log_probs / self.tokens.clamp(min=1)


@dataclass(frozen=True)
class Preference:
    """What an objective finds of some pairs, or answers.

    Args:
        total: sum to descend.
        rewards_chosen: implicit reward of each better (or good) answer, without gradient.
        rewards_rejected: the same of each worse (or bad) one.
    """

    total: Tensor
    rewards_chosen: Tensor
    rewards_rejected: Tensor

    @property
    def right(self) -> Tensor:
        """Gives the number of pairs whose better answer has the higher reward."""
        return (self.rewards_chosen > self.rewards_rejected).sum()


def answers_of(log_probs_BT: Tensor, labels_BT: Tensor, ignored: int = -100) -> Answers:
    """Gives the answers that stand in rows of their own.

    Args:
        log_probs_BT: of each label.
        labels_BT: those that are no answer are `ignored`.
        ignored: see there.
    """
    counts = labels_BT != ignored
    return Answers((log_probs_BT * counts).sum(dim=1), counts.sum(dim=1))


def _found(total: Tensor, chosen: Tensor, rejected: Tensor) -> Preference:
    return Preference(total, chosen.detach(), rejected.detach())


def dpo_loss(
    chosen: Answers,
    rejected: Answers,
    reference_chosen: Answers,
    reference_rejected: Answers,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Preference:
    """Gives direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

    Args:
        chosen: the better answers.
        rejected: the worse ones, in the same order.
        reference_chosen: the better ones by the model that training began with.
        reference_rejected: the worse ones by it.
        beta: how dear it is to leave that model.
        label_smoothing: share of pairs whose order is taken to be wrong (cDPO, Mitchell 2023).
    """
    better = beta * (chosen.log_probs - reference_chosen.log_probs)
    worse = beta * (rejected.log_probs - reference_rejected.log_probs)
    each = -(1 - label_smoothing) * F.logsigmoid(better - worse)
    if label_smoothing:
        each = each - label_smoothing * F.logsigmoid(worse - better)
    return _found(each.sum(), better, worse)


def ipo_loss(
    chosen: Answers,
    rejected: Answers,
    reference_chosen: Answers,
    reference_rejected: Answers,
    *,
    beta: float = 0.1,
) -> Preference:
    """Gives identity preference optimisation (Azar et al. 2023, arXiv:2310.12036, eq. 17).

    Of mean log-probabilities, as its authors have it, so that lengths do not matter.

    Args:
        chosen: see `dpo_loss`.
        rejected: see there.
        reference_chosen: see there.
        reference_rejected: see there.
        beta: the paper's τ: answers are to be `1 / 2τ` apart.
    """
    better = chosen.mean_log_probs - reference_chosen.mean_log_probs
    worse = rejected.mean_log_probs - reference_rejected.mean_log_probs
    return _found((better - worse - 1 / (2 * beta)).square().sum(), beta * better, beta * worse)


def simpo_loss(
    chosen: Answers, rejected: Answers, *, beta: float = 2.0, margin: float = 1.0
) -> Preference:
    """Gives simple preference optimisation, without reference (Meng et al. 2024, arXiv:2405.14734).

    Args:
        chosen: see `dpo_loss`.
        rejected: see there.
        beta: factor of the mean log-probabilities.
        margin: the paper's γ, by which the better reward is to be higher.
    """
    better, worse = beta * chosen.mean_log_probs, beta * rejected.mean_log_probs
    return _found(-F.logsigmoid(better - worse - margin).sum(), better, worse)


def orpo_loss(chosen: Answers, rejected: Answers, *, beta: float = 0.1) -> Preference:
    """Gives the odds ratio part of ORPO (Hong et al. 2024, arXiv:2403.07691, eq. 7).

    To be added to the cross-entropy of the better answers.

    Args:
        chosen: see `dpo_loss`.
        rejected: see there.
        beta: weight, the paper's λ.
    """
    better, worse = chosen.mean_log_probs, rejected.mean_log_probs
    log_odds = better - worse - (_log_one_less(better) - _log_one_less(worse))
    return _found(-beta * F.logsigmoid(log_odds).sum(), beta * better, beta * worse)


def _log_one_less(log_probs: Tensor) -> Tensor:
    """Gives `log(1 - exp(x))` of `x < 0`, exact near both ends (Mächler 2012)."""
    near = log_probs > -0.6931
    # What is not taken must be finite all the same, or its gradient is none.
    small = torch.where(near, log_probs, -torch.ones_like(log_probs))
    large = torch.where(near, -torch.ones_like(log_probs), log_probs)
    tiny = torch.finfo(log_probs.dtype).tiny
    return torch.where(near, (-torch.expm1(small)).clamp(min=tiny).log(), torch.log1p(-large.exp()))


def kto_loss(
    answers: Answers,
    reference: Answers,
    good: Tensor,
    divergence: Tensor,
    *,
    beta: float = 0.1,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> Preference:
    """Gives Kahneman–Tversky optimisation of single answers (Ethayarajh et al. 2024, 2402.01306).

    Args:
        answers: of the model.
        reference: the same ones by the model that training began with.
        good: whether each is, booleans `(answers,)`.
        divergence: how far the model has gone from the reference, in nats: the mean over answers to
            other prompts of what the log-probabilities differ by, no less than 0; a scalar that is
            not differentiated.
        beta: how dear it is to leave that model.
        good_weight: of good answers.
        bad_weight: of bad ones.
    """
    ratio = answers.log_probs - reference.log_probs
    away = torch.where(good, ratio - divergence, divergence - ratio)
    weight = torch.where(good, good_weight, bad_weight)
    total = (weight * (1 - torch.sigmoid(beta * away))).sum()
    return _found(total, beta * ratio[good], beta * ratio[~good])


def kto_divergence(answers: Answers, reference: Answers) -> Tensor:
    """Gives the divergence for `kto_loss` from answers put to other prompts than their own."""
    apart = answers.log_probs - reference.log_probs
    return (apart.sum() / max(len(apart), 1)).clamp(min=0).detach()
