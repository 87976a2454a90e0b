"""Next-token prediction: the objective of pretraining."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from tianti.model.transformer import Transformer

IGNORED = -100


@dataclass(frozen=True)
class CausalLoss:
    """The loss of a batch as a sum, so that any split of the batch adds up to the same.

    Args:
        nats: summed cross-entropy over supervised tokens, a scalar tensor.
        tokens: number of supervised tokens, a scalar tensor.
    """

    nats: Tensor
    tokens: Tensor


def causal_loss(
    model: Transformer, ids_BT: Tensor, labels_BT: Tensor, segments_BT: Tensor | None
) -> CausalLoss:
    """Gives the summed loss of predicting `labels` from `ids`.

    Args:
        model: the network.
        ids_BT: input tokens, int64.
        labels_BT: the token after each input, int64; `IGNORED` is not supervised.
        segments_BT: document number of each input; None where a row is one document.
    """
    hidden_BTW = model(ids_BT, segments_BT=segments_BT)
    logits = model.logits(hidden_BTW.flatten(0, 1))
    nats = F.cross_entropy(logits, labels_BT.flatten(), ignore_index=IGNORED, reduction="sum")
    return CausalLoss(nats=nats, tokens=(labels_BT != IGNORED).sum())
