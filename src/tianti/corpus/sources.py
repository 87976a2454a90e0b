"""The files of a source, local or remote, and the documents in them."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

from tianti.corpus.batch import SCAN_ROWS, Batch
from tianti.corpus.config import Source, expand_variables
from tianti.corpus.document import BadInput, Document
from tianti.corpus.python_docs import python_docs, python_docs_version
from tianti.corpus.readers.opening import BrokenFile, Piece
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
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".warc": "warc",
    ".wet": "warc",
    ".wat": "warc",
    ".arc": "warc",
    ".epub": "epub",
    ".pdf": "pdf",
    ".zip": "archive",
    ".tar": "archive",
    ".tgz": "archive",
}
CODE = ".py .c .h .cc .cpp .hpp .rs .go .java .js .ts .jsx .tsx .sh .rb .php .cs .swift .kt .scala"
CODE += " .lua .pl .r .jl .sql .m .hs .ml .ex .erl .clj .dart .zig .vue .css .scss"
FORMATS |= dict.fromkeys(CODE.split(), "code")
_MAX_NESTING = 8
# Code is read only where the format says so: a folder of texts often holds a script or two.
_BY_NAME = {ending: kind for ending, kind in FORMATS.items() if kind != "code"}


def list_files(source: Source) -> list[str]:
    """Gives the files of a path source, sorted.

    Raises:
        UserError: there is no such path, or nothing readable under it.
    """
    try:
        path = expand_variables(source.path or "")
    except ValueError as error:
        raise UserError(
            str(error), where=source.path, remedy=tr("Set it, or write a path")
        ) from error
    found, anything = _list_remote(path, source) if "://" in path else _list_local(path, source)
    if found:
        return found
    if not anything:
        raise UserError(
            tr("no such file or folder"),
            where=path,
            remedy=tr("Check the path; it is read from where you stand"),
        )
    raise UserError(
        tr("no text files here"),
        where=path,
        remedy=tr(
            "Files with these endings are read: {endings}; or say the format",
            endings=", ".join(_BY_NAME),
        ),
    )


def _list_local(text: str, source: Source) -> tuple[list[str], bool]:
    """Gives the readable files and whether there is anything at all."""
    path = Path(text).expanduser()
    if path.is_file():
        return [str(path)], True
    if path.is_dir():
        files = (
            p
            for p in sorted(path.rglob("*"))
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts)
        )
        return [str(p) for p in files if format_of(str(p), source)], True
    matches = sorted(glob.glob(str(path), recursive=True))
    found = [match for match in matches if Path(match).is_file()]
    return found, bool(found)


def _list_remote(url: str, source: Source) -> tuple[list[str], bool]:
    """Gives the readable files under a URL that fsspec opens: s3://, gs://, hf://, http …"""
    try:
        import fsspec

        filesystem, inner = fsspec.core.url_to_fs(url)
        if url.startswith(("http://", "https://")) and not any(c in inner for c in "*?["):
            return [url], True
        if any(character in inner for character in "*?["):
            found = filesystem.glob(inner)
        elif filesystem.isdir(inner):
            found = filesystem.find(inner)
        else:
            found = [inner] if filesystem.exists(inner) else []
    except (ImportError, OSError, ValueError) as error:
        raise UserError(
            tr("this address cannot be read ({reason})", reason=error),
            where=url,
            remedy=tr(
                "Check the address; s3://, gs:// and hf:// need s3fs, gcsfs, huggingface_hub"
            ),
        ) from error
    names = [filesystem.unstrip_protocol(name) for name in sorted(found)]
    return [name for name in names if format_of(name, source)], bool(names)


def format_of(path: str, source: Source) -> str | None:
    """Gives how a file is read, None where its name does not tell."""
    if source.format == "code":
        return "code" if PurePosixPath(path).suffix.lower() in CODE.split() else None
    if source.format:
        return source.format
    suffixes = Piece(path).suffixes
    # What cut a download short or marked it bad is no ending of its own: a.warc.gz.bad.
    for suffix in reversed(suffixes[-3:]):
        if suffix in _BY_NAME:
            return _BY_NAME[suffix]
        if suffix not in (".bad", ".gz"):
            return None
    return None


def source_state(source: Source) -> list[dict[str, Any]]:
    """Gives what decides the content of a source, cheaply: name, size and time of every file."""
    if source.builtin:
        return [{"builtin": source.builtin, "version": python_docs_version()}]
    return [file_state(path) for path in list_files(source)]


