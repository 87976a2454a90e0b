"""A document on its way through the corpus."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text and where it came from.

    Args:
        text: the text.
        source: label of the source in the recipe.
        origin: file, and line or row where there are several in one file.
        split: the split its source asks for, if any.
    """

    text: str
    source: str
    origin: str
    split: str | None = None


@dataclass(frozen=True)
class BadInput:
    """A file or record that could not be read.

    Args:
        origin: file, and line where known.
        reason: what is wrong with it.
        remedy: what to do about it.
    """

    origin: str
    reason: str
    remedy: str


def cjk_bytes(text: str) -> int:
    """Gives the UTF-8 bytes of a text that are Chinese characters (three each)."""
    return 3 * sum("\u3400" <= character <= "\u9fff" for character in text)


def content_id(text: str) -> str:
    """Gives the identity of a text: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def content_fraction(identity: str) -> float:
    """Gives a number in [0, 1) that depends on the content alone."""
    return int(identity[:13], 16) / 16**13
