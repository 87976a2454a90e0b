"""What each rank writes of a checkpoint, and how tensors are put together from it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
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
class Piece:
    """A block of a tensor that is held here.

    Args:
        at: row of what is held where it begins.
        start: where it begins in each dimension of the whole tensor.
        size: its shape.
    """

    at: int
    start: tuple[int, ...]
    size: tuple[int, ...]


@dataclass(frozen=True)
class Holding:
    """What a rank holds of a tensor: blocks of it, one below the other.

    Args:
        whole: shape of the tensor.
        shape: of what is held.
        pieces: the blocks; none where nothing is held.
    """

    whole: tuple[int, ...]
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @staticmethod
    def all_of(shape: tuple[int, ...]) -> Holding:
        """Gives the holding of who has the whole tensor."""
        return Holding(shape, shape, (Piece(0, (0,) * len(shape), shape),))

    def rows(self, begin: int, end: int) -> Holding:
        """Gives what is held by who has some rows of this.

        Args:
            begin: the first row of what is held.
            end: the one after the last.
        """
        pieces = []
        for piece in self.pieces:
            low, high = max(piece.at, begin), min(piece.at + piece.size[0], end)
            if low < high:
                start = (piece.start[0] + low - piece.at, *piece.start[1:])
                pieces.append(Piece(low - begin, start, (high - low, *piece.size[1:])))
        height = max(end - begin, 0)
        return Holding(self.whole, (height, *self.shape[1:]), tuple(pieces))

    def fill(self, held: Tensor, values: Tensor) -> None:
        """Fills what is held with its part of the values of the whole."""
        for piece in self.pieces:
            held[piece.at : piece.at + piece.size[0]].copy_(values[_block(piece)])


def _block(piece: Piece) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(piece.start, piece.size, strict=True))


@dataclass(frozen=True)
class Part:
    """Which part of a checkpoint a rank writes.

    Args:
        number: of the rank among all.
        count: of ranks.
        holdings: what it holds of parameters that are held in part.
        extra: parameters that another rank holds alike and writes.
    """

    number: int
    count: int
    holdings: Mapping[str, Holding]
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
        held = {
            file: {
                name: {
                    "whole": holding.whole,
                    "pieces": [[piece.at, piece.start, piece.size] for piece in holding.pieces],
                }
                for name, tensor in tensors.items()
                if (holding := held_of(name, tensor.ndim, self.holdings)) is not None
            }
            for file, tensors in files.items()
        }
        write_sealed(self._note(partial, self.number), {"held": held})

    def gathered(self, partial: Path, patience: float) -> dict[str, Any]:
        """Gives what all ranks hold once all have written, and removes their notes.

        Raises:
            UserError: a rank did not write.
        """
        held: dict[str, Any] = {}
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
            held |= read_sealed(note)["held"]
            note.unlink()
        return held

    @staticmethod
    def _note(partial: Path, number: int) -> Path:
        return partial / f"part-{number:05d}.json"


def held_of(name: str, dimensions: int, holdings: Mapping[str, Holding]) -> Holding | None:
    """Gives which part a tensor is of the whole, or None where it is all of it.

    Args:
        name: of a parameter, or `parameter/field` of the optimizer's.
        dimensions: of the tensor.
        holdings: of parameters.
    """
    holding = holdings.get(name) or holdings.get(name.rsplit("/", 1)[0])
    # One number for the whole parameter is no part of it.
    return holding if holding is not None and dimensions == len(holding.whole) else None


def read_parts(
    folder: Path,
    files: list[str],
    where: dict[str, Any],
    wanted: Mapping[str, Holding],
    names: Set[str] | None = None,
) -> dict[str, Tensor]:
    """Gives tensors, or what is wanted of them, from the files they lie in.

    Args:
        folder: of the checkpoint.
        files: names of the files.
        where: for each file, what it holds of the tensors that lie in it in part.
        wanted: what is to be held of parameters, by who wrote or any other.
        names: parameters that are wanted at all; all when not given.

    Raises:
        Damaged: a part is missing.
    """
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    filled: dict[str, int] = {}
    for file in sorted(files):
        with safe_open(folder / file, framework="pt") as source:
            for name in source.keys():  # noqa: SIM118 - it is no dictionary
                if names is not None and not {name, name.rsplit("/", 1)[0]} & names:
                    continue
                held = source.get_slice(name)
                has = _holding_in(where.get(file, {}).get(name), tuple(held.get_shape()))
                asked = held_of(name, len(has.whole), wanted) or Holding.all_of(has.whole)
                if has == asked:
                    found[name] = source.get_tensor(name)
                    filled[name] = found[name].numel()
                    continue
                if name not in found:
                    # A slice of nothing tells the type.
                    dtype = source.get_slice(name)[tuple(slice(0, 0) for _ in has.shape)].dtype
                    found[name], filled[name] = torch.empty(asked.shape, dtype=dtype), 0
                filled[name] += _copy_overlap(held, has, found[name], asked)
    for name, tensor in found.items():
        if filled[name] != tensor.numel():
            raise Damaged(tr("a part of {name} is missing", name=name), where=folder)
    return found


def _holding_in(noted: dict[str, Any] | None, shape: tuple[int, ...]) -> Holding:
    """Gives what a file's tensor is of the whole, as was noted; all of it where nothing was."""
    if noted is None:
        return Holding.all_of(shape)
    pieces = (Piece(at, tuple(start), tuple(size)) for at, start, size in noted["pieces"])
    return Holding(tuple(noted["whole"]), shape, tuple(pieces))


def _copy_overlap(held: Any, has: Holding, target: Tensor, asked: Holding) -> int:
    """Copies what a file's tensor and what is asked for have in common; gives how many numbers."""
    count = 0
    for ours in has.pieces:
        for theirs in asked.pieces:
            source_at, target_at = [], []
            sides = zip(ours.start, ours.size, theirs.start, theirs.size, strict=True)
            for begin, length, first, size in sides:
                low, high = max(begin, first), min(begin + length, first + size)
                source_at.append(slice(low - begin, high - begin))
                target_at.append(slice(low - first, high - first))
            if any(at.start >= at.stop for at in source_at):
                continue
            if source_at:
                source_at[0] = _moved(source_at[0], ours.at)
                target_at[0] = _moved(target_at[0], theirs.at)
            piece = held[tuple(source_at)] if source_at else held[...]
            target[tuple(target_at)] = piece
            count += piece.numel()
    return count


def _moved(at: slice, by: int) -> slice:
    return slice(at.start + by, at.stop + by)
