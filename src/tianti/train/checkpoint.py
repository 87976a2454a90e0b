"""Checkpoints: safetensors and JSON, checksummed, written beside and renamed; never a pickle.

A checkpoint is a folder `step-00000123/` with `model.safetensors`, `optimizer.safetensors` and
`state.json`, whose `files` hold sizes and SHA-256 of the other two and whose `checksum` covers
`state.json` itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tianti.errors import Damaged, os_errors_named
from tianti.files import (
    check_files,
    describe_files,
    publish_folder,
    read_json,
    write_json,
    write_tensors,
)
from tianti.messages import tr

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass
class TrainState:
    """The few numbers that, with weights and optimizer, fix all that is to come.

    Args:
        step: steps done.
        total_steps: steps in all.
        tokens: tokens trained on.
        skipped_steps: steps whose gradient was not finite.
        train_seconds: wall time of training so far, over all processes.
        log_bytes: how much of the log belongs to this state.
    """

    step: int
    total_steps: int
    tokens: int = 0
    skipped_steps: int = 0
    train_seconds: float = 0.0
    log_bytes: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    state: TrainState
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint below `folder` and removes all but the newest `keep`.

    Raises:
        UserError: the disk is full or not writable; what was there before is untouched.
    """
    final = folder / f"step-{checkpoint.state.step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        with os_errors_named(final):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, tensors in ((MODEL, checkpoint.model), (OPTIMIZER, checkpoint.optimizer)):
                write_tensors(partial / name, {k: v.contiguous() for k, v in tensors.items()})
            values = {"state": asdict(checkpoint.state), "files": describe_files(partial)}
            write_json(partial / STATE, values | {"checksum": _checksum(values)})
            publish_folder(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in list_checkpoints(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Gives the checkpoints below a folder, newest first."""
    return sorted(folder.glob("step-????????"), reverse=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        Damaged: a file is missing, torn or altered; the error names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    values = read_json(path / STATE)
    try:
        checksum = values.pop("checksum")
        if checksum != _checksum(values):
            raise Damaged(tr("file is damaged (checksum differs)"), where=path / STATE)
        state, files = TrainState(**values["state"]), values["files"]
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(tr("file is damaged (not a checkpoint)"), where=path / STATE) from error
    check_files(path, files, hashes=True)
    try:
        return Checkpoint(state, load_file(path / MODEL), load_file(path / OPTIMIZER))
    except SafetensorError as error:
        raise Damaged(tr("file is damaged ({reason})", reason=error), where=path) from error


def load_last_good(folder: Path, on_damage: Callable[[Damaged], None]) -> Checkpoint | None:
    """Gives the newest checkpoint that is whole, or None.

    Args:
        folder: where checkpoints lie.
        on_damage: told of each damaged one that is passed over.
    """
    for path in list_checkpoints(folder):
        try:
            return load_checkpoint(path)
        except Damaged as error:
            on_damage(error)
    return None
