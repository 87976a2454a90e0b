"""Records: JSONL, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

from tianti.corpus.config import Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.readers.opening import MAX_RECORD_BYTES, Piece, open_piece, read_lines
from tianti.corpus.readers.plain import bad_encoding, encoding_of
from tianti.messages import tr

BOM = b"\xef\xbb\xbf"
MEDIA = ("image", "images", "audio", "video")
_MAX_HEAD_CHARS = 1 << 20
_SAMPLE_BYTES = 1 << 16
_ABSENT = object()


def read_jsonl(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives a document for each line; a bad line is named and the next one read."""
    head = piece.path if piece.start == 0 else f"{piece.path}@{piece.start}"
    for number, start, line in read_lines(piece):
        origin = f"{head}:{number}"
        if line is None:
            yield too_long(origin, start)
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        item = document_of_line(line, origin, source, start)
        if item is not None:
            yield item


def document_of_line(
    line: bytes, origin: str, source: Source, start: int
) -> Document | BadInput | None:
    """Gives the document of a line of JSONL, or what is wrong with it; None where it is blank."""
    if not line or line.isspace():
        return None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = _load_slowly(line, origin, start)
        if isinstance(record, BadInput):
            return record
    return document_of_record(record, origin, source, start)


def _load_slowly(line: bytes, origin: str, start: int) -> Any:
    """Gives the record of a line that the strict parser refused, or what is wrong with it.

    NaN is let through and lone surrogates become U+FFFD: Python writes both.
    """
    try:
        text = json.dumps(json.loads(line.decode("utf-8")), ensure_ascii=False)
        return json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    except UnicodeDecodeError as error:
        return bad_encoding(origin, error, start)
    except (ValueError, RecursionError) as error:
        return BadInput(
            origin,
            tr("this line is not JSON ({reason})", reason=error),
            tr("Each line must be one JSON object"),
            start,
        )


def too_long(origin: str, start: int) -> BadInput:
    """Gives what is wrong with a line that no record should be."""
    return BadInput(
        origin,
        tr("this line is longer than {limit} MiB", limit=MAX_RECORD_BYTES >> 20),
        tr("Each line must be one JSON object"),
        start,
    )


def document_of_record(
    record: Any, origin: str, source: Source, start: int | None = None
) -> Document | BadInput:
    """Gives the document of a record; its other fields become what is said of it."""
    if source.parallel is not None:
        return _parallel_document(record, origin, source, start)
    name = source.text
    # Most records hold their text under its own name.
    value = record.get(name) if type(record) is dict else None
    if type(value) is not str:
        value = _field(record, name)
    if isinstance(value, str):
        label = _label_of(record, source)
        if len(record) > 1:
            # The text is not said twice: what is private in it would stay in the other place.
            record = _without(record, name)
            return Document(value, origin, record, label=label)
        return Document(value, origin, label=label)
    return _no_text(record, name, value, origin, start)


def _label_of(record: dict[str, Any], source: Source) -> str | None:
    if source.label is None:
        return None
    found = _field(record, source.label)
    return None if found is _ABSENT or found is None else str(found)


def _parallel_document(
    record: Any, origin: str, source: Source, start: int | None
) -> Document | BadInput:
    """Gives a document of texts that say the same, a line each."""
    assert source.parallel is not None
    texts: list[str] = []
    for name in source.parallel:
        value = _field(record, name)
        if not isinstance(value, str) or not value.strip():
            return _no_text(record, name, value, origin, start)
        texts.append(" ".join(value.split()))
    # Each language comes first alike often, and in the same records whenever they are read.
    turn = zlib.crc32("\n".join(texts).encode("utf-8", "replace")) % len(texts)
    text = "\n".join(texts[turn:] + texts[:turn])
    label = _label_of(record, source)
    for name in source.parallel:
        record = _without(record, name)
    return Document(text, origin, record, label=label)


