"""The objective of preferences: which of two answers is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tianti.device import autocast
from tianti.model.transformer import Transformer
from tianti.objective.causal import Rows
from tianti.objective.linear_cross_entropy import IGNORED
from tianti.objective.log_probs import token_log_probs
from tianti.objective.preference import (
    Answers,
    Preference,
    dpo_loss,
    ipo_loss,
    kto_divergence,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from tianti.train.config import TrainSettings
from tianti.tune.config import TuneConfig
from tianti.tune.steering import steering_of


@dataclass(frozen=True)
class Preferred:
    """What is found of some pairs.

    Args:
        total: what is descended.
        nats: the same without gradient.
        preference: the objective's view of them.
    """

    total: Tensor
    nats: Tensor
    preference: Preference


class PreferenceObjective:
    """Which of two answers is better; see `tianti.train.objective.Objective`.

    Rows hold the pairs of answers one behind the other; their targets are the log-probabilities of
    both by the network that training began with. Of KTO each pair is one answer and one to another
    prompt, and the last target tells whether the first is good.

    Args:
        model: the network.
        settings: of training.
        tune: which objective.
    """

    def __init__(self, model: Transformer, settings: TrainSettings, tune: TuneConfig):
        self.model, self._precision = model, settings.precision
        self._kind = tune.preference
        self._beta = tune.beta or (2.0 if tune.preference == "simpo" else 0.1)
        self._smoothing = settings.label_smoothing
        self.steering = steering_of(tune)

    @property
    def needs_reference(self) -> bool:
        """Tells whether log-probabilities before training are wanted."""
        return self._kind in ("dpo", "ipo", "kto")

    def answers(self, rows: Rows) -> tuple[Answers, Tensor]:
        """Gives all answers in the rows, better and worse in turn, and the numbers of the pairs."""
        assert rows.units_BT is not None
        assert rows.segments_BT is not None
        with autocast(rows.ids_BT.device, self._precision):
            hidden_BTW = self.model(rows.ids_BT, segments_BT=rows.segments_BT)
            log_probs_BT = token_log_probs(
                hidden_BTW,
                self.model.output_weight,
                rows.labels_BT,
                self.model.config.logit_softcap,
            )
        there = rows.labels_BT.flatten() != IGNORED
        of = (2 * rows.units_BT + rows.segments_BT % 2).flatten()[there]
        pairs = rows.units_BT.flatten()[there].unique()
        count = 2 * (int(pairs.max()) + 1) if len(pairs) else 0
        sums = log_probs_BT.new_zeros(count).index_add(0, of, log_probs_BT.flatten()[there])
        tokens = torch.bincount(of, minlength=count)
        both = (2 * pairs[:, None] + torch.arange(2, device=pairs.device)).flatten()
        return Answers(sums[both], tokens[both]), pairs

    def __call__(self, rows: Rows) -> Preferred:
        """Gives the summed loss of some rows."""
        answers, pairs = self.answers(rows)
        chosen, rejected = (
            Answers(answers.log_probs[n::2], answers.tokens[n::2]) for n in range(2)
        )
        found = self._loss(chosen, rejected, rows, pairs)
        total = found.total
        if self._kind == "orpo":
            total = total - chosen.mean_log_probs.sum()
        return Preferred(total, total.detach(), found)

    def _loss(self, chosen: Answers, rejected: Answers, rows: Rows, pairs: Tensor) -> Preference:
        if self._kind == "simpo":
            return simpo_loss(chosen, rejected, beta=self._beta)
        if self._kind == "orpo":
            return orpo_loss(chosen, rejected, beta=self._beta)
        assert rows.targets is not None
        known = rows.targets[pairs].to(chosen.log_probs.dtype)
        if self._kind == "kto":
            theirs = [Answers(known[:, n], chosen.tokens) for n in range(2)]
            away = kto_divergence(rejected, theirs[1])
            return kto_loss(chosen, theirs[0], known[:, 2] > 0, away, beta=self._beta)
        before = (Answers(known[:, 0], chosen.tokens), Answers(known[:, 1], rejected.tokens))
        if self._kind == "ipo":
            return ipo_loss(chosen, rejected, *before, beta=self._beta)
        return dpo_loss(chosen, rejected, *before, beta=self._beta, label_smoothing=self._smoothing)

    def tally(self, found: Preferred, rows: Rows) -> Tensor:
        """Gives the loss, the pairs, those in order, and by how much rewards differ."""
        preference = found.preference
        if self._kind == "kto":
            return self._tally_of_single(found)
        better, worse = preference.rewards_chosen, preference.rewards_rejected
        margin = (better - worse).sum().item()
        numbers = [found.nats.item(), len(better), preference.right.item(), margin]
        return torch.tensor(numbers, dtype=torch.float64)

    @staticmethod
    def _tally_of_single(found: Preferred) -> Tensor:
        """Gives the loss, and count and sum of rewards of good answers and of bad ones."""
        rewards = (found.preference.rewards_chosen, found.preference.rewards_rejected)
        numbers = [x for part in rewards for x in (float(len(part)), part.sum().item())]
        return torch.tensor([found.nats.item(), *numbers], dtype=torch.float64)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives loss, the share of pairs in order, and the mean margin of rewards."""
        if self._kind == "kto":
            nats, good, of_good, bad, of_bad = sums.tolist()
            margin = of_good / max(good, 1) - of_bad / max(bad, 1)
            return {"loss": nats / max(good + bad, 1), "margin": margin}
        nats, pairs, right, margin = sums.tolist()
        count = max(pairs, 1)
        return {"loss": nats / count, "accuracy": right / count, "margin": margin / count}


