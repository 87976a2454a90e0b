"""One part of a document table → one token shard: the unit of work of the tokens stage."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.kernels import text_buffers
from tianti.corpus.table import read_batches
from tianti.errors import Damaged
from tianti.files import file_stamp, read_json, write_json
from tianti.tokens.shards import token_dtype, write_shard
from tianti.tokens.tokenizer import Tokenizer

FUNCTION = "tianti.tokens.encode:encode_part"


def part_task(part: Path, tokenizer: Path, folder: Path, number: int) -> dict[str, Any]:
    """Gives the task of a part: its file, the tokenizer's folder, the split and the shard."""
    return {
        "name": f"{folder.name}/{part.name}",
        "part": str(part),
        "tokenizer": str(tokenizer),
        "folder": str(folder),
        "number": number,
    }


def is_done(task: dict[str, Any]) -> bool:
    """Tells whether the shard of a task is there, whole."""
    folder, number = Path(task["folder"]), task["number"]
    try:
        sizes = read_json(_mark(folder, number))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (Damaged, OSError, KeyError, TypeError, AttributeError):
        return False


def encode_part(task: dict[str, Any]) -> dict[str, int]:
    """Writes the shard of one part.

    Returns:
        `documents`, `tokens` and `bytes`.
    """
    folder = Path(task["tokenizer"])
    tokenizer = _tokenizer(folder, file_stamp(folder / "tokenizer.json"))
    folder, number = Path(task["folder"]), task["number"]
    totals = write_shard(
        folder,
        number,
        _encoded(tokenizer, Path(task["part"])),
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
    )
    files = {path.name: path.stat().st_size for path in folder.glob(f"{number:05d}.*")}
    write_json(_mark(folder, number), {"files": files})
    return totals


def _mark(folder: Path, number: int) -> Path:
    return folder.with_name(f".{folder.name}-{number:05d}.json")


def remove_marks(folder: Path) -> None:
    """Removes what says which shards of a split are done, once the split is concluded."""
    for path in folder.parent.glob(f".{folder.name}-*.json"):
        path.unlink()


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path, stamp: tuple[int, int]) -> Tokenizer:
    return Tokenizer.load(folder)


def _encoded(tokenizer: Tokenizer, part: Path) -> Iterator[tuple[np.ndarray, int]]:
    dtype = token_dtype(tokenizer.vocab_size)
    for batch in read_batches(part, ["text"]):
        texts: pa.Array = batch.column(0)
        _, offsets = text_buffers(texts)
        sizes = np.diff(offsets).tolist()
        for text, size in zip(texts.to_pylist(), sizes, strict=True):
            yield tokenizer.encode_array(text).astype(dtype), size
