"""Reads documents from files, each bad one named with what is wrong with it."""

from __future__ import annotations

import glob
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from tianti.corpus.config import Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.python_docs import python_docs, python_docs_version
from tianti.errors import UserError, from_os_error
from tianti.files import sha256_file
from tianti.messages import tr

FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".rst": "text",
    ".tokens": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz", ".zst"}


def list_files(source: Source) -> list[Path]:
    """Gives the files of a path source, sorted.

    Raises:
        UserError: there is no such path, or nothing readable under it.
    """
    try:
        path = source.expanded_path()
    except ValueError as error:
        raise UserError(
            str(error), where=source.path, remedy=tr("Set it, or write a path")
        ) from error
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in sorted(path.rglob("*")) if p.is_file() and _format_of(p, source)]
    else:
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        found = [p for p in matches if p.is_file()]
        if not found:
            raise UserError(
                tr("no such file or folder"),
                where=path,
                remedy=tr("Check the path; it is read from where you stand"),
            )
    if not found:
        raise UserError(
            tr("no text files here"),
            where=path,
            remedy=tr(
                "Files with these endings are read: {endings}; or say the format",
                endings=", ".join(FORMATS),
            ),
        )
    return found


def source_state(source: Source) -> list[dict[str, Any]]:
    """Gives what decides the content of a source, cheaply: name, size and time of every file."""
    if source.builtin:
        return [{"builtin": source.builtin, "version": python_docs_version()}]
    return [
        {"path": str(path), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        for path in list_files(source)
        for stat in [path.stat()]
    ]


def source_hashes(source: Source, known: dict[str, str]) -> list[str]:
    """Gives the content hashes of a source's files.

    Args:
        source: the source.
        known: hashes by file state, extended here, so that an unchanged file is read once.
    """
    hashes = []
    for state in source_state(source):
        key = json.dumps(state, sort_keys=True)
        if key not in known:
            known[key] = sha256_file(Path(state["path"])) if "path" in state else key
        hashes.append(known[key])
    return hashes


def read_source(source: Source) -> Iterator[Document | BadInput]:
    """Gives the documents of a source and, where a file or record is bad, what is wrong."""
    if source.builtin:
        yield from python_docs()
        return
    for path in list_files(source):
        yield from _read_file(path, source)


def _format_of(path: Path, source: Source) -> str | None:
    if source.format:
        return source.format
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def _read_file(path: Path, source: Source) -> Iterator[Document | BadInput]:
    kind = _format_of(path, source)
    if kind is None:
        yield BadInput(
            str(path),
            tr("unknown kind of file"),
            tr(
                "Files with these endings are read: {endings}; or say the format",
                endings=", ".join(FORMATS),
            ),
        )
        return
    readers: dict[str, Callable[[Path, Source], Iterator[Document | BadInput]]] = {
        "text": _read_text,
        "jsonl": _read_jsonl,
        "parquet": _read_parquet,
    }
    try:
        yield from readers[kind](path, source)
    except (gzip.BadGzipFile, EOFError, zlib.error, _BrokenZstandard) as error:
        yield BadInput(
            str(path),
            tr("the compressed file is broken or cut short ({reason})", reason=error),
            tr("Fetch or compress it again"),
        )
    except OSError as error:
        user = from_os_error(error, path)
        yield BadInput(str(path), user.what, user.remedy or "")


class _BrokenZstandard(Exception):
    """A Zstandard file that does not decompress."""


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() != ".zst":
        with _open(path) as file:
            return file.read()
    return b"".join(_zstandard_chunks(path))


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return open(path, "rb")


def _zstandard_chunks(path: Path) -> Iterator[bytes]:
    import pyarrow as pa

    with open(path, "rb") as raw:
        try:
            with pa.CompressedInputStream(raw, "zstd") as stream:
                while chunk := stream.read(1 << 20):
                    yield chunk
        except OSError as error:
            raise _BrokenZstandard(error) from error


def _lines(path: Path) -> Iterator[bytes]:
    """Gives the lines of a file without holding it whole."""
    if path.suffix.lower() != ".zst":
        with _open(path) as file:
            yield from file
        return
    rest = b""
    for chunk in _zstandard_chunks(path):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _bad_encoding(origin: str, error: UnicodeDecodeError) -> BadInput:
    return BadInput(
        origin,
        tr(
            "this is not UTF-8: byte 0x{byte:02x} at {place}",
            byte=error.object[error.start],
            place=error.start,
        ),
        tr("Convert it to UTF-8 (for example with iconv)"),
    )


def _read_text(path: Path, source: Source) -> Iterator[Document | BadInput]:
    try:
        text = _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield _bad_encoding(str(path), error)
        return
    if source.separator is None:
        yield Document(text, source.label(), str(path), source.split)
        return
    cuts = [match.start() for match in re.finditer(source.separator, text)]
    bounds = [0, *(cut for cut in cuts if cut), len(text)]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        yield Document(text[start:stop], source.label(), f"{path}#{number}", source.split)


def _read_jsonl(path: Path, source: Source) -> Iterator[Document | BadInput]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        origin = f"{path}:{number}"
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield _bad_encoding(origin, error)
        except (ValueError, RecursionError) as error:
            yield BadInput(
                origin,
                tr("this line is not JSON ({reason})", reason=error),
                tr("Each line must be one JSON object"),
            )
        else:
            yield _document_of_record(record, origin, source)


def _document_of_record(record: Any, origin: str, source: Source) -> Document | BadInput:
    value = record.get(source.text) if isinstance(record, dict) else None
    if isinstance(value, str):
        return Document(value, source.label(), origin, source.split)
    names = ", ".join(list(record)[:8]) if isinstance(record, dict) else type(record).__name__
    return BadInput(
        origin,
        tr(
            "there is no text in the field {field!r} (found: {names})",
            field=source.text,
            names=names,
        ),
        tr(
            "Name the field that holds the text: corpus.sources.N.text in a recipe,"
            " --field in tianti eval"
        ),
    )


def _read_parquet(path: Path, source: Source) -> Iterator[Document | BadInput]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if source.text not in file.schema_arrow.names:
            yield _document_of_record(dict.fromkeys(file.schema_arrow.names), str(path), source)
            return
        row = 0
        for batch in file.iter_batches(batch_size=1024, columns=[source.text]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield _document_of_record({source.text: value}, f"{path}:{row}", source)
    except pa.ArrowInvalid as error:
        yield BadInput(
            str(path),
            tr("this is not a readable Parquet file ({reason})", reason=error),
            tr("Fetch or write it again"),
        )
