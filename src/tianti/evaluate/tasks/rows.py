"""The items of a task's file as dictionaries."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import orjson

from tianti.corpus.readers.opening import BrokenFile, Piece, open_piece, read_lines
from tianti.errors import UserError, from_os_error
from tianti.messages import tr

Row = dict[str, Any]


def read_rows(path: str, documents: str | None = None) -> list[Row]:
    """Reads JSONL, CSV, TSV, Parquet or plain text, compressed or not, local or remote.

    Args:
        path: the file.
        documents: of plain text, the expression of a line that begins a document; the text is one
            document when not given.

    Raises:
        UserError: it cannot be read; the first line that is wrong is named.
    """
    return [row for _, row in read_numbered_rows(path, documents)]


def read_numbered_rows(path: str, documents: str | None = None) -> list[tuple[int, Row]]:
    """Gives the same, each row with the line it ends on; of Parquet, with its number from 1 on."""
    piece = Piece(path)
    try:
        if ".parquet" in piece.suffixes:
            return _parquet(piece)
        if {".csv", ".tsv"} & set(piece.suffixes):
            return _csv(piece)
        if {".jsonl", ".ndjson", ".json"} & set(piece.suffixes):
            return _jsonl(piece)
        return _plain(piece, documents)
    except OSError as error:
        raise from_os_error(error, path) from error
    except BrokenFile as error:
        raise UserError(error.reason, where=path, remedy=error.remedy) from error
    except UnicodeDecodeError as error:
        raise UserError(
            tr(
                "this is not UTF-8: byte 0x{byte:02x} at {place}",
                byte=error.object[error.start],
                place=error.start,
            ),
            where=path,
            remedy=tr("Convert it to UTF-8 (for example with iconv)"),
        ) from error


def _jsonl(piece: Piece) -> list[tuple[int, Row]]:
    rows = []
    for number, _, line in read_lines(piece):
        if line is None:
            raise UserError(
                tr("this line is too long"),
                where=f"{piece.path}:{number}",
                remedy=tr("Each line must be one JSON object"),
            )
        if not line.strip():
            continue
        try:
            row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except orjson.JSONDecodeError as error:
            raise UserError(
                tr("this line is not JSON ({reason})", reason=error),
                where=f"{piece.path}:{number}",
                remedy=tr("Each line must be one JSON object"),
            ) from error
        if not isinstance(row, dict):
            raise UserError(
                tr("this line is no object"),
                where=f"{piece.path}:{number}",
                remedy=tr("Each line must be one JSON object"),
            )
        rows.append((number, row))
    return rows


def _csv(piece: Piece) -> list[tuple[int, Row]]:
    with open_piece(piece) as stream:
        text = stream.read().decode("utf-8-sig")
    tabs = ".tsv" in piece.suffixes
    # In files with tabs a quote is a character like others.
    form: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    reader = csv.DictReader(io.StringIO(text, newline=""), **form)
    limit = csv.field_size_limit(len(text) + 1)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    tr("this row has another number of fields than the first"),
                    where=f"{piece.path}:{reader.line_num}",
                    remedy=tr("Put fields that hold the separator in quotes"),
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(
            tr("this is no table ({reason})", reason=error),
            where=f"{piece.path}:{reader.line_num}",
            remedy=tr("Write it with a row of names first"),
        ) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _parquet(piece: Piece) -> list[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_piece(piece) as stream:
            rows = pq.read_table(pa.BufferReader(stream.read())).to_pylist()
            return list(enumerate(rows, 1))
    except (pa.ArrowException, ValueError) as error:
        raise UserError(
            tr("this is not a readable Parquet file ({reason})", reason=error),
            where=piece.path,
            remedy=tr("Fetch or write it again"),
        ) from error


def _plain(piece: Piece, documents: str | None) -> list[tuple[int, Row]]:
    with open_piece(piece) as stream:
        text = stream.read().decode("utf-8-sig")
    if documents is None:
        return [(1, {"text": text})] if text.strip() else []
    try:
        begins = [match.start() for match in re.finditer(f"(?m)^(?:{documents})", text)]
    except re.error as error:
        raise UserError(
            tr("this is no regular expression: {reason}", reason=error), where="documents"
        ) from error
    places = [0, *[place for place in begins if place], len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(places)]
    return list(enumerate(({"text": part} for part in parts if part.strip()), 1))


def content_hash(row: Row) -> str:
    """Gives a hash of what an item says, whatever the order of its fields."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def matching(rows: list[Row], where: dict[str, Any]) -> list[Row]:
    """Gives the items that have all these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in where.items())]


def evenly(rows: list[Row], limit: int | None) -> list[Row]:
    """Gives so many items, spread evenly over all."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index * len(rows) // limit] for index in range(limit)]


def resolve(name: str, beside: Path, data: Path | None) -> str:
    """Gives where a task's file lies: a URL, beside the task file, or in the folder of data.

    Raises:
        UserError: in none of these.
    """
    if "://" in name:
        return name
    places = [beside / name, *([data / name] if data is not None else [])]
    for place in places:
        if place.is_file():
            return str(place)
    raise UserError(
        tr("no such file or folder"),
        where=" / ".join(map(str, places)),
        remedy=tr("Name the folder of data with --data or TIANTI_DATA"),
    )
