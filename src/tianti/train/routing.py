"""Has the experts of a mixture be equally busy; see `tianti.model.experts` for the two ways."""

from __future__ import annotations

import torch
from torch import Tensor

from tianti.model.transformer import Transformer
from tianti.train.config import TrainSettings
from tianti.train.ranks import Ranks


class RoutingBalance:
    """Moves what routes tokens, from what the last step's tokens chose.

    Args:
        model: the network; without experts nothing is done.
        settings: weight of the balance loss and rate of the bias.
        ranks: those whose tokens make a step.
    """

    def __init__(self, model: Transformer, settings: TrainSettings, ranks: Ranks):
        self._mixtures = list(model.mixtures().values())
        self._weight, self._rate, self._ranks = settings.balance_loss, settings.balance_rate, ranks

    def __bool__(self) -> bool:
        return bool(self._mixtures)

    def before_step(self, tokens: int) -> None:
        """Sets how the balance loss pulls at the scores.

        Args:
            tokens: that the loss of this step is divided by, before gradients are taken.
        """
        for experts in self._mixtures:
            experts.pull.copy_(experts.load * (self._weight * len(experts.load) / tokens))

    @torch.no_grad()
    def after_step(self, kept: bool) -> float | None:
        """Takes note of the loads.

        Args:
            kept: the step was done, not skipped.

        Returns:
            The load of the busiest expert of any layer against the average; None without experts.
        """
        if not self._mixtures:
            return None
        counts = self._ranks.total(torch.stack([experts.counts for experts in self._mixtures]))
        loads_LE = (counts.double() / counts.sum(dim=1, keepdim=True)).float()
        for experts, load in zip(self._mixtures, loads_LE, strict=True):
            experts.counts.zero_()
            if not kept:
                continue
            experts.load.copy_(load)
            if experts.bias is not None:
                experts.bias.add_((load.mean() - load).sign(), alpha=self._rate)
        return loads_LE.max().item() * loads_LE.shape[1]

    def loads(self) -> list[list[float]]:
        """Gives for each layer with experts the share of the tokens that each got."""
        return [_rounded(experts.load) for experts in self._mixtures]


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
