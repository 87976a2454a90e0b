"""Next-token prediction: the objective of pretraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tianti.model.attention import Columns
from tianti.model.transformer import Transformer
from tianti.objective.linear_cross_entropy import (
    IGNORED,
    Chunk,
    VocabularyShare,
    linear_cross_entropy,
)


@dataclass(frozen=True)
class Rows:
    """Rows of tokens that are computed at once.

    Args:
        ids_BT: input tokens, int64.
        labels_BT: the token after each input, int64; `IGNORED` is not supervised.
        segments_BT: document number of each token of the row; None where it is one document.
        columns: the tokens of the row that `ids_BT` has, where others have the rest.
        units_BT: number in `targets` of the example that each token belongs to.
        targets: what is wanted of examples, a row each, where labels do not say it.
    """

    ids_BT: Tensor
    labels_BT: Tensor
    segments_BT: Tensor | None
    columns: Columns | None = None
    units_BT: Tensor | None = None
    targets: Tensor | None = None


@dataclass(frozen=True)
class CausalLoss:
    """The loss of a batch as a sum, so that any split of the batch adds up to the same.

    Args:
        total: what is descended, a scalar tensor: `nats` and what regularises it.
        nats: summed cross-entropy over supervised tokens, a scalar tensor without gradient.
        tokens: number of supervised tokens, a scalar tensor.
    """

    total: Tensor
    nats: Tensor
    tokens: Tensor


def causal_loss(
    model: Transformer,
    ids_BT: Tensor,
    labels_BT: Tensor,
    segments_BT: Tensor | None,
    *,
    columns: Columns | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: Callable[..., Chunk] | None = None,
    share: VocabularyShare | None = None,
) -> CausalLoss:
    """Gives the summed loss of predicting `labels` from `ids`.

    Args:
        model: the network.
        ids_BT: input tokens, int64.
        labels_BT: the token after each input, int64; `IGNORED` is not supervised.
        segments_BT: document number of each token of the row; None where it is one document.
        columns: the tokens of the row that `ids_BT` has, where others have the rest.
        label_smoothing: see `linear_cross_entropy`.
        z_loss: see `linear_cross_entropy`.
        chunk: see `linear_cross_entropy`.
        share: see `linear_cross_entropy`.
    """
    hidden_BTW = model(ids_BT, segments_BT=segments_BT, columns=columns)
    return loss_of_stream(
        hidden_BTW,
        model.output_weight,
        labels_BT,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=model.config.logit_softcap,
        chunk=chunk,
        share=share,
    )


def loss_of_stream(
    hidden_BTW: Tensor, weight_VW: Tensor, labels_BT: Tensor, **options: Any
) -> CausalLoss:
    """Gives the summed loss of a network's final stream.

    Args:
        hidden_BTW: the stream.
        weight_VW: output layer.
        labels_BT: see `causal_loss`.
        options: see `linear_cross_entropy`.
    """
    total, nats = linear_cross_entropy(
        hidden_BTW.flatten(0, 1),
        weight_VW,
        labels_BT.flatten(),
        **options,
    )
    return CausalLoss(total=total, nats=nats, tokens=(labels_BT != IGNORED).sum())
