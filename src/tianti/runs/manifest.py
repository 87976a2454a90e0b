"""The manifest of a stage: what made it, from what, and what every file must be."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tianti.errors import Damaged
from tianti.files import MANIFEST, check_files, describe_files, read_sealed, write_sealed
from tianti.messages import tr

# Stands in an unfinished folder and says what it is going to be.
MARK = "fingerprint.json"


@dataclass(frozen=True)
class Manifest:
    """What is known about a finished stage; on disk `manifest.json` in its folder.

    `test_reads` is how often the run had read this test split when the stage ended; 0 where the
    stage does not read it.
    """

    stage: str
    fingerprint: str
    version: int
    config: Any
    inputs: dict[str, str]
    metrics: dict[str, Any]
    seed: int
    started: str
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    test_reads: int = 0

    def write(self, folder: Path) -> None:
        """Writes the manifest into a folder, with sizes and checksums of all files there."""
        files = describe_files(folder, skip=(MANIFEST, MARK))
        write_sealed(folder / MANIFEST, asdict(self) | {"files": files})

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Gives the manifest of a stage folder; None where the stage was never finished.

        Raises:
            Damaged: the manifest is torn or altered.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            return cls(**read_sealed(path))
        except TypeError as error:
            raise Damaged(tr("file is damaged (not a manifest)"), where=path) from error

    def check(self, folder: Path, *, hashes: bool) -> None:
        """Compares the files of the stage with the manifest.

        Raises:
            Damaged: a file is missing, torn or, with `hashes`, altered.
        """
        check_files(folder, self.files, hashes=hashes)


def is_outdated(run: Path) -> bool:
    """Tells whether the run's model was made from another training than the one that lies there."""
    model, train = Manifest.read(run / "model"), Manifest.read(run / "train")
    return (
        model is not None
        and train is not None
        and model.inputs.get("train") not in (None, train.fingerprint)
    )


def library_versions() -> dict[str, str]:
    """Gives the versions of what computes, without importing it."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("tianti", "torch", "numpy", "tokenizers", "pyarrow", "safetensors"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def peak_memory_bytes() -> int:
    """Gives the largest resident memory of this process so far; 0 where it is not told."""
    if os.name == "nt":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
