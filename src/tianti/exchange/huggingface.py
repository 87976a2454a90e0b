"""Reads and writes a Transformer as a Hugging Face directory.

A network of our own is a Qwen3; with experts a Qwen3-MoE, or, where the router scores each expert
by itself, a GLM-4.5, which has its bias and its shared experts. One that was read is written as
what it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tianti.errors import Damaged
from tianti.exchange.config_file import CONFIG, load_config, write_config
from tianti.exchange.families import OWN
from tianti.exchange.names import Theirs, weight_names
from tianti.files import read_json, write_json, write_tensors
from tianti.messages import tr
from tianti.model.transformer import Transformer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Bytes of one file of weights, as transformers has it.
SHARD_BYTES = 5 * 10**9
# What older files hold besides weights: tables that are computed.
_TABLES = re.compile(r".*(\.rotary_emb\.inv_freq|\.attn\.(masked_)?bias)")


def save_transformer(
    model: Transformer,
    folder: Path,
    *,
    eos_token_id: int,
    pad_token_id: int,
    shard_bytes: int = SHARD_BYTES,
    more: Mapping[str, Any] | None = None,
    ends: Sequence[int] = (),
) -> None:
    """Writes `config.json`, `generation_config.json` and the weights.

    Args:
        model: the network.
        folder: where to.
        eos_token_id: ends a text.
        pad_token_id: fills up.
        shard_bytes: most of one file; more are written as several with an index.
        more: what else `config.json` says, such as the names of classes.
        ends: all tokens that end what is written; `eos_token_id` when not given.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = {"bos_token_id": None, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    write_json(folder / CONFIG, write_config(model.config) | tokens | dict(more or {}))
    if not model.config.classes:
        said = {"do_sample": True, **tokens, **({"eos_token_id": list(ends)} if ends else {})}
        write_json(folder / "generation_config.json", said)
    _write_weights(_to_huggingface(model), folder, shard_bytes)


def load_transformer(
    folder: Path,
    device: torch.device | str = "cpu",
    on_filled: Callable[[Transformer, str], None] = lambda model, name: None,
) -> Transformer:
    """Reads a Transformer from a Hugging Face directory.

    Args:
        folder: which.
        device: where it is to lie.
        on_filled: told the name of each parameter once it is read; it may hold it otherwise.

    Raises:
        UserError: the folder is no model, or of a family not known here.
        Damaged: a file is missing, torn, or does not fit the configuration.
    """
    config = load_config(folder)
    with torch.device("meta"):
        model = Transformer(config)
    with _open_weights(folder) as (files, path):
        model = model.to_empty(device=device)
        _fill(model, files, path, on_filled)
    return model


def is_own(folder: Path) -> bool:
    """Tells whether a network is of the kinds that recipes make; also where it is no model."""
    path = folder / CONFIG
    return not path.is_file() or read_json(path).get("model_type") in OWN


def _to_huggingface(model: Transformer) -> dict[str, Tensor]:
    ours = _tensors(model)
    weights = {}
    for name, parts in weight_names(model.config).items():
        pieces = ours[name].detach().cpu().split([part.rows for part in parts])
        for part, piece in zip(parts, pieces, strict=True):
            weights[part.name] = (piece.t() if part.transposed else piece).contiguous()
    return weights


def _write_weights(weights: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in weights.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        write_tensors(folder / WEIGHTS, weights, {"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(folder / file, shard, {"format": "pt"})
        places |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in weights.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


@contextmanager
def _open_weights(folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Gives the open file of each tensor by its name, and what is read first."""
    from safetensors import SafetensorError, safe_open

    path = folder / INDEX
    if (folder / WEIGHTS).is_file() or not path.is_file():
        path = folder / WEIGHTS
    names = [WEIGHTS] if path.name == WEIGHTS else _shards(path)
    remedy = tr("Fetch or write it again")
    with ExitStack() as opened:
        files: dict[str, Any] = {}
        for name in names:
            path = folder / name
            try:
                file = opened.enter_context(safe_open(path, framework="pt"))
                files |= dict.fromkeys(file.keys(), file)
            except FileNotFoundError as error:
                raise Damaged(tr("file is missing"), where=path, remedy=remedy) from error
            except (SafetensorError, OSError) as error:
                raise Damaged(
                    tr("file is damaged ({reason})", reason=error), where=path, remedy=remedy
                ) from error
        yield files, path


def _shards(path: Path) -> list[str]:
    """Gives the files that an index names, which lie beside it."""
    places = read_json(path).get("weight_map")
    names = sorted(set(places.values())) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise Damaged(tr("the index of weights is wrong"), where=path)
    return names


@torch.no_grad()
def _fill(
    model: Transformer,
    files: dict[str, Any],
    path: Path,
    on_filled: Callable[[Transformer, str], None],
) -> None:
    """Copies weights into a model built without memory, and recomputes its tables."""
    # Tables, and loads of experts, which are not kept.
    model.fill_buffers()
    ours = _tensors(model)
    names = weight_names(model.config)
    expected = {part.name for parts in names.values() for part in parts}
    files = {_full_name(name, expected): (name, file) for name, file in files.items()}
    unknown = {name for name in files if not _TABLES.fullmatch(name)} - expected
    # A tied output layer may be there all the same.
    unknown.discard("lm_head.weight")
    missing = expected - set(files)
    if unknown or missing:
        raise Damaged(
            tr(
                "the weights do not fit config.json: missing {missing}, unknown {unknown}",
                missing=sorted(missing)[:3],
                unknown=sorted(unknown)[:3],
            ),
            where=path,
        )
    for name, parts in names.items():
        stacked = torch.cat([_read(part, *files[part.name]) for part in parts])
        if stacked.shape != ours[name].shape:
            raise Damaged(
                tr(
                    "{name} has shape {found}, config.json says {expected}",
                    name=parts[0].name,
                    found=tuple(stacked.shape),
                    expected=tuple(ours[name].shape),
                ),
                where=path,
            )
        # Not one name holds it any more than the network does.
        ours.pop(name).copy_(stacked)
        on_filled(model, name)


def _full_name(name: str, expected: set[str]) -> str:
    """Gives a tensor's name with the root that some files of GPT-2 leave out."""
    full = f"transformer.{name}"
    return full if full in expected else name


def _read(part: Theirs, name: str, file: Any) -> Tensor:
    tensor = file.get_tensor(name)
    return tensor.t() if part.transposed else tensor


def _tensors(model: Transformer) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | model.routing_state()
