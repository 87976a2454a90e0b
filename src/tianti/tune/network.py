"""The network that is tuned: its weights from the base, its classifier and adapters new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tianti.errors import UserError
from tianti.exchange.huggingface import load_transformer
from tianti.exchange.peft import adapter_places
from tianti.files import read_json
from tianti.messages import tr
from tianti.model.frozen import freeze, freeze_one, take_frozen
from tianti.model.initialization import initialize, layer_of
from tianti.model.lora import LoraConfig, attach
from tianti.model.transformer import Transformer
from tianti.model.vocabulary import extend_vocabulary
from tianti.train.ranks import Ranks
from tianti.tune.config import FURTHER, TASK, TuneConfig
from tianti.tune.derive import TuneStageConfig
from tianti.tune.form import Form


@dataclass(frozen=True)
class Network:
    """A network with what of it is learnt.

    Args:
        model: it; what is frozen needs no gradient.
        adapted: it has adapters.
        writes: the base's output layer, `(vocabulary, width)`, where a classifier begins with it.
    """

    model: Transformer
    adapted: bool
    writes: Tensor | None = None

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Fills what is learnt from a checkpoint."""
        here = dict(self.model.named_parameters()) | self.model.routing_state()
        for name, tensor in tensors.items():
            here[name].copy_(tensor)


def without_memory(model: Transformer) -> dict[str, Tensor]:
    """Takes a network's weights and buffers out of it, and gives them."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    model.to("meta")
    return {name: tensor.detach() for name, tensor in held.items()}


def refuse_other_weights(begun: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Compares what ranks begin with, each of which has read or computed it by itself.

    Raises:
        UserError: on every rank, where one has something else.
    """
    sums = 0
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for name in sorted(begun):
        tensor = begun[name].detach().contiguous()
        bits = tensor.view(whole[tensor.element_size()]).sum(dtype=torch.int64)
        sums = (31 * sums + int(bits)) % 2**61
    most, least = ranks.greatest(sums, -sums)
    if most != -least:
        raise UserError(
            tr("ranks begin with different weights"),
            where="base",
            remedy=tr("Give all of them the same base, and processors of one kind"),
        )


def build_network(config: TuneStageConfig, tokenizer: Path | None = None) -> Network:
    """Gives the network as tuning begins.

    Args:
        config: network, settings, task.
        tokenizer: folder of that stage, where the base's tokenizer has grown.

    Raises:
        UserError: the base is no model, or a target of adapters is not there.
        Damaged: a file of the base is torn, or does not fit.
    """
    seed, writes = config.settings.seed, None
    if config.base is None:
        model = Transformer(config.model, dropout=config.settings.dropout)
        initialize(model, seed)
    else:
        with torch.device("meta"):
            model = Transformer(config.model, dropout=config.settings.dropout)
        same_classes = _tells(config.base) == config.form.tells and config.tune.start != "random"
        base = _loaded(config.base, config.tune)
        if config.tune.more_tokens and tokenizer is not None:
            further = read_json(tokenizer / FURTHER)
            base = extend_vocabulary(base, further["pieces"], first=further["first"])
        _take(model, base, same_classes)
        if config.tune.classifier == "words":
            # A network that tells classes has none any more.
            writes = base.output_weight.detach()
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
        if config.tune.quantize != "none":
            freeze(model, config.tune.quantize)
    if method in ("head", "none"):
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    if config.tune.frozen_layers:
        _freeze_lowest(model, config.tune.frozen_layers)
    if model.classifier is not None:
        for parameter in model.classifier.parameters():
            parameter.requires_grad_(True)
    return Network(model, adapted, writes)


def _loaded(base: Path, tune: TuneConfig) -> Transformer:
    """Gives the base; what is to be held in few bits is so as soon as it is read, so that the whole
    is never there at once, unless adapters take from it what they begin with."""
    kind = tune.quantize
    if kind == "none" or tune.lora.start == "singular":
        return load_transformer(base)
    return load_transformer(base, on_filled=lambda model, name: freeze_one(model, name, kind))


def _freeze_lowest(model: Transformer, count: int) -> None:
    if count >= model.config.depth:
        raise UserError(
            tr("the network has {count} layers", count=model.config.depth),
            where="tune.frozen_layers",
            remedy=tr("Freeze fewer, or set method: head"),
        )
    for name, parameter in model.named_parameters():
        if layer_of(name, model.config.depth) < count:
            parameter.requires_grad_(False)


def _take(model: Transformer, base: Transformer, same_classes: bool) -> None:
    """Fills a network made without memory with the weights of another, which are not copied; its
    classifier where both tell the same, else with zeros, as any begins."""
    ours = set(model.state_dict())
    frozen = take_frozen(model, base)
    theirs = base.state_dict()
    taken = {name: held for name, held in theirs.items() if name in ours}
    if not same_classes:
        taken = {n: held for n, held in taken.items() if not n.startswith("classifier.")}
    missing = {n for n in ours if not n.startswith("classifier.")} - set(taken) - frozen
    if missing:
        raise ValueError(f"the base lacks {sorted(missing)[:3]}")
    model.load_state_dict(taken, strict=False, assign=True)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                zeros = torch.zeros_like(parameter, device="cpu")
                module._parameters[name] = nn.Parameter(zeros)
        for name, table in module._buffers.items():
            if table is not None and table.is_meta:
                module._buffers[name] = torch.zeros_like(table, device="cpu")
    model.fill_buffers()


def _tells(base: Path) -> tuple[Any, ...] | None:
    """Gives what a base was tuned to tell; None for nothing."""
    path = base / TASK
    return Form.read(read_json(path)).tells if path.is_file() else None
