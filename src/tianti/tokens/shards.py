"""Token shards: documents as memory-mapped integers with an index and checksums.

A split is a folder:

| file             | content                                                           |
|------------------|-------------------------------------------------------------------|
| `index.json`     | type, totals, and name, size and SHA-256 of every other file      |
| `00000.tokens`   | little-endian ids; each document is followed by end-of-text       |
| `lengths.i64`    | tokens of each document, its end-of-text included                 |
| `bytes.i64`      | UTF-8 bytes of each document                                      |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tianti.errors import Damaged, os_errors_named
from tianti.files import check_files, describe_files, read_json, write_array, write_json
from tianti.messages import tr

INDEX = "index.json"
SHARD_TOKENS = 1 << 26
# A shard is written in pieces of so many.
_TOKENS_HELD = 1 << 22
# Beside each shard until its split is concluded.
_LENGTHS, _SIZES = ".lengths", ".bytes"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Gives the smallest unsigned type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_shard(
    folder: Path,
    number: int,
    documents: Iterable[tuple[Sequence[int] | np.ndarray, int]],
    *,
    vocab_size: int,
    end_of_text: int,
) -> dict[str, int]:
    """Writes documents as one shard of a split, with its lengths and sizes beside it.

    Args:
        folder: the split.
        number: place of the shard among those of its split.
        documents: ids and number of UTF-8 bytes of each document.
        vocab_size: bound of the ids.
        end_of_text: the id written after each document.

    Returns:
        `documents`, `tokens` (end-of-text included) and `bytes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = token_dtype(vocab_size)
    pieces: list[np.ndarray] = []
    lengths, sizes = [], []
    held = 0
    end = np.array([end_of_text], dtype)
    path = folder / f"{number:05d}.tokens"
    with os_errors_named(path), open(path, "wb") as file:
        for ids, num_bytes in documents:
            pieces += (np.asarray(ids, dtype), end)
            lengths.append(len(ids) + 1)
            sizes.append(num_bytes)
            held += len(ids) + 1
            if held >= _TOKENS_HELD:
                file.write(np.concatenate(pieces).tobytes())
                pieces, held = [], 0
        if pieces:
            file.write(np.concatenate(pieces).tobytes())
    write_array(folder / f"{number:05d}{_LENGTHS}", np.asarray(lengths, "<i8"))
    write_array(folder / f"{number:05d}{_SIZES}", np.asarray(sizes, "<i8"))
    return {"documents": len(lengths), "tokens": sum(lengths), "bytes": sum(sizes)}


def conclude_split(folder: Path, *, vocab_size: int, end_of_text: int) -> dict[str, int]:
    """Makes the shards in a folder a split: one list of lengths and sizes, and the index.

    Returns:
        Totals: `documents`, `tokens` (end-of-text included) and `bytes`.
    """
    arrays = {}
    for ending, name in ((_LENGTHS, "lengths.i64"), (_SIZES, "bytes.i64")):
        paths = sorted(folder.glob(f"[0-9]*{ending}"))
        found = [np.fromfile(path, "<i8") for path in paths]
        arrays[name] = np.concatenate([np.empty(0, "<i8"), *found])
        write_array(folder / name, arrays[name])
        for path in paths:
            path.unlink()
    lengths, sizes = arrays["lengths.i64"], arrays["bytes.i64"]
    totals = {
        "documents": len(lengths),
        "tokens": int(lengths.sum()),
        "bytes": int(sizes.sum()),
    }
    write_json(
        folder / INDEX,
        {
            "format": 1,
            "dtype": token_dtype(vocab_size).str,
            "vocab_size": vocab_size,
            "end_of_text": end_of_text,
            **totals,
            "files": describe_files(folder, skip=(INDEX,)),
        },
    )
    return totals


def write_shards(
    folder: Path,
    documents: Iterable[tuple[Sequence[int] | np.ndarray, int]],
    *,
    vocab_size: int,
    end_of_text: int,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, int]:
    """Writes documents as a split, in shards that are closed once they hold `shard_tokens`.

    Args:
        folder: where to; must not hold a split yet.
        documents: ids and number of UTF-8 bytes of each document.
        vocab_size: bound of the ids.
        end_of_text: the id written after each document.
        shard_tokens: tokens to a shard.

    Returns:
        Totals: `documents`, `tokens` (end-of-text included) and `bytes`.
    """
    buffer: list[tuple[Sequence[int] | np.ndarray, int]] = []
    buffered = number = 0
    for ids, num_bytes in documents:
        buffer.append((ids, num_bytes))
        buffered += len(ids) + 1
        if buffered >= shard_tokens:
            write_shard(folder, number, buffer, vocab_size=vocab_size, end_of_text=end_of_text)
            buffer, buffered, number = [], 0, number + 1
    if buffer or not number:
        write_shard(folder, number, buffer, vocab_size=vocab_size, end_of_text=end_of_text)
    return conclude_split(folder, vocab_size=vocab_size, end_of_text=end_of_text)


@dataclass(frozen=True)
class TokenSplit:
    """A split of token shards, read through memory maps."""

    folder: Path
    index: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> TokenSplit:
        """Opens a split; sizes are always checked, checksums on request.

        Raises:
            Damaged: a file is missing, torn or altered.
        """
        index = read_json(folder / INDEX)
        if not isinstance(index, dict) or "files" not in index:
            raise Damaged(tr("file is damaged (not a token index)"), where=folder / INDEX)
        check_files(folder, index["files"], hashes=verify)
        return cls(folder, index)

    @property
    def num_tokens(self) -> int:
        """Gives the number of tokens, end-of-text included."""
        return self.index["tokens"]

    @property
    def num_documents(self) -> int:
        """Gives the number of documents."""
        return self.index["documents"]

    @cached_property
    def document_lengths(self) -> np.ndarray:
        """Gives the tokens of each document, its end-of-text included, int64."""
        return np.fromfile(self.folder / "lengths.i64", dtype="<i8")

    @cached_property
    def document_bytes(self) -> np.ndarray:
        """Gives the UTF-8 bytes of each document, int64."""
        return np.fromfile(self.folder / "bytes.i64", dtype="<i8")

    @cached_property
    def document_starts(self) -> np.ndarray:
        """Gives where each document begins in the stream of all tokens, int64."""
        return np.concatenate([[0], np.cumsum(self.document_lengths)[:-1]]).astype(np.int64)

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        names = sorted(name for name in self.index["files"] if name.endswith(".tokens"))
        return [
            np.memmap(self.folder / name, dtype=self.index["dtype"], mode="r")
            for name in names
            if self.index["files"][name]["bytes"]
        ]

    @cached_property
    def _bounds(self) -> np.ndarray:
        return np.cumsum([0, *(len(array) for array in self._maps)])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Gives tokens `[start, stop)` of the stream of all documents, int64."""
        pieces = []
        while start < stop:
            shard = int(np.searchsorted(self._bounds, start, side="right")) - 1
            end = min(stop, int(self._bounds[shard + 1]))
            offset = int(self._bounds[shard])
            pieces.append(self._maps[shard][start - offset : end - offset])
            start = end
        return np.concatenate(pieces or [np.empty(0)]).astype(np.int64)

    def document(self, number: int) -> np.ndarray:
        """Gives the tokens of one document without its end-of-text, int64."""
        start = int(self.document_starts[number])
        return self.read(start, start + int(self.document_lengths[number]) - 1)
