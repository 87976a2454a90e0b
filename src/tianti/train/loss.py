"""The loss that training descends, with its settings and the precision of its products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tianti.device import autocast
from tianti.model.transformer import Transformer
from tianti.objective.causal import CausalLoss, Rows, causal_loss, loss_of_stream
from tianti.objective.linear_cross_entropy import IGNORED, VocabularyShare, chunk_loss
from tianti.train.config import TrainSettings
from tianti.train.objective import Steering


class TrainLoss:
    """Gives the loss of some rows of tokens; see `tianti.train.objective.Objective`.

    Args:
        model: the network.
        settings: of training.
        share: which rows of the output layer are here; all when not given.
        token_bytes: UTF-8 bytes each id stands for; 1 each when not given.
    """

    steering = Steering("bits_per_byte", "val BPB")

    def __init__(
        self,
        model: Transformer,
        settings: TrainSettings,
        share: VocabularyShare | None = None,
        token_bytes: np.ndarray | None = None,
    ):
        self.model, self._precision, self._bytes = model, settings.precision, token_bytes
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

    def tally(self, found: CausalLoss, rows: Rows) -> Tensor:
        """Gives nats and bytes of the labels."""
        labels = rows.labels_BT.cpu().numpy()
        labels = labels[labels != IGNORED]
        count = len(labels) if self._bytes is None else self._bytes[labels].sum()
        return torch.tensor([found.nats.item(), count], dtype=torch.float64)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives bits per byte."""
        nats, count = sums.tolist()
        return {"bits_per_byte": nats / math.log(2) / max(count, 1)}

    def of_stream(self, hidden_BTW: Tensor, weight_VW: Tensor, labels_BT: Tensor) -> CausalLoss:
        """Gives the summed loss from the network's final stream; see `loss_of_stream`."""
        with autocast(hidden_BTW.device, self._precision):
            softcap = self.model.config.logit_softcap
            return loss_of_stream(hidden_BTW, weight_VW, labels_BT, softcap=softcap, **self.options)

    def autocast(self) -> Any:
        """Gives the context in which the network is computed."""
        return autocast(self.model.device, self._precision)
