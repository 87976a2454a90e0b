"""A document on its way through the corpus."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.kernels import text_buffers


@dataclass(slots=True)
class Document:
    """A text and where it came from.

    Args:
        text: the text.
        origin: file, and line or row where there are several in one file.
        meta: what else was said of it (address, date, licence, robots …), plain JSON values.
        media: columns carried beside the text, such as images.
        label: its class, where its source has classes.
    """

    text: str
    origin: str
    meta: dict[str, Any] = field(default_factory=dict)
    media: dict[str, Any] | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class BadInput:
    """A file or record that could not be read.

    Args:
        origin: file, and line or record where known.
        reason: what is wrong with it.
        remedy: what to do about it.
        byte: where in the (decompressed) file it begins, where known.
    """

    origin: str
    reason: str
    remedy: str
    byte: int | None = None


def content_id(text: str) -> str:
    """Gives the identity of a text: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def content_ids(texts: pa.Array) -> pa.Array:
    """Gives the identity of each text of a column, without decoding it."""
    data, offsets = text_buffers(texts)
    view, bounds = memoryview(data), offsets.tolist()  # type: ignore[arg-type]
    sha256 = hashlib.sha256
    found = [sha256(view[start:stop]).digest() for start, stop in itertools.pairwise(bounds)]
    halves = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)[:, :16]
    places = np.arange(0, 32 * len(bounds), 32, dtype=np.int32)
    digits = pa.py_buffer(halves.tobytes().hex().encode())
    return pa.StringArray.from_buffers(len(found), pa.py_buffer(places), digits)
