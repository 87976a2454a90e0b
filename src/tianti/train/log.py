"""The training log: one JSON object a line, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tianti.errors import os_errors_named


class TrainLog:
    """Appends records to `log.jsonl`.

    Args:
        path: the file.
        keep_bytes: length that belongs to the state training goes on from; the rest is cut off, so
            that each step stands in the log once however often training was interrupted.
    """

    def __init__(self, path: Path, keep_bytes: int):
        self.path = path
        with os_errors_named(path):
            self._file = open(path, "ab")  # noqa: SIM115 -- lives as long as the trainer
            if self._file.tell() > keep_bytes:
                self._file.truncate(keep_bytes)

    def write(self, **record: Any) -> None:
        """Adds a record."""
        with os_errors_named(self.path):
            self._file.write(json.dumps(record).encode() + b"\n")

    def flush(self) -> None:
        """Lets other processes see all records."""
        with os_errors_named(self.path):
            self._file.flush()

    def cut(self, keep_bytes: int) -> None:
        """Forgets the records behind a length."""
        with os_errors_named(self.path):
            self._file.flush()
            self._file.truncate(keep_bytes)

    def sync(self) -> int:
        """Makes all records durable and gives the length of the file."""
        with os_errors_named(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Closes the file."""
        with os_errors_named(self.path):
            self._file.close()


class NoLog(TrainLog):
    """What a rank writes to that is not the first."""

    def __init__(self) -> None:
        pass

    def write(self, **record: Any) -> None:
        """Forgets the record."""

    def flush(self) -> None:
        """Does nothing."""

    def cut(self, keep_bytes: int) -> None:
        """Does nothing."""

    def sync(self) -> int:
        """Gives 0."""
        return 0

    def close(self) -> None:
        """Does nothing."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Gives the records of a log; a torn last line is left out."""
    records = []
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records