def _no_text(record: Any, field: str, value: Any, origin: str, start: int | None) -> BadInput:
    names = type(record).__name__
    if isinstance(record, dict):
        names = ", ".join(str(name)[:40] for name in list(record)[:8])
    if value is not _ABSENT and value is not None:
        names = f"{field}: {type(value).__name__}"
    return BadInput(
        origin,
        tr(
            "there is no text in the field {field!r} (found: {names})",
            field=field,
            names=names,
        ),
        tr(
            "Name the field that holds the text: corpus.sources.N.text in a recipe,"
            " --field on the command line"
        ),
        start,
    )


def _without(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Gives a record without a field, told by its name or its dotted path."""
    if name in record or "." not in name:
        return {key: value for key, value in record.items() if key != name}
    first, rest = name.split(".", 1)
    return record | {first: _without(record[first], rest)}


def _field(record: Any, name: str) -> Any:
    """Gives a field by its name or, where there is none such, by its dotted path."""
    if not isinstance(record, dict):
        return _ABSENT
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def read_csv(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives a document for each row of a table with a head line; commas, semicolons or tabs."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    with open_piece(piece) as stream:
        encoding = encoding_of(stream.read(_SAMPLE_BYTES))
    with open_piece(piece) as stream:
        # Bytes that are none pass as halves of surrogate pairs, so that their row is told.
        wrapped = io.TextIOWrapper(stream, encoding, "surrogateescape", newline="")
        lines = iter(lambda: wrapped.readline(MAX_RECORD_BYTES), "")
        head = wrapped.readline(_MAX_HEAD_CHARS)
        delimiter = max((",", "\t", ";"), key=head.count)
        if (bad := _not_utf8([head], f"{piece.path}:1")) is not None:
            yield bad
            return
        try:
            names = next(csv.reader([head], delimiter=delimiter), [])
        except csv.Error as error:
            yield _no_row(f"{piece.path}:1", error)
            return
        rows = csv.reader(lines, delimiter=delimiter)
        number = 0
        while True:
            number += 1
            origin = f"{piece.path}:{number + 1}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield _no_row(origin, error)
                continue
            if not row:
                continue
            if (bad := _not_utf8(row, origin)) is not None:
                yield bad
                continue
            if len(row) != len(names):
                yield BadInput(
                    origin,
                    tr("{found} fields, not {wanted}", found=len(row), wanted=len(names)),
                    tr("Quote fields that hold line ends or quotes"),
                )
                continue
            yield document_of_record(dict(zip(names, row, strict=True)), origin, source)


def _no_row(origin: str, error: csv.Error) -> BadInput:
    return BadInput(
        origin,
        tr("this row is not CSV ({reason})", reason=error),
        tr("Quote fields that hold line ends or quotes"),
    )


def _not_utf8(fields: list[str], origin: str) -> BadInput | None:
    """Gives what is wrong with fields that hold bytes that could not be decoded."""
    try:
        ",".join(fields).encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        return bad_encoding(origin, error)
    return None


def read_parquet(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives a document for each row; media columns are carried along as they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with open_piece(piece) as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            if any(name.split(".")[0] not in names for name in source.text_fields):
                yield document_of_record(dict.fromkeys(names), piece.path, source)
                return
            carried = [
                name
                for name in names
                if (name in source.carry if source.carry is not None else name in MEDIA)
            ]
            for batch in file.iter_batches(batch_size=_batch_rows(file)):
                for record in batch.to_pylist():
                    row += 1
                    media = {name: record.pop(name) for name in carried}
                    plain = {name: _plain(value) for name, value in record.items()}
                    item = document_of_record(plain, f"{piece.path}:{row}", source)
                    if isinstance(item, Document):
                        item.media = media
                    yield item
    except (pa.ArrowException, OSError, ValueError) as error:
        yield BadInput(
            piece.path if not row else f"{piece.path}:{row + 1}",
            tr("this is not a readable Parquet file ({reason})", reason=error),
            tr("Fetch or write it again"),
        )


def _batch_rows(file: Any) -> int:
    """Gives how many rows make about 16 MiB, by the largest row group."""
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    row = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=1)
    return max(1, min(1024, (16 << 20) // max(row, 1)))


def _plain(value: Any) -> Any:
    """Gives a value JSON can hold; of bytes only their number is said."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
