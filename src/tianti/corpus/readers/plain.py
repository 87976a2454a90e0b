"""Text, Markdown and source code: a file is a document, or several."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tianti.corpus.config import Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.readers.opening import Piece, open_piece
from tianti.messages import tr

# A longer file is several documents, cut between paragraphs: memory stays bounded.
_MAX_TEXT_BYTES = 16 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PARAGRAPH = re.compile(rb"\n[ \t]*\n")
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING", "COPYING.txt")
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([\w.+-]+)")
_LICENCES = (
    ("Apache-2.0", "apache license"),
    ("MIT", "permission is hereby granted, free of charge"),
    ("BSD-3-Clause", "neither the name of"),
    ("BSD-2-Clause", "redistribution and use in source and binary forms"),
    ("AGPL-3.0", "gnu affero general public license"),
    ("LGPL-3.0", "gnu lesser general public license"),
    ("GPL-3.0", "gnu general public license"),
    ("MPL-2.0", "mozilla public license"),
    ("ISC", "permission to use, copy, modify, and/or distribute"),
    ("Unlicense", "this is free and unencumbered software"),
)


def read_text(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives the documents of a text file."""
    try:
        yield from _documents(piece, source)
    except UnicodeDecodeError as error:
        yield bad_encoding(piece.path, error)


def _documents(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    number = 0
    for part, start in _parts(piece):
        origin = piece.path if start == 0 else f"{piece.path}@{start}"
        try:
            text = decode(part)
        except UnicodeDecodeError as error:
            yield bad_encoding(origin, error, start)
            continue
        if source.separator is None:
            yield Document(text, origin)
            continue
        cuts = [match.start() for match in re.finditer(source.separator, text)]
        for left, right in pairwise([0, *(cut for cut in cuts if cut), len(text)]):
            yield Document(text[left:right], f"{piece.path}#{number}")
            number += 1


def read_code(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives a file of source code, if its licence is among those asked for."""
    for item in read_text(piece, source):
        if isinstance(item, Document):
            item.meta["language"] = Path(piece.path).suffix.lstrip(".")
            licence = _licence(item.text, Path(piece.path))
            if licence:
                item.meta["licence"] = licence
            if source.licences is not None and licence not in source.licences:
                yield BadInput(
                    item.origin,
                    tr("its licence is {licence}", licence=licence or tr("unknown")),
                    tr("Add the licence to the licences of the source, if it may be used"),
                )
                continue
        yield item


def decode(data: bytes) -> str:
    """Gives the text of bytes in UTF-8, or in GB18030 that is plainly Chinese.

    Raises:
        UnicodeDecodeError: they are none of these; the error is that of UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if _looks_gb18030(data):
            return data.decode("gb18030")
        raise


def encoding_of(sample: bytes) -> str:
    """Gives the encoding of a file that begins like this, as `decode` would read it.

    Spreadsheets write UTF-16, and in China GB18030.
    """
    if sample.startswith(_UTF16):
        return "utf-16"
    # A character may be cut at the end.
    whole = sample[: sample.rfind(b"\n") + 1] or sample
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError:
        return "gb18030" if _looks_gb18030(whole) else "utf-8-sig"
    return "utf-8-sig"


def _looks_gb18030(data: bytes) -> bool:
    """Tells whether nearly all two-byte characters are common ones of GB 2312, and decode."""
    sample = data[: 1 << 16]
    pairs = common = at = 0
    while at + 1 < len(sample):
        if sample[at] < 0x80:
            at += 1
            continue
        lead, trail = sample[at], sample[at + 1]
        pairs += 1
        common += trail >= 0xA1 and (0xB0 <= lead <= 0xD7 or 0xA1 <= lead <= 0xA9)
        at += 2
    if pairs < 4 or common < 0.9 * pairs:
        return False
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    return True


def bad_encoding(origin: str, error: UnicodeDecodeError, start: int = 0) -> BadInput:
    """Gives what is wrong with bytes that are not UTF-8."""
    return BadInput(
        origin,
        tr(
            "this is not UTF-8: byte 0x{byte:02x} at {place}",
            byte=error.object[error.start],
            place=start + error.start,
        ),
        tr("Convert it to UTF-8 (for example with iconv)"),
        start + error.start,
    )


def _parts(piece: Piece) -> Iterator[tuple[bytes, int]]:
    """Gives a file in parts of bounded size, cut between paragraphs, with where each begins.

    UTF-16 becomes UTF-8 here: only the first part of a file has the mark, and a byte is no place to
    cut it.

    Raises:
        UnicodeDecodeError: what has the mark of UTF-16 is not.
    """
    rest, start = b"", 0
    recode: codecs.IncrementalDecoder | None = None
    with open_piece(piece) as stream:
        while block := stream.read(_MAX_TEXT_BYTES):
            if not rest and start == 0 and block.startswith(_UTF16):
                recode = codecs.getincrementaldecoder("utf-16")()
            rest += block if recode is None else recode.decode(block).encode()
            if len(rest) < 2 * _MAX_TEXT_BYTES:
                continue
            cut = _last_break(rest)
            yield rest[:cut], start
            rest, start = rest[cut:], start + cut
    if recode is not None:
        recode.decode(b"", final=True)
    if rest or start == 0:
        yield rest, start


def _last_break(data: bytes) -> int:
    """Gives where to cut: after a paragraph, a line or, failing these, a whole character."""
    window = data[_MAX_TEXT_BYTES:]
    if breaks := list(_PARAGRAPH.finditer(window)):
        return _MAX_TEXT_BYTES + breaks[-1].end()
    if (line := window.rfind(b"\n")) >= 0:
        return _MAX_TEXT_BYTES + line + 1
    cut = len(data)
    while cut > len(data) - 4 and data[cut - 1] & 0xC0 == 0x80:
        cut -= 1
    return cut - 1 if data[cut - 1] >= 0xC0 else len(data)


def _licence(text: str, path: Path) -> str | None:
    """Gives the SPDX name of a file's licence: its own, else that of the nearest licence file."""
    if found := _SPDX.search(text[:4000]):
        return found[1]
    if (name := _licence_of_text(text[:4000])) is not None:
        return name
    for folder in path.parents:
        for candidate in _LICENCE_FILES:
            if (folder / candidate).is_file():
                return _licence_of_text((folder / candidate).read_text("utf-8", "replace")[:20_000])
        if (folder / ".git").exists():
            break
    return None


def _licence_of_text(text: str) -> str | None:
    flat = " ".join(text.lower().split())
    return next((name for name, phrase in _LICENCES if phrase in flat), None)
