"""The objective of texts that mean the same: their states are to be alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tianti.device import autocast
from tianti.model.transformer import Transformer
from tianti.objective.causal import Rows
from tianti.objective.contrast import alignment
from tianti.train.config import TrainSettings
from tianti.tune.preferring import ends_in_pairs
from tianti.tune.steering import STEERINGS


@dataclass(frozen=True)
class Aligned:
    """What is found of some pairs.

    Args:
        total: what is descended.
        nats: the same without gradient.
        pairs: how many there are.
        found: how many are found among all, mean of both ways.
    """

    total: Tensor
    nats: Tensor
    pairs: int
    found: Tensor


class AlignObjective:
    """Pairs of texts that mean the same; see `tianti.train.objective.Objective`.

    Args:
        model: the network.
        settings: of training.
    """

    steering = STEERINGS["loss"]

    def __init__(self, model: Transformer, settings: TrainSettings):
        self.model, self._precision = model, settings.precision

    def __call__(self, rows: Rows) -> Aligned:
        """Gives the summed loss of some rows, whose pairs are told apart from each other."""
        with autocast(rows.ids_BT.device, self._precision):
            hidden_BTW = self.model(rows.ids_BT, segments_BT=rows.segments_BT)
            states_NW = ends_in_pairs(hidden_BTW, rows)
        total, found = alignment(states_NW[0::2], states_NW[1::2])
        return Aligned(total, total.detach(), len(states_NW) // 2, found)

    def tally(self, found: Aligned, rows: Rows) -> Tensor:
        """Gives the loss, the pairs, and those that are found."""
        numbers = [found.nats.item(), found.pairs, found.found.item()]
        return torch.tensor(numbers, dtype=torch.float64)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives loss, and the share of pairs that are found among those beside them."""
        nats, pairs, found = sums.tolist()
        return {"loss": nats / max(pairs, 1), "accuracy": found / max(pairs, 1)}
