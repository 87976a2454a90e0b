"""Web pages, and archives of them: HTML, WARC (WET too) and ARC."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import IO, Any, Literal

from tianti.corpus.config import Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.readers.opening import MAX_RECORD_BYTES, BrokenFile, Piece, open_piece, read_all
from tianti.errors import not_installed
from tianti.messages import tr

Extractor = Literal["fast", "quality"]
_BLOCK = 1 << 20
# Deeper pages are no text, and the time their main text takes grows with the square of the depth.
_MAX_DEPTH = 2000
_NESTED = re.compile(rb"<(/?)(?:div|article)\b", re.IGNORECASE)
_HTML = ("text/html", "application/xhtml+xml")
# What stands among the paragraphs of a page without being its text.
_FURNITURE = [
    "[class*='caption']",
    "[class*='newsletter']",
    "[class*='signup']",
    "[class*='share']",
    "[class*='cookie']",
    "[id*='cookie']",
    "[class*='footer']",
]


def read_html(piece: Piece, source: Source, extractor: Extractor) -> Iterator[Document | BadInput]:
    """Gives the main text of a page."""
    yield from _page(read_all(piece), piece.path, extractor, {})


def extract_html(data: bytes, extractor: Extractor) -> str:
    """Gives the main text of a page, without its menus, comments and footers.

    Args:
        data: the bytes of the page, in any encoding that it names or that can be told.
        extractor: `fast` (resiliparse) or `quality` (trafilatura).

    Raises:
        UserError: trafilatura is not installed.
        ValueError: the page cannot be parsed.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    return _main_text(
        bytes_to_str(data, detect_encoding(data, from_html_meta=True) or "utf-8"), extractor
    )


def _main_text(page: str, extractor: Extractor) -> str:
    if extractor == "quality":
        try:
            import trafilatura
        except ImportError as error:
            raise not_installed("trafilatura", "web", "corpus.clean.html") from error
        found = trafilatura.extract(page, include_comments=False, fast=True)
        return found or ""
    return _fast_text(page)


