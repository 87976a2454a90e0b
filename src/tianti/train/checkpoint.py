"""Checkpoints: safetensors and JSON, checksummed, written beside and renamed; never a pickle.

A checkpoint is a folder `step-00000123/` with `model.safetensors`, `optimizer.safetensors`, where
weights are averaged `average.safetensors`, and `state.json`, whose `files` hold sizes and SHA-256
of the others and whose `checksum` covers `state.json` itself.

Where several ranks train, each writes what it holds, `model-00002.safetensors` and so on, and
`state.json` says in `held` which part of which tensor lies where. Whoever reads, on any number
of ranks, puts together what it wants: a checkpoint knows nothing of who goes on from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Set
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
from tianti.train.parts import Holding, Part, read_parts
from tianti.train.ranks import ALONE, Ranks

MODEL, OPTIMIZER, AVERAGE = "model", "optimizer", "average"
STATE = "state.json"
# How long the first rank waits for what the others write.
PATIENCE_SECONDS = 1800.0


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
        best_validation: cost of the best validation, such as bits per byte.
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


def partial_folder(folder: Path, step: int) -> Path:
    """Gives where a checkpoint is written before it is whole."""
    return folder / f".step-{step:08d}.partial"


def forget_partial(folder: Path) -> None:
    """Removes what a process that was killed had begun to write."""
    for partial in folder.glob(".step-*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def make_room(folder: Path, step: int) -> None:
    """Makes the empty folder that ranks write into.

    Raises:
        UserError: the disk is full or not writable.
    """
    partial = partial_folder(folder, step)
    with os_errors_named(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    keep: int,
    best_step: int | None = None,
    part: Part | None = None,
) -> Path:
    """Writes a checkpoint below `folder` and removes all but the newest `keep` and the best.

    Args:
        folder: where checkpoints lie.
        checkpoint: what to write; of a part, what is held here.
        keep: how many are kept.
        best_step: of one that is kept too.
        part: which part of all this is; None for the whole. The first rank's call ends when all
            parts are there and the checkpoint is durable, another's when its own part is.

    Raises:
        UserError: the disk is full or not writable; what was there before is untouched.
    """
    final = folder / f"step-{checkpoint.state.step:08d}"
    partial = partial_folder(folder, checkpoint.state.step)
    try:
        with os_errors_named(final):
            if part is None:
                make_room(folder, checkpoint.state.step)
            _write_tensors(partial, checkpoint, part)
            if part is not None and part.number:
                return final
            held = {} if part is None else part.gathered(partial, PATIENCE_SECONDS)
            values = {"state": asdict(checkpoint.state), "files": describe_files(partial)}
            write_sealed(partial / STATE, values | ({"held": held} if held else {}))
            publish_folder(partial, final)
    except BaseException:
        if part is None or not part.number:
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


def _write_tensors(partial: Path, checkpoint: Checkpoint, part: Part | None) -> None:
    files = {MODEL: checkpoint.model, OPTIMIZER: checkpoint.optimizer, AVERAGE: checkpoint.average}
    for kind, tensors in files.items():
        if kind == AVERAGE and not tensors:
            continue
        wanted = tensors if part is None else part.written(tensors)
        if part is not None and not wanted:
            # Another rank holds the same and writes it.
            continue
        name = f"{kind}.safetensors" if part is None else part.file(kind)
        write_tensors(partial / name, {k: v.contiguous() for k, v in wanted.items()})
    if part is not None:
        part.note(partial, {part.file(kind): part.written(files[kind]) for kind in files})


def newest_step(folder: Path) -> int:
    """Gives the step of the newest checkpoint, 0 where there is none."""
    return max((step_of(path) for path in list_checkpoints(folder)), default=0)


def step_of(path: Path) -> int:
    """Gives the step of a checkpoint from its name."""
    return int(path.name.split("-")[1])


def load_checkpoint(
    path: Path,
    holdings: Mapping[str, Holding] | None = None,
    share: tuple[int, int] = (0, 1),
    names: Set[str] | None = None,
) -> Checkpoint:
    """Reads one checkpoint.

    Args:
        path: its folder.
        holdings: what is wanted of some parameters, and of the optimizer's numbers for them; of all
            others, all.
        share: `(i, n)`: of its files' hashes every n-th from the i-th on is checked here; n ranks
            check all.
        names: of what is wanted at all; everything when not given.

    Raises:
        Damaged: a file is missing, torn or altered; the error names it.
    """
    from safetensors import SafetensorError

    values = read_sealed(path / STATE)
    try:
        state, files = TrainState(**values["state"]), values["files"]
        where = values.get("held", {})
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(tr("file is damaged (not a checkpoint)"), where=path / STATE) from error
    check_files(path, files, hashes=False)
    check_files(path, dict(list(files.items())[share[0] :: share[1]]), hashes=True)
    wanted = holdings or {}
    try:
        model, optimizer, average = (
            read_parts(path, [file for file in files if _kind(file) == kind], where, wanted, names)
            for kind in (MODEL, OPTIMIZER, AVERAGE)
        )
    except SafetensorError as error:
        raise Damaged(tr("file is damaged ({reason})", reason=error), where=path) from error
    return Checkpoint(state, model, optimizer, average)


def _kind(file: str) -> str:
    return file.split(".")[0].split("-")[0]


def load_last_good(
    folder: Path, on_damage: Callable[[Damaged], None], ranks: Ranks = ALONE
) -> Checkpoint | None:
    """Gives the newest checkpoint that is whole, or None.

    Args:
        folder: where checkpoints lie.
        on_damage: told of each damaged one that is passed over.
        ranks: those that read it together, each what it holds.
    """
    # What one rank sees on a shared disk another may see later: the first says what there is.
    steps = [step_of(path) for path in list_checkpoints(folder)]
    before = None
    while True:
        here = [step for step in steps if before is None or step < before] if ranks.first else []
        (step,) = ranks.greatest(max(here, default=-1))
        path = checkpoint_path(folder, step)
        if step < 0 or path is None:
            return None
        before, error, found = step, None, None
        try:
            found = load_checkpoint(path, ranks.holdings, (ranks.rank, ranks.world), ranks.held)
        except Damaged as damage:
            error = damage
        (bad,) = ranks.greatest(0 if error is None else 1)
        if not bad:
            return found
        on_damage(error or Damaged(tr("another rank found it damaged"), where=path))
