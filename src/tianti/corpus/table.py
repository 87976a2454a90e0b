"""Documents as Parquet tables, written in pieces and read in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tianti.errors import os_errors_named

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("split", pa.string()),
    ]
)
_BATCH_ROWS = 2048
_BATCH_CHARS = 16_000_000


class DocumentWriter:
    """Writes rows of `SCHEMA` to one Parquet file with memory bounded by a batch."""

    def __init__(self, path: Path):
        self.path = path
        self.rows = 0
        with os_errors_named(path):
            self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._batch: list[dict[str, Any]] = []
        self._chars = 0

    def write(self, row: dict[str, Any]) -> None:
        """Adds one document: the columns of `SCHEMA`."""
        self._batch.append(row)
        self._chars += len(row["text"])
        self.rows += 1
        if len(self._batch) >= _BATCH_ROWS or self._chars >= _BATCH_CHARS:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            with os_errors_named(self.path):
                self._writer.write_table(pa.Table.from_pylist(self._batch, schema=SCHEMA))
            self._batch, self._chars = [], 0

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        with os_errors_named(self.path):
            self._writer.close()


def read_documents(path: Path) -> Iterator[dict[str, Any]]:
    """Gives the rows of a document table in order."""
    with os_errors_named(path):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            yield from batch.to_pylist()


def read_texts(path: Path) -> Iterator[str]:
    """Gives the texts of a document table in order."""
    with os_errors_named(path):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256, columns=["text"]):
            yield from batch.column(0).to_pylist()


def count_documents(path: Path) -> int:
    """Gives the number of rows of a document table."""
    with os_errors_named(path):
        return pq.ParquetFile(path).metadata.num_rows