def file_state(path: str) -> dict[str, Any]:
    """Gives name, size and time of a file; of a remote one, what its server says of it."""
    if "://" in path:
        import fsspec

        filesystem, inner = fsspec.core.url_to_fs(path)
        info = filesystem.info(inner)
        kept = ("ETag", "etag", "mtime", "LastModified", "last_commit", "created")
        said = {key: str(info[key]) for key in kept if info.get(key)}
        return {"path": path, "bytes": int(info.get("size") or 0), "mtime_ns": said}
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise from_os_error(error, path) from error
    return {"path": path, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def source_hashes(source: Source, known: dict[str, str]) -> list[str]:
    """Gives the content hashes of a source's files; of remote ones, what their server says.

    Args:
        source: the source.
        known: hashes by file state, extended here, so that an unchanged file is read once.
    """
    return [_hash_of(state, known) for state in source_state(source)]


def file_hash(path: str, known: dict[str, str]) -> str:
    """Gives the content hash of one file; see `source_hashes`."""
    return _hash_of(file_state(path), known)


def _hash_of(state: dict[str, Any], known: dict[str, str]) -> str:
    key = json.dumps(state, sort_keys=True)
    if key not in known:
        local = "path" in state and "://" not in state["path"]
        known[key] = sha256_file(Path(state["path"])) if local else key
    return known[key]


def read_source(source: Source, extractor: Any = "fast") -> Iterator[Document | BadInput]:
    """Gives the documents of a source and, where a file or record is bad, what is wrong.

    Args:
        source: what to read.
        extractor: how the main text of web pages is found: `fast` or `quality`.
    """
    if source.builtin:
        yield from python_docs()
        return
    for path in list_files(source):
        yield from read_piece(Piece(path), source, extractor)


def read_piece(
    piece: Piece, source: Source, extractor: Any = "fast"
) -> Iterator[Document | BadInput]:
    """Gives the documents of a file or part of one; whatever is wrong with it is named.

    Args:
        piece: what to read.
        source: how to read it.
        extractor: how the main text of web pages is found: `fast` or `quality`.
    """
    yield from cast(Iterator[Document | BadInput], _read_piece(piece, source, extractor, None))


def read_piece_batches(
    piece: Piece, source: Source, extractor: Any = "fast", rows: int = SCAN_ROWS
) -> Iterator[Document | Batch | BadInput]:
    """Gives what `read_piece` does, many documents at a time where its format allows that.

    Args:
        piece: what to read.
        source: how to read it.
        extractor: how the main text of web pages is found: `fast` or `quality`.
        rows: at most so many at a time.
    """
    yield from _read_piece(piece, source, extractor, rows)


def _read_piece(
    piece: Piece, source: Source, extractor: Any, rows: int | None
) -> Iterator[Document | Batch | BadInput]:
    kind = format_of(piece.path, source)
    if piece.path.lower().endswith(".tgz"):
        piece = Piece(piece.path[:-4] + ".tar.gz", data=_bytes_of(piece))
    if kind is None:
        yield BadInput(
            piece.path,
            tr("unknown kind of file"),
            tr(
                "Files with these endings are read: {endings}; or say the format",
                endings=", ".join(_BY_NAME),
            ),
        )
        return
    try:
        yield from _read_kind(kind, piece, source, extractor, rows)
    except BrokenFile as error:
        yield BadInput(piece.path, error.reason, error.remedy)
    except OSError as error:
        user = from_os_error(error, piece.path)
        yield BadInput(piece.path, user.what, user.remedy or "")


def _bytes_of(piece: Piece) -> bytes:
    return piece.data if piece.data is not None else Path(piece.path).read_bytes()


def _read_kind(
    kind: str, piece: Piece, source: Source, extractor: Any, rows: int | None
) -> Iterator[Document | Batch | BadInput]:
    """Imports the reader of a kind only when there is something for it to read."""
    if kind == "archive":
        if piece.path.count("!") >= _MAX_NESTING:
            raise BrokenFile(tr("an archive in archives, {count} deep", count=_MAX_NESTING))
        from tianti.corpus.readers.archive import members

        inner = source.model_copy(update={"format": None})
        for member in members(piece):
            if isinstance(member, BadInput):
                yield member
            else:
                yield from _read_piece(member, inner, extractor, rows)
    elif kind in ("text", "code"):
        from tianti.corpus.readers import plain

        yield from (plain.read_text if kind == "text" else plain.read_code)(piece, source)
    elif kind in ("html", "warc"):
        from tianti.corpus.readers import web

        yield from (web.read_html if kind == "html" else web.read_warc)(piece, source, extractor)
    elif kind in ("epub", "pdf"):
        from tianti.corpus.readers import books

        yield from (books.read_epub if kind == "epub" else books.read_pdf)(piece, source)
    elif kind == "jsonl" and rows is not None:
        from tianti.corpus.readers.records import read_columns

        yield from read_columns(piece, source, rows)
    else:
        from tianti.corpus.readers import tables

        records = {
            "jsonl": tables.read_jsonl,
            "csv": tables.read_csv,
            "parquet": tables.read_parquet,
        }
        yield from records[kind](piece, source)
