"""Whether every file of a run is what it was when it was written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tianti.errors import Damaged, UserError
from tianti.files import damaged_files, describe_file, read_sealed, write_sealed
from tianti.messages import tr
from tianti.runs.manifest import Manifest
from tianti.runs.reads import READS
from tianti.runs.stages import HASHES, STAGE_NAMES

PARTIAL = ".partial"
CHECKSUMS = "checksums.json"


def seal(folder: Path, names: tuple[str, ...]) -> None:
    """Writes down what files beside the stages are, for `verify`."""
    files = {name: describe_file(folder / name) for name in names if (folder / name).is_file()}
    with contextlib.suppress(Damaged):
        if read_sealed(folder / CHECKSUMS) == {"files": files}:
            return
    write_sealed(folder / CHECKSUMS, {"files": files})


def verify(folder: Path) -> Iterator[Damaged]:
    """Gives what is missing, torn or altered in a run, finished or not.

    Args:
        folder: of the run.

    Raises:
        UserError: this is no run.
    """
    if not any((folder / name).exists() for name in (*STAGE_NAMES, PARTIAL)):
        raise UserError(
            tr("this is not a run: it has no stages"),
            where=folder,
            remedy=tr("Give the folder of a run, such as runs/NAME"),
        )
    for name in STAGE_NAMES:
        try:
            manifest = Manifest.read(folder / name)
        except Damaged as error:
            yield error
            continue
        if manifest is not None:
            yield from damaged_files(folder / name, manifest.files, hashes=True)
        elif (folder / name).exists():
            yield Damaged(tr("file is missing"), where=folder / name / "manifest.json")
    for name in (CHECKSUMS, HASHES, READS):
        if (folder / name).is_file():
            try:
                files = read_sealed(folder / name).get("files", {})
                yield from damaged_files(folder, files, hashes=True)
            except Damaged as error:
                yield error
    yield from _unfinished(folder / PARTIAL / "train")


def _unfinished(train: Path) -> Iterator[Damaged]:
    from tianti.train.checkpoint import list_checkpoints, load_checkpoint
    from tianti.train.trainer import CHECKPOINTS

    for path in list_checkpoints(train / CHECKPOINTS):
        try:
            load_checkpoint(path)
        except Damaged as error:
            yield error
