"""Compiled loops over the bytes of many documents at once.

A kernel takes Arrow's own layout: `data`, the UTF-8 bytes of all texts one after another (uint8),
and `offsets` (int64, one more than there are texts). `TIANTI_KERNELS=python` runs the same source
without numba: much slower, the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

COMPILED = os.environ.get("TIANTI_KERNELS", "numba") != "python"


def _forget_stale_kernels() -> None:
    """Removes compiled kernels where the source of any has changed since.

    numba looks at a kernel's own file only; one that calls a kernel of another file would go on
    with the old one.
    """
    root = Path(__file__).parents[1]
    folders = [root / name for name in ("corpus", "corpus/readers", "tokens")]
    sources = [source for folder in folders for source in sorted(folder.glob("*.py"))]
    state = str([(source.name, source.stat().st_mtime_ns) for source in sources])
    stamp = root / "corpus" / "__pycache__" / "kernels.stamp"
    with contextlib.suppress(OSError):
        if stamp.is_file() and stamp.read_text() == state:
            return
        for folder in folders:
            for path in (folder / "__pycache__").glob("*.nb[ic]"):
                path.unlink(missing_ok=True)
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(state)


if COMPILED:
    _forget_stale_kernels()


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function with numba, or leaves it to the interpreter.

    Compiled code is cached beside the source, so only the first process ever pays for it, and lets
    go of the interpreter's lock.
    """
    if COMPILED:
        import numba

        compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
        _cache_only_where_there_is_room(compiled)
        return compiled
    return _wrapping(function)


def _cache_only_where_there_is_room(compiled: Any) -> None:
    """Lets a kernel be used that cannot be cached, on a full disk for example."""
    cache = compiled._cache
    save = cache.save_overload

    def save_or_not(*arguments: Any) -> None:
        with contextlib.suppress(OSError):
            save(*arguments)

    cache.save_overload = save_or_not


def _wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets 64-bit products wrap around silently, as they do in compiled code."""

    def call(*arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*arguments)

    return call


def text_buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the bytes and offsets of a column of texts without copying them.

    Args:
        texts: strings without nulls, of either offset width.
    """
    if isinstance(texts, pa.ChunkedArray):
        # Even one chunk would be copied.
        texts = texts.chunk(0) if texts.num_chunks == 1 else texts.combine_chunks()
    texts = texts.cast(pa.large_string())
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", np.uint8), bounds


@kernel
def mix(value: Any) -> Any:
    """Spreads the bits of a 64-bit number (finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def spread(values: np.ndarray) -> np.ndarray:
    """Spreads the bits of 64-bit numbers."""
    out = np.empty(len(values), np.uint64)
    for index in range(len(values)):
        out[index] = mix(values[index] + np.uint64(0x9E3779B97F4A7C15))
    return out


@kernel
def code_point(data: np.ndarray, at: int) -> int:
    """Gives the code point whose UTF-8 bytes begin at `at`."""
    first = int(data[at])
    if first < 0x80:
        return first
    if first < 0xE0:
        return (first & 0x1F) << 6 | (int(data[at + 1]) & 0x3F)
    if first < 0xF0:
        return (first & 0x0F) << 12 | (int(data[at + 1]) & 0x3F) << 6 | (int(data[at + 2]) & 0x3F)
    return (
        (first & 0x07) << 18
        | (int(data[at + 1]) & 0x3F) << 12
        | (int(data[at + 2]) & 0x3F) << 6
        | (int(data[at + 3]) & 0x3F)
    )


@kernel
def width(first: int) -> int:
    """Gives how many bytes a character has that begins with this byte."""
    if first < 0x80:
        return 1
    if first < 0xE0:
        return 2
    return 3 if first < 0xF0 else 4


@kernel
def is_cjk(point: int) -> bool:
    """Tells whether a character is a word by itself: Chinese characters and kana."""
    return (
        0x3400 <= point <= 0x4DBF
        or 0x4E00 <= point <= 0x9FFF
        or 0x3040 <= point <= 0x30FF
        or 0xF900 <= point <= 0xFAFF
        or 0x20000 <= point <= 0x3FFFF
    )


@kernel
def is_separator(point: int) -> bool:
    """Tells whether a character stands between words: blanks, punctuation and symbols."""
    if point < 0x80:
        return not (0x30 <= point <= 0x39 or 0x41 <= point <= 0x5A or 0x61 <= point <= 0x7A)
    if point < 0xC0:
        return point not in (0xAA, 0xB5, 0xBA)
    return (
        point in (0xD7, 0xF7)
        or 0x2000 <= point <= 0x206F
        or 0x2190 <= point <= 0x2BFF
        or 0x2E00 <= point <= 0x2E7F
        or 0x3000 <= point <= 0x3004
        or 0x3008 <= point <= 0x3020
        or point == 0x3030
        or 0xFE30 <= point <= 0xFE6F
        or 0xFF00 <= point <= 0xFF0F
        or 0xFF1A <= point <= 0xFF20
        or 0xFF3B <= point <= 0xFF40
        or 0xFF5B <= point <= 0xFF65
        or 0xFFE0 <= point <= 0xFFFF
    )