def _fast_text(page: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(page)
    options: dict[str, Any] = {
        "main_content": True,
        "alt_texts": False,
        "comments": False,
        "post_meta": False,
    }
    lean = extract_plain_text(tree, **options, skip_elements=_FURNITURE)
    full = extract_plain_text(tree, **options)
    # The class of an element around the whole page may hold one of these words.
    return lean if 2 * len(lean) >= len(full) else full


def _page(
    data: bytes, origin: str, extractor: Extractor, meta: dict[str, Any]
) -> Iterator[Document | BadInput]:
    if _depth(data) > _MAX_DEPTH:
        yield BadInput(
            origin,
            tr("this page cannot be parsed ({reason})", reason=tr("it is nested too deeply")),
            tr("Fetch or write it again"),
        )
        return
    try:
        text = extract_html(data, extractor)
    except (ValueError, RuntimeError, LookupError) as error:
        yield BadInput(
            origin,
            tr("this page cannot be parsed ({reason})", reason=error),
            tr("Fetch or write it again"),
        )
        return
    yield Document(text, origin, meta | _said_in_page(data))


def _depth(data: bytes) -> int:
    """Gives about how deep a page's sections lie in each other."""
    deepest = depth = 0
    for match in _NESTED.finditer(data):
        depth = max(depth - 1, 0) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _said_in_page(data: bytes) -> dict[str, str]:
    """Gives what a page says of robots and of its licence."""
    lower = data[:200_000].lower()
    if b"robots" not in lower and b"license" not in lower:
        return {}
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(data[:200_000].decode("utf-8", "replace"))
    said: dict[str, str] = {}
    if tree.document is None:
        return said
    robots = tree.document.query_selector('meta[name="robots"]')
    if robots is not None and (content := robots.getattr("content")):
        said["robots"] = content
    licence = tree.document.query_selector('link[rel="license"], a[rel="license"]')
    if licence is not None and (address := licence.getattr("href")):
        said["licence"] = address
    return said


def read_warc(piece: Piece, source: Source, extractor: Extractor) -> Iterator[Document | BadInput]:
    """Gives a document for each page or text of a web archive, WARC or the older ARC."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    number = found = overrun = 0
    with open_piece(piece) as stream:
        try:
            lines: Any = _BoundedLines(stream)
            records = ArchiveIterator(lines, arc2warc=True, block_size=_BLOCK)
            for record in _quietly(records):
                if records.err_count > overrun:
                    overrun = records.err_count
                    yield _broken_archive(f"{piece.path}#{number}", tr("more than its length says"))
                number += 1
                for item in _record(record, f"{piece.path}#{number}", extractor):
                    found += 1
                    yield item
            if records.err_count > overrun:
                yield _broken_archive(f"{piece.path}#{number}", tr("more than its length says"))
        except (ArchiveLoadFailed, ValueError, LookupError, AttributeError) as error:
            # The last two are what its parser raises on head lines that are none.
            yield _broken_archive(f"{piece.path}#{number + 1}", error)
            return
    if not found:
        yield BadInput(
            piece.path, tr("no page among its {count} records", count=number), tr("Leave it")
        )


class _BoundedLines:
    """A stream without endless lines: warcio would gather one for hours."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._line = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        last = data.rfind(b"\n")
        self._line = self._line + len(data) if last < 0 else len(data) - last - 1
        if self._line > MAX_RECORD_BYTES:
            raise BrokenFile(
                tr("this line is longer than {limit} MiB", limit=MAX_RECORD_BYTES >> 20),
                tr("Fetch or write it again"),
            )
        return data


def _quietly(records: Iterator[Any]) -> Iterator[Any]:
    """Gives records without what the library prints on its own about odd ones."""
    while True:
        with contextlib.redirect_stderr(io.StringIO()):
            record = next(records, None)
        if record is None:
            return
        yield record


def _record(record: Any, origin: str, extractor: Extractor) -> Iterator[Document | BadInput]:
    if record.rec_type not in ("response", "resource", "conversion"):
        return
    data = record.raw_stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        yield BadInput(
            origin,
            tr("it holds more than {limit} MiB", limit=MAX_RECORD_BYTES >> 20),
            tr("Cut it into several files"),
        )
        return
    if missing := getattr(record.raw_stream, "limit", 0):
        reason = tr("{found} of {wanted} bytes", found=len(data), wanted=len(data) + missing)
        yield _broken_archive(origin, reason)
        return
    headers = {name.lower(): value for name, value in record.rec_headers.headers}
    meta = {
        name: headers[key]
        for name, key in (("url", "warc-target-uri"), ("date", "warc-date"))
        if key in headers
    }
    if record.rec_type == "response" and record.http_headers is not None:
        yield from _http_page(record.http_headers, data, origin, extractor, meta)
    else:
        yield from _content(data, headers.get("content-type", ""), origin, extractor, meta)


def _http_page(
    answer: Any, body: bytes, origin: str, extractor: Extractor, meta: dict[str, Any]
) -> Iterator[Document | BadInput]:
    """Gives the page of an HTTP answer, dechunked and decompressed."""
    headers = {name.strip().lower(): value.strip() for name, value in answer.headers}
    status = answer.get_statuscode() or "200"
    if not status.startswith("2"):
        yield BadInput(
            origin, tr("an answer of status {status}, not a page", status=status), tr("Leave it")
        )
        return
    try:
        body = _decoded(body, headers)
    except BrokenFile as error:
        yield BadInput(origin, error.reason, error.remedy)
        return
    if "x-robots-tag" in headers:
        meta = meta | {"robots": headers["x-robots-tag"]}
    yield from _content(body, headers.get("content-type", "text/html"), origin, extractor, meta)


def _decoded(body: bytes, headers: dict[str, str]) -> bytes:
    """Gives the body of an answer as the server meant it; chunks that are none are left alone."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _dechunked(body)
    encoding = headers.get("content-encoding", "").lower()
    if not body or encoding in ("", "identity"):
        return body
    import zlib

    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BrokenFile(tr("its encoding {name} is not read", name=encoding), tr("Leave it"))
    bits = 31 if "gzip" in encoding else 15
    if "gzip" in encoding and body[:2] != b"\x1f\x8b":
        # Crawlers store bodies that they have decompressed under the old head.
        return body
    unpack = zlib.decompressobj(bits)
    try:
        data = unpack.decompress(body, MAX_RECORD_BYTES + 1)
    except zlib.error:
        try:
            unpack = zlib.decompressobj(-15)
            data = unpack.decompress(body, MAX_RECORD_BYTES + 1)
        except zlib.error as error:
            raise BrokenFile(
                tr("the compressed file is broken or cut short ({reason})", reason=error)
            ) from error
    if len(data) > MAX_RECORD_BYTES:
        raise BrokenFile(tr("it holds more than {limit} MiB", limit=MAX_RECORD_BYTES >> 20))
    if not unpack.eof:
        raise BrokenFile(
            tr("the compressed file is broken or cut short ({reason})", reason=tr("no end"))
        )
    return data


def _dechunked(body: bytes) -> bytes:
    """Gives the bytes of chunks; a body that is not in chunks comes back as it is."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        end = body.find(b"\r\n", at)
        try:
            size = int(body[at:end].split(b";")[0], 16) if end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0:
            return b"".join(parts) + body[at:] if parts else body
        if size == 0:
            break
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def _content(
    data: bytes, mime: str, origin: str, extractor: Extractor, meta: dict[str, Any]
) -> Iterator[Document | BadInput]:
    kind = mime.split(";")[0].strip().lower()
    if kind in _HTML:
        yield from _page(data, origin, extractor, meta)
    elif kind.startswith("text/") or (not kind and b"\0" not in data[:4096]):
        yield Document(data.decode("utf-8", "replace"), origin, meta)
    else:
        yield BadInput(origin, tr("not text: {kind}", kind=kind or "?"), tr("Leave it"))


def _broken_archive(origin: str, reason: object) -> BadInput:
    return BadInput(
        origin,
        tr("the archive is broken or cut short here ({reason})", reason=reason),
        tr("Fetch or compress it again"),
    )
