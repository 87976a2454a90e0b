"""Adapters as PEFT's files have them: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tianti.errors import Damaged, UserError
from tianti.exchange.families import family_of
from tianti.exchange.names import Theirs, weight_names
from tianti.files import read_json, write_json, write_tensors
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.model.lora import HEAD, LoraConfig, Place, adapters_of, attach
from tianti.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL, OUTPUT = "all-linear", "lm_head"
_ROOT = "base_model.model."
_KINDS = ("qkv", "out", "gate_up", "up", "down")
# What else a file may say, because it changes nothing once adapters are trained.
_HARMLESS = frozenset(
    name
    for line in (
        "auto_mapping base_model_name_or_path inference_mode peft_version revision task_type",
        "lora_dropout init_lora_weights loftq_config eva_config corda_config lora_ga_config",
        "megatron_core megatron_config qalora_group_size layers_pattern runtime_config",
        "ensure_weight_tying",
    )
    for name in line.split()
)
_UNDERSTOOD = {"r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "fan_in_fan_out"}
_ONLY = {"peft_type": "LORA", "bias": "none"}


def adapter_places(config: TransformerConfig, targets: Iterable[str] = (ALL,)) -> dict[str, Place]:
    """Gives where adapters stand.

    Args:
        config: the network.
        targets: names of Hugging Face's modules, such as `q_proj`; `all-linear` for all in the
            layers but routers and experts, `lm_head` for the output layer.

    Raises:
        UserError: a target is not there.
    """
    wanted, found, places = set(targets), set(), {}
    for ours, parts in _products(config).items():
        names = [_module(part).rsplit(".", 1)[-1] for part in parts]
        adapted = tuple(
            number for number, name in enumerate(names) if name in wanted or ALL in wanted
        )
        found |= set(names)
        if adapted:
            places[ours] = Place(tuple(part.rows for part in parts), adapted)
    if OUTPUT in wanted:
        places[HEAD] = Place((config.vocab_size,), (0,))
    if unknown := wanted - found - {ALL, OUTPUT}:
        raise UserError(
            tr("there is no module {name} to adapt", name=", ".join(sorted(unknown))),
            remedy=tr("Known: {names}", names=", ".join([ALL, OUTPUT, *sorted(found)])),
        )
    return places


def _products(config: TransformerConfig) -> dict[str, list[Theirs]]:
    """Gives the modules of the layers that may have adapters, and the matrices in them."""
    return {
        name.removesuffix(".weight"): parts
        for name, parts in weight_names(config).items()
        if name.startswith("layers.")
        and name.endswith(tuple(f".{kind}.weight" for kind in _KINDS))
        and ".routed." not in name
    }


def _module(part: Theirs) -> str:
    return part.name.removesuffix(".weight")


def _tensors(model: Transformer) -> dict[str, Tensor]:
    """Gives what adapters have learnt, by its name in files."""
    products, found = _products(model.config), {}
    for ours, adapter in adapters_of(model).items():
        for number, (a, b, lengths) in zip(adapter.place.adapted, adapter.learnt(), strict=True):
            name = _ROOT + (OUTPUT if ours == HEAD else _module(products[ours][number]))
            found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"] = a, b
            if lengths is not None:
                found[f"{name}.lora_magnitude_vector"] = lengths
    if model.classifier is not None:
        # It is learnt whole, beside the adapters.
        for ours, (part,) in _classifier(model.config).items():
            found[_ROOT + part.name] = model.get_parameter(ours)
    return found


def _classifier(config: TransformerConfig) -> dict[str, list[Theirs]]:
    """Gives the tensors of scores of classes, and what they are called in files."""
    names = weight_names(config)
    return {ours: parts for ours, parts in names.items() if ours.startswith("classifier.")}


def save_adapters(model: Transformer, folder: Path, base: str | None = None) -> None:
    """Writes the adapters of a network.

    Those that began with what they took from the weights are written as what they have learnt, of
    twice the rank, so that they fit the weights as they were.

    Args:
        model: the network.
        folder: where to.
        base: the directory of the network without them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters = adapters_of(model)
    config = _plain(next(iter(adapters.values())).config)
    kept = {name: held.detach().cpu().contiguous() for name, held in _tensors(model).items()}
    targets = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in kept if ".lora_" in name}
    whole = {_module(part) for (part,) in _classifier(model.config).values()}
    kind = {"text": "SEQ_CLS", "token": "TOKEN_CLS"}[model.config.classified]
    write_tensors(folder / WEIGHTS, kept, {"format": "pt"})
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": kind if whole else "CAUSAL_LM",
            "modules_to_save": sorted(name.removesuffix(".bias") for name in whole) or None,
            "base_model_name_or_path": base,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "use_rslora": config.rank_stabilized,
            "use_dora": config.magnitudes,
            "target_modules": sorted(targets),
            "bias": "none",
            "fan_in_fan_out": family_of(model.config) == "gpt2",
            "inference_mode": True,
            "init_lora_weights": True,
        },
    )


