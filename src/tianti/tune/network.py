"""The network that is tuned: its weights from the base, its classifier and adapters new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tianti.exchange.huggingface import load_transformer
from tianti.exchange.peft import adapter_places
from tianti.model.initialization import initialize
from tianti.model.lora import LoraConfig, attach
from tianti.model.transformer import Transformer
from tianti.tune.derive import TuneStageConfig


@dataclass(frozen=True)
class Network:
    """A network with what of it is learnt.

    Args:
        model: it; what is frozen needs no gradient.
        adapted: it has adapters.
    """

    model: Transformer
    adapted: bool

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Fills what is learnt from a checkpoint."""
        here = dict(self.model.named_parameters()) | self.model.routing_state()
        for name, tensor in tensors.items():
            here[name].copy_(tensor)


def build_network(config: TuneStageConfig) -> Network:
    """Gives the network as tuning begins.

    Raises:
        UserError: the base is no model, or a target of adapters is not there.
        Damaged: a file of the base is torn, or does not fit.
    """
    seed = config.settings.seed
    model = Transformer(config.model, dropout=config.settings.dropout)
    initialize(model, seed)
    if config.base is not None:
        _take(model, load_transformer(config.base))
    method, lora = config.tune.method, config.tune.lora
    adapted = method in ("lora", "dora")
    if adapted:
        told = LoraConfig(
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=lora.dropout,
            rank_stabilized=lora.rank_stabilized,
            magnitudes=method == "dora",
            start=lora.start,
        )
        attach(model, adapter_places(config.model, lora.targets), told, seed)
    if method == "head":
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    if model.classifier is not None:
        for parameter in model.classifier.parameters():
            parameter.requires_grad_(True)
    return Network(model, adapted)


def _take(model: Transformer, base: Transformer) -> None:
    """Fills a network with the weights of another, as far as it has them."""
    theirs = base.state_dict()
    ours = model.state_dict()
    same = {name: held for name, held in theirs.items() if name in ours}
    # Classes of another task are none of this one's.
    fits = {name: held for name, held in same.items() if held.shape == ours[name].shape}
    model.load_state_dict(fits, strict=False)
