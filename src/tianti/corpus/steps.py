"""What each step of preparing documents took: time, and bytes before and after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

Row = dict[str, float]


class Steps:
    """Adds up time and bytes by step, in the order in which steps were first taken."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[Row]:
        """Adds the seconds that the block takes to a step; gives the row of that step."""
        row = self.rows.setdefault(name, {"seconds": 0.0})
        begun = time.perf_counter()
        try:
            yield row
        finally:
            row["seconds"] += time.perf_counter() - begun

    def changed(self, name: str, before: int, after: int) -> None:
        """Adds the bytes of text that came into a step and went out of it."""
        row = self.rows.setdefault(name, {"seconds": 0.0})
        row["bytes_in"] = row.get("bytes_in", 0) + before
        row["bytes_out"] = row.get("bytes_out", 0) + after


def text_bytes_of(column: pa.Array) -> int:
    """Gives the UTF-8 bytes of a column of texts."""
    from tianti.corpus.kernels import text_buffers

    _, offsets = text_buffers(column)
    return int(offsets[-1] - offsets[0])


def added_up(parts: list[dict[str, Row]]) -> dict[str, dict[str, Any]]:
    """Adds up the rows of several groups; seconds to the millisecond."""
    total: dict[str, Row] = {}
    for rows in parts:
        for name, row in rows.items():
            into = total.setdefault(name, {})
            for key, value in row.items():
                into[key] = into.get(key, 0) + value
    return {
        name: {
            key: round(value, 3) if key == "seconds" else int(value) for key, value in row.items()
        }
        for name, row in total.items()
    }
