"""What each rank writes of a checkpoint, and how tensors are put together from it again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tianti.errors import Damaged, UserError
from tianti.files import read_sealed, write_sealed
from tianti.messages import tr

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Region:
    """The part of a tensor that a rank holds.

    Args:
        start: where it begins in each dimension.
        size: its own shape.
        whole: shape of the tensor.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]
    whole: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Which part of a checkpoint a rank writes.

    Args:
        number: of the rank among all.
        count: of ranks.
        regions: what it holds of parameters that are held in part.
        extra: parameters that another rank holds alike and writes.
    """

    number: int
    count: int
    regions: Mapping[str, Region]
    extra: frozenset[str]

    def file(self, kind: str) -> str:
        """Gives the name of the file for `model`, `optimizer` or `average`."""
        return f"{kind}-{self.number:05d}.safetensors"

    def written(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gives those of the tensors held here that this rank writes."""
        found = {}
        for name, tensor in tensors.items():
            parameter = name if name in self.extra else name.rsplit("/", 1)[0]
            if parameter not in self.extra and tensor.numel():
                found[name] = tensor
        return found

    def note(self, partial: Path, files: dict[str, dict[str, Tensor]]) -> None:
        """Writes down what this rank wrote."""
        regions = {
            file: {
                name: {"start": region.start, "whole": region.whole}
                for name, tensor in tensors.items()
                if (region := region_of(name, tensor, self.regions)) is not None
            }
            for file, tensors in files.items()
        }
        write_sealed(self._note(partial, self.number), {"regions": regions})

    def gathered(self, partial: Path, patience: float) -> dict[str, Any]:
        """Gives the regions of all ranks once all have written, and removes their notes.

        Raises:
            UserError: a rank did not write.
        """
        regions: dict[str, Any] = {}
        until = time.monotonic() + patience
        for number in range(self.count):
            note = self._note(partial, number)
            while not note.is_file():
                if time.monotonic() > until:
                    raise UserError(
                        tr("rank {rank} has not written its part", rank=number),
                        where=partial,
                        remedy=tr("Check its disk; the last checkpoint is untouched"),
                    )
                time.sleep(_POLL_SECONDS)
            regions |= read_sealed(note)["regions"]
            note.unlink()
        return regions

    @staticmethod
    def _note(partial: Path, number: int) -> Path:
        return partial / f"part-{number:05d}.json"


def region_of(name: str, tensor: Tensor, regions: Mapping[str, Region]) -> Region | None:
    """Gives which part a tensor is of the whole, or None where it is all of it.

    Args:
        name: of a parameter, or `parameter/field` of the optimizer's.
        tensor: what is held.
        regions: of parameters.
    """
    region = regions.get(name) or regions.get(name.rsplit("/", 1)[0])
    # One number for the whole parameter is no part of it.
    return region if region is not None and tensor.ndim == len(region.whole) else None


def read_parts(
    folder: Path, files: list[str], where: dict[str, Any], wanted: Mapping[str, Region]
) -> dict[str, Tensor]:
    """Gives tensors, or what is wanted of them, from the files they lie in.

    Args:
        folder: of the checkpoint.
        files: names of the files.
        where: for each file, the regions of the tensors that lie in it in part.
        wanted: regions of parameters, those of who wrote or any other.

    Raises:
        Damaged: a part is missing.
    """
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    filled: dict[str, int] = {}
    for file in sorted(files):
        with safe_open(folder / file, framework="pt") as source:
            for name in source.keys():  # noqa: SIM118 - it is no dictionary
                held = source.get_slice(name)
                shape = tuple(held.get_shape())
                region = where.get(file, {}).get(name)
                start = tuple(region["start"]) if region else (0,) * len(shape)
                whole = tuple(region["whole"]) if region else shape
                asked = wanted.get(name) or wanted.get(name.rsplit("/", 1)[0])
                if asked is None or len(shape) != len(asked.whole):
                    asked = Region((0,) * len(whole), whole, whole)
                if shape == whole == asked.size and not any(asked.start):
                    found[name] = source.get_tensor(name)
                    filled[name] = found[name].numel()
                    continue
                if name not in found:
                    # A slice of nothing tells the type.
                    dtype = source.get_slice(name)[tuple(slice(0, 0) for _ in shape)].dtype
                    found[name], filled[name] = torch.empty(asked.size, dtype=dtype), 0
                _copy_overlap(held, start, shape, found[name], asked, filled, name)
    for name, tensor in found.items():
        if filled[name] != tensor.numel():
            raise Damaged(tr("a part of {name} is missing", name=name), where=folder)
    return found


def _copy_overlap(
    held: Any,
    start: tuple[int, ...],
    shape: tuple[int, ...],
    target: Tensor,
    asked: Region,
    filled: dict[str, int],
    name: str,
) -> None:
    """Copies what a file's tensor and what is asked for have in common."""
    source_at, target_at = [], []
    for begin, length, first, size in zip(start, shape, asked.start, asked.size, strict=True):
        low, high = max(begin, first), min(begin + length, first + size)
        if low >= high:
            return
        source_at.append(slice(low - begin, high - begin))
        target_at.append(slice(low - first, high - first))
    piece = held[tuple(source_at)] if source_at else held[...]
    target[tuple(target_at)] = piece
    filled[name] += piece.numel()
