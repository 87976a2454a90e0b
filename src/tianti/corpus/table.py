"""Documents as Parquet tables, written in pieces and read in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tianti.corpus.batch import Batch, different_kinds
from tianti.corpus.kernels import text_buffers
from tianti.corpus.prepared import read_tables
from tianti.errors import os_errors_named

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("split", pa.string()),
        ("label", pa.string()),
        ("language", pa.string()),
        ("meta", pa.string()),
        ("augmented", pa.string()),
    ]
)


def columns_of(batch: Batch, source: str, split: str | None) -> dict[str, Any]:
    """Gives the columns of a batch of documents, text and id left out."""
    count = len(batch)
    return {
        "source": pa.repeat(pa.scalar(source, pa.string()), count),
        "origin": batch.origins,
        "split": pa.repeat(pa.scalar(split, pa.string()), count),
        "label": batch.labels,
        "meta": batch.metas,
        **batch.media,
    }


def _compression_of(schema: pa.Schema) -> dict[str, str]:
    """Gives what each column is packed with: media are packed already."""
    known = set(SCHEMA.names)
    return {
        field.name: "zstd" if field.name in known or not _is_media(field.type) else "none"
        for field in schema
    }


def _is_media(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


class TableWriter:
    """Writes tables to one file; columns may come, or get wider, after the first table.

    Args:
        path: the file.
        mapped: write Arrow's own layout (`prepared.py` reads it), not Parquet.
    """

    def __init__(self, path: Path, *, mapped: bool = False):
        self.path = path
        self.rows = 0
        self._mapped = mapped
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Adds a table, as one row group.

        Raises:
            UserError: it holds other kinds of values in a column than the tables before.
        """
        with os_errors_named(self.path):
            if self._schema is None:
                self._open(table.schema)
            elif table.schema != self._schema:
                schema = self._common_schema(table.schema)
                if schema != self._schema:
                    self._rewrite(schema)
                table = _fitted(table, schema)
            self._writer.write_table(table)
        self.rows += table.num_rows

    def _open(self, schema: pa.Schema) -> None:
        self._schema = schema
        if self._mapped:
            self._writer = pa.ipc.new_file(str(self.path), schema)
            return
        self._writer = pq.ParquetWriter(
            self.path,
            schema,
            compression=_compression_of(schema),
            # Of texts and hashes no two are alike: a dictionary would only cost.
            use_dictionary=["source", "split", "label", "language"],
            write_statistics=False,
        )

    def _common_schema(self, other: pa.Schema) -> pa.Schema:
        assert self._schema is not None
        try:
            return pa.unify_schemas([self._schema, other], promote_options="permissive")
        except pa.ArrowException as error:
            raise different_kinds(error, self.path) from error

    def _rewrite(self, schema: pa.Schema) -> None:
        """Gives what is written already the columns of what comes."""
        self._writer.close()
        before = self.path.with_name(f"{self.path.name}.before")
        os.replace(self.path, before)
        self._open(schema)
        if self._mapped:
            for table in read_tables(before):
                self._writer.write_table(_fitted(table, schema))
        else:
            with pq.ParquetFile(before) as file:
                for group in range(file.num_row_groups):
                    self._writer.write_table(_fitted(file.read_row_group(group), schema))
        before.unlink()

    def close(self) -> None:
        """Finishes the file."""
        if self._writer is not None:
            with os_errors_named(self.path):
                self._writer.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Gives a table the columns of a schema: nulls for those it lacks."""
    return pa.table(
        [
            table[field.name].cast(field.type)
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in schema
        ],
        schema=schema,
    )


def parts(path: Path) -> list[Path]:
    """Gives the files of a document table: those of a folder in order, or the one file."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Gives the rows of a document table in order, some hundred at a time."""
    for part in parts(path):
        with os_errors_named(part):
            yield from pq.ParquetFile(part).iter_batches(batch_size=256, columns=columns)


def read_documents(path: Path) -> Iterator[dict[str, Any]]:
    """Gives the rows of a document table in order."""
    for batch in read_batches(path):
        yield from batch.to_pylist()


def read_texts(path: Path) -> Iterator[str]:
    """Gives the texts of a document table in order."""
    for batch in read_batches(path, ["text"]):
        yield from batch.column(0).to_pylist()


def document_bytes(path: Path) -> np.ndarray:
    """Gives the UTF-8 bytes of each text of a document table, int64."""
    sizes = [np.diff(text_buffers(batch.column(0))[1]) for batch in read_batches(path, ["text"])]
    return np.concatenate([np.zeros(0, np.int64), *sizes])


def count_documents(path: Path) -> int:
    """Gives the number of rows of a document table."""
    count = 0
    for part in parts(path):
        with os_errors_named(part):
            count += pq.ParquetFile(part).metadata.num_rows
    return count


def text_bytes(path: Path) -> int:
    """Gives about how many bytes of text a document table holds, from its heads alone."""
    total = 0
    for part in parts(path):
        with os_errors_named(part):
            metadata = pq.ParquetFile(part).metadata
        total += sum(
            metadata.row_group(group).column(column).total_uncompressed_size
            for group in range(metadata.num_row_groups)
            for column in range(metadata.num_columns)
            if metadata.schema.column(column).name == "text"
        )
    return total
