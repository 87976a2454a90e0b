"""The loss that training descends, with its settings and the precision of its products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tianti.device import autocast
from tianti.model.transformer import Transformer
from tianti.objective.causal import CausalLoss, Rows, causal_loss, loss_of_stream
from tianti.objective.linear_cross_entropy import VocabularyShare, chunk_loss
from tianti.train.config import TrainSettings


class TrainLoss:
    """Gives the loss of some rows of tokens.

    Args:
        model: the network.
        settings: of training.
        share: which rows of the output layer are here; all when not given.
    """

    def __init__(
        self, model: Transformer, settings: TrainSettings, share: VocabularyShare | None = None
    ):
        self.model, self._precision = model, settings.precision
        self.options: dict[str, Any] = {
            "label_smoothing": settings.label_smoothing,
            "z_loss": settings.z_loss,
            "share": share,
        }
        if settings.compile:
            self.options["chunk"] = torch.compile(chunk_loss)

    def __call__(self, rows: Rows) -> CausalLoss:
        """Gives the summed loss of the whole network."""
        with autocast(rows.ids_BT.device, self._precision):
            return causal_loss(
                self.model,
                rows.ids_BT,
                rows.labels_BT,
                rows.segments_BT,
                columns=rows.columns,
                **self.options,
            )

    def of_stream(self, hidden_BTW: Tensor, weight_VW: Tensor, labels_BT: Tensor) -> CausalLoss:
        """Gives the summed loss from the network's final stream; see `loss_of_stream`."""
        with autocast(hidden_BTW.device, self._precision):
            softcap = self.model.config.logit_softcap
            return loss_of_stream(hidden_BTW, weight_VW, labels_BT, softcap=softcap, **self.options)

    def autocast(self) -> Any:
        """Gives the context in which the network is computed."""
        return autocast(self.model.device, self._precision)
