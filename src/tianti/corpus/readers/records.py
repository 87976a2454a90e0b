"""The lines of JSONL as columns, without a Python object for each of them.

`scan` takes apart the lines it is sure of; the others go the way of `tables.read_jsonl`, which
decides what is a record. Both give the same documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tianti.corpus.batch import Batch, as_json, readable
from tianti.corpus.config import Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.kernels import COMPILED
from tianti.corpus.readers.opening import Piece, read_blocks
from tianti.corpus.readers.scan import BLANK, LOOSE, PLAIN, STEP, UNSURE, scan_lines
from tianti.corpus.readers.tables import BOM, document_of_line, read_jsonl, too_long


def read_columns(piece: Piece, source: Source, rows: int) -> Iterator[Batch | Document | BadInput]:
    """Gives the documents of a JSONL piece as `read_jsonl` does, but many at a time.

    Args:
        piece: what to read.
        source: how to read it.
        rows: lines to look at together.
    """
    own_way = source.label is not None or source.parallel is not None
    if not COMPILED or own_way or not _stands_for_itself(source.text):
        yield from read_jsonl(piece, source)
        return
    head = piece.path if piece.start == 0 else f"{piece.path}@{piece.start}"
    number = 1
    for at, block in read_blocks(piece):
        if block is None:
            yield too_long(f"{head}:{number}", at)
            number += 1
            continue
        start = len(BOM) if number == 1 and bytes(block[: len(BOM)]) == BOM else 0
        while start < len(block):
            lines = _scanned(block, start, source.text, rows)
            yield from _documents(lines, block, source, head, number, at)
            number += len(lines.states)
            start = int(lines.bounds[-1])


def _stands_for_itself(name: str) -> bool:
    """Tells whether JSON holds a name as it is."""
    return json.dumps(name, ensure_ascii=False) == f'"{name}"' and name.isprintable()


class _Lines(NamedTuple):
    """What the scanner found: where lines begin, their states, and bytes of texts and rests."""

    bounds: np.ndarray
    states: np.ndarray
    text: np.ndarray
    text_bounds: np.ndarray
    rest: np.ndarray
    rest_bounds: np.ndarray


def _scanned(block: memoryview, start: int, name: str, rows: int) -> _Lines:
    room = len(block) - start + STEP
    bounds, text_bounds, rest_bounds = (np.zeros(rows + 1, np.int64) for _ in range(3))
    states = np.empty(rows, np.uint8)
    text, rest = np.empty(room, np.uint8), np.empty(room, np.uint8)
    count = scan_lines(
        np.frombuffer(block, np.uint8),
        start,
        np.frombuffer(name.encode(), np.uint8),
        bounds,
        states,
        text,
        text_bounds,
        rest,
        rest_bounds,
    )
    return _Lines(
        bounds[: count + 1],
        states[:count],
        text[: text_bounds[count]],
        text_bounds[: count + 1],
        rest[: rest_bounds[count]],
        rest_bounds[: count + 1],
    )


def _documents(
    lines: _Lines, block: memoryview, source: Source, head: str, number: int, at: int
) -> Iterator[Batch | Document | BadInput]:
    """Gives the documents of scanned lines in order, and what is wrong with any."""
    metas = _metas(lines)
    states = lines.states
    batch = Batch(
        pa.LargeStringArray.from_buffers(
            len(states), pa.py_buffer(lines.text_bounds), pa.py_buffer(lines.text)
        ),
        _origins(head, number, len(states)),
        metas,
        pa.nulls(len(states), pa.string()),
    )
    if (states == PLAIN).all():
        # Nearly always.
        yield batch
        return
    begun = 0
    for line in np.flatnonzero(states != PLAIN).tolist():
        if begun < line:
            yield batch.slice(begun, line)
        begun = line + 1
        if states[line] != BLANK:
            first = number + line
            raw = bytes(block[lines.bounds[line] : lines.bounds[line + 1]]).removesuffix(b"\n")
            start = at + int(lines.bounds[line]) if first > 1 else at
            item = document_of_line(raw, f"{head}:{first}", source, start)
            if item is not None:
                yield item
    if begun < len(states):
        yield batch.slice(begun, len(states))


def _origins(head: str, number: int, count: int) -> pa.Array:
    numbers = pa.array(np.arange(number, number + count)).cast(pa.string())
    return pc.binary_join_element_wise(readable(head), numbers, ":")


def _metas(lines: _Lines) -> pa.Array:
    """Gives the other fields of each line, and marks lines whose bytes the parser refuses."""
    if not (_is_utf8(lines.text) and _is_utf8(lines.rest)):
        for line in np.flatnonzero(lines.states != UNSURE).tolist():
            if not (_is_utf8(_text_of(lines, line)) and _is_utf8(_rest_of(lines, line))):
                lines.states[line] = UNSURE
    loose = np.flatnonzero(lines.states == LOOSE).tolist()
    if not loose and not (lines.states == UNSURE).any():
        return _column(lines)
    metas: list[str | None] = [None] * len(lines.states)
    for line, state in enumerate(lines.states.tolist()):
        rest = _rest_of(lines, line).tobytes()
        if state == PLAIN:
            metas[line] = rest.decode() or None
        elif state == LOOSE:
            try:
                metas[line] = as_json(orjson.loads(rest))
                lines.states[line] = PLAIN
            except orjson.JSONDecodeError:
                lines.states[line] = UNSURE
    return pa.array(metas, pa.string())


def _column(lines: _Lines) -> pa.Array:
    """Gives the other fields as they lie there; null where there are none."""
    there = np.diff(lines.rest_bounds) > 0
    return pa.StringArray.from_buffers(
        len(there),
        pa.py_buffer(lines.rest_bounds.astype(np.int32)),
        pa.py_buffer(lines.rest),
        pa.py_buffer(np.packbits(there, bitorder="little")),
    )


def _text_of(lines: _Lines, line: int) -> np.ndarray:
    return lines.text[lines.text_bounds[line] : lines.text_bounds[line + 1]]


def _rest_of(lines: _Lines, line: int) -> np.ndarray:
    return lines.rest[lines.rest_bounds[line] : lines.rest_bounds[line + 1]]


def _is_utf8(data: np.ndarray) -> bool:
    bounds = pa.py_buffer(np.array([0, len(data)], np.int64))
    whole = pa.LargeStringArray.from_buffers(1, bounds, pa.py_buffer(data))
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
