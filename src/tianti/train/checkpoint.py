"""Checkpoints: safetensors and JSON, checksummed, written beside and renamed; never a pickle.

A checkpoint is a folder `step-00000123/` with `model.safetensors`, `optimizer.safetensors`, where
weights are averaged `average.safetensors`, and `state.json`, whose `files` hold sizes and SHA-256
of the others and whose `checksum` covers `state.json` itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from tianti.errors import Damaged, os_errors_named
from tianti.files import (
    check_files,
    describe_files,
    publish_folder,
    read_sealed,
    write_sealed,
    write_tensors,
)
from tianti.messages import tr

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
AVERAGE = "average.safetensors"


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
        losses: of the last good steps, for telling spikes.
        norms: of their gradients.
        bad_in_a_row: steps without an update up to here.
        batch_offset: batches passed over by going back: step `s` sees batch `s + batch_offset`.
        rewinds: how often training went back.
        best_validation: bits per byte of the best validation.
        best_step: step of it.
        validations_since_best: how many were no better.
        stopped: no better validation is to be hoped for.
    """

    step: int
    total_steps: int
    tokens: int = 0
    skipped_steps: int = 0
    train_seconds: float = 0.0
    log_bytes: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    bad_in_a_row: int = 0
    batch_offset: int = 0
    rewinds: int = 0
    best_validation: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; `average` is empty where none is kept."""

    state: TrainState
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, keep: int, best_step: int | None = None
) -> Path:
    """Writes a checkpoint below `folder` and removes all but the newest `keep` and the best.

    Raises:
        UserError: the disk is full or not writable; what was there before is untouched.
    """
    final = folder / f"step-{checkpoint.state.step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        with os_errors_named(final):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            files = {MODEL: checkpoint.model, OPTIMIZER: checkpoint.optimizer}
            if checkpoint.average:
                files[AVERAGE] = checkpoint.average
            for name, tensors in files.items():
                write_tensors(partial / name, {k: v.contiguous() for k, v in tensors.items()})
            values = {"state": asdict(checkpoint.state), "files": describe_files(partial)}
            write_sealed(partial / STATE, values)
            publish_folder(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in list_checkpoints(folder)[keep:]:
        if old != checkpoint_path(folder, best_step):
            shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoint_path(folder: Path, step: int | None) -> Path | None:
    """Gives where the checkpoint of a step lies."""
    return None if step is None else folder / f"step-{step:08d}"


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

    values = read_sealed(path / STATE)
    try:
        state, files = TrainState(**values["state"]), values["files"]
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(tr("file is damaged (not a checkpoint)"), where=path / STATE) from error
    check_files(path, files, hashes=True)
    try:
        average = load_file(path / AVERAGE) if AVERAGE in files else {}
        return Checkpoint(state, load_file(path / MODEL), load_file(path / OPTIMIZER), average)
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