def _plain(config: LoraConfig) -> LoraConfig:
    """Gives the same as files say it: without what was taken from weights."""
    if config.start == "zero":
        return config
    more = math.sqrt(2) if config.rank_stabilized else 2
    return replace(config, rank=2 * config.rank, alpha=more * config.alpha, start="zero")


@torch.no_grad()
def load_adapters(model: Transformer, folder: Path) -> None:
    """Sets the adapters of a folder beside the products of a network, which is frozen.

    Raises:
        UserError: they are not of a kind that is computed here.
        Damaged: a file is missing or torn, or does not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, targets = _read_config(folder / CONFIG, bool(model.config.classes))
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise Damaged(tr("file is missing"), where=path) from error
    except (SafetensorError, OSError) as error:
        raise Damaged(tr("file is damaged ({reason})", reason=error), where=path) from error
    _check_output(model, tensors, path)
    attach(model, adapter_places(model.config, targets), config, seed=0)
    targets_of = _tensors(model)
    shapes = {name: target.shape for name, target in targets_of.items()}
    if misfits := shapes.items() ^ {name: held.shape for name, held in tensors.items()}.items():
        name = min(misfits)[0]
        raise Damaged(tr("the adapters do not fit the model: {name}", name=name), where=path)
    for name, target in targets_of.items():
        target.copy_(tensors[name])


def _check_output(model: Transformer, tensors: dict[str, Tensor], path: Path) -> None:
    """Takes away the output layer that PEFT writes beside an adapter, which must be the model's."""
    base = tensors.pop(f"{_ROOT}{OUTPUT}.base_layer.weight", None)
    if base is not None and not torch.equal(base, model.output_weight.cpu()):
        raise UserError(tr("the adapters were trained beside another output layer"), where=path)


def _read_config(path: Path, tells_classes: bool) -> tuple[LoraConfig, list[str]]:
    if not path.is_file():
        raise Damaged(tr("file is missing"), where=path)
    values = read_json(path)
    for name, value in values.items():
        only = _ONLY.get(name)
        harmless = name in _HARMLESS or name in _UNDERSTOOD or not value
        harmless |= name == "modules_to_save" and tells_classes
        if (only is not None and value != only) or (only is None and not harmless):
            raise UserError(
                tr("{name} = {value!r} is not supported", name=name, value=value), where=path
            )
    try:
        targets: Any = values["target_modules"]
        config = LoraConfig(
            rank=int(values["r"]),
            alpha=float(values["lora_alpha"]),
            rank_stabilized=bool(values.get("use_rslora")),
            magnitudes=bool(values.get("use_dora")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(
            tr("the model configuration is wrong: {reason}", reason=error), where=path
        ) from error
    if isinstance(targets, str) and targets != ALL:
        raise UserError(
            tr("{name} = {value!r} is not supported", name="target_modules", value=targets),
            where=path,
            remedy=tr("Give a list of names"),
        )
    return config, [targets] if isinstance(targets, str) else list(targets)
