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
        shape = model.config
        # Of a network that is cut into stages each rank has the experts of some layers alone.
        self._mixtures = {
            int(name.split(".")[1]) - shape.dense_layers: experts
            for name, experts in model.mixtures().items()
        }
        self._weight, self._rate, self._ranks = settings.balance_loss, settings.balance_rate, ranks
        self._shape = shape.sparse_layers, shape.num_experts
        self._device = model.device

    def __bool__(self) -> bool:
        return self._shape[0] > 0

    def before_step(self, tokens: int) -> None:
        """Sets how the balance loss pulls at the scores.

        Args:
            tokens: that the loss of this step is divided by, before gradients are taken.
        """
        for experts in self._mixtures.values():
            experts.pull.copy_(experts.load * (self._weight * len(experts.load) / tokens))

    @torch.no_grad()
    def after_step(self, kept: bool) -> float | None:
        """Takes note of the loads.

        Args:
            kept: the step was done, not skipped.

        Returns:
            The load of the busiest expert of any layer against the average; None without experts.
        """
        if not self:
            return None
        counts = {layer: experts.counts for layer, experts in self._mixtures.items()}
        counts_LE = self._of_all_layers(counts, torch.int64)
        loads_LE = (counts_LE.double() / counts_LE.sum(dim=1, keepdim=True)).float()
        for layer, experts in self._mixtures.items():
            experts.counts.zero_()
            if not kept:
                continue
            load = loads_LE[layer]
            experts.load.copy_(load)
            if experts.bias is not None:
                experts.bias.add_((load.mean() - load).sign(), alpha=self._rate)
        return loads_LE.max().item() * loads_LE.shape[1]

    def loads(self) -> list[list[float]]:
        """Gives for each layer with experts the share of the tokens that each got.

        All ranks call it.
        """
        loads = {layer: experts.load.double() for layer, experts in self._mixtures.items()}
        loads_LE = self._of_all_layers(loads, torch.float64)
        # Several ranks hold the same.
        return [_rounded(load) for load in loads_LE / loads_LE.sum(dim=1, keepdim=True)]

    def _of_all_layers(self, held: dict[int, Tensor], dtype: torch.dtype) -> Tensor:
        """Gives the sum over all ranks of what each has of some layers, `(layers, experts)`."""
        found = torch.zeros(self._shape, dtype=dtype, device=self._device)
        for layer, values in held.items():
            found[layer] = values
        return self._ranks.total_of_all(found)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
