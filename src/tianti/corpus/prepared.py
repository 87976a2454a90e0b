"""Prepared documents: Arrow files that are read where they lie, gone once the corpus is written.

Parquet would have to be decoded for each look at a column; these are mapped into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tianti.errors import os_errors_named


def prepared_path(folder: Path, name: str) -> Path:
    """Gives the file of a group of documents."""
    return folder / f"{name}.arrow"


def read_tables(path: Path) -> Iterator[pa.Table]:
    """Gives the documents of a group in the batches in which they were written."""
    with os_errors_named(path), pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])


def read_schema(path: Path) -> pa.Schema:
    """Gives the columns of a group."""
    with os_errors_named(path), pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).schema


def read_columns(path: Path, names: list[str]) -> pa.Table:
    """Gives some columns of a group, out of the file, so that nothing keeps it in memory."""
    with os_errors_named(path), pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        batches = [
            reader.get_batch(number).select(names) for number in range(reader.num_record_batches)
        ]
        wanted = pa.schema([reader.schema.field(name) for name in names])
        if not batches:
            return wanted.empty_table()
        columns = [pa.concat_arrays([batch[name] for batch in batches]) for name in names]
        return pa.table(columns, schema=wanted)