@dataclass(frozen=True)
class Rated:
    """What is found of some pairs.

    Args:
        total: what is descended.
        nats: the same without gradient.
        margins: by how much the better answers are rated higher, `(pairs,)`.
    """

    total: Tensor
    nats: Tensor
    margins: Tensor


class RewardObjective:
    """A number for each answer, higher for the better of two (Bradley & Terry 1952).

    See `tianti.train.objective.Objective`.

    Args:
        model: the network, with one score.
        settings: of training.
        tune: which figure steers.
    """

    def __init__(self, model: Transformer, settings: TrainSettings, tune: TuneConfig):
        self.model, self._precision = model, settings.precision
        self.steering = steering_of(tune)

    def __call__(self, rows: Rows) -> Rated:
        """Gives the summed loss of some rows."""
        with autocast(rows.ids_BT.device, self._precision):
            hidden_BTW = self.model(rows.ids_BT, segments_BT=rows.segments_BT)
            states_NW = ends_in_pairs(hidden_BTW, rows)
            scores_N = self.model.logits(states_NW)[:, 0]
        margins = scores_N[0::2] - scores_N[1::2]
        total = -F.logsigmoid(margins).sum()
        return Rated(total, total.detach(), margins.detach())

    def tally(self, found: Rated, rows: Rows) -> Tensor:
        """Gives the loss, the pairs, those in order, and by how much scores differ."""
        margins = found.margins
        right, apart = (margins > 0).sum().item(), margins.sum().item()
        numbers = [found.nats.item(), len(margins), right, apart]
        return torch.tensor(numbers, dtype=torch.float64)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives loss, the share of pairs in order, and the mean margin."""
        nats, pairs, right, margin = sums.tolist()
        count = max(pairs, 1)
        return {"loss": nats / count, "accuracy": right / count, "margin": margin / count}


def ends_in_pairs(hidden_BTW: Tensor, rows: Rows) -> Tensor:
    """Gives the states that are supervised, both of a pair one behind the other as they stand in
    rows, `(2 pairs, width)`."""
    return hidden_BTW.flatten(0, 1)[rows.labels_BT.flatten() != IGNORED]
