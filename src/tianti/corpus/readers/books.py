"""Books: EPUB and PDF."""

from __future__ import annotations

import io
import lzma
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

from tianti.corpus.config import Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.readers.opening import MAX_RECORD_BYTES, BrokenFile, Piece, read_all
from tianti.errors import not_installed
from tianti.messages import tr

# What zipfile raises on damaged archives and members.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    NotImplementedError,
    OSError,
    EOFError,
)
_OPF = "{http://www.idpf.org/2007/opf}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"


def read_epub(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives the text of an EPUB, its chapters in reading order, as one document."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_all(piece))) as book:
            text, meta = _epub(book)
    except (KeyError, ElementTree.ParseError, ValueError, *ZIP_ERRORS) as error:
        yield BadInput(
            piece.path,
            tr("this is not a readable EPUB ({reason})", reason=error),
            tr("Fetch or write it again"),
        )
        return
    yield Document(text, piece.path, meta)


def _epub(book: zipfile.ZipFile) -> tuple[str, dict[str, str]]:
    from resiliparse.extract.html2text import extract_plain_text

    container = _xml(read_member(book, "META-INF/container.xml"))
    root = container.find(f".//{_CONTAINER}rootfile")
    if root is None:
        raise ValueError(tr("no contents"))
    place = root.attrib["full-path"]
    package = _xml(read_member(book, place))
    items = {item.attrib["id"]: item.attrib["href"] for item in package.iter(f"{_OPF}item")}
    chapters: list[str] = []
    room = MAX_RECORD_BYTES
    for reference in package.iter(f"{_OPF}itemref"):
        href = unquote(items[reference.attrib["idref"]])
        name = posixpath.normpath(posixpath.join(posixpath.dirname(place), href))
        data = read_member(book, name)
        if (room := room - len(data)) < 0:
            raise too_large()
        page = data.decode("utf-8", "replace")
        chapters.append(extract_plain_text(page, main_content=False, alt_texts=False))
    meta = {}
    for name in ("title", "creator", "language", "rights"):
        found = package.find(f".//{_DC}{name}")
        if found is not None and found.text:
            meta[name] = found.text
    return "\n\n".join(chapter for chapter in chapters if chapter.strip()), meta


def _xml(data: bytes) -> ElementTree.Element:
    """Parses XML that defines no entities: those that do are attacks, not books."""
    if b"<!ENTITY" in data:
        raise ValueError(tr("it defines XML entities"))
    return ElementTree.fromstring(data)


def too_large() -> BrokenFile:
    """Gives the error of what is larger than a record may be."""
    return BrokenFile(
        tr("it holds more than {limit} MiB", limit=MAX_RECORD_BYTES >> 20),
        tr("Cut it into several files"),
    )


def read_member(archive: zipfile.ZipFile, name: str | zipfile.ZipInfo) -> bytes:
    """Gives a member of a ZIP archive.

    Raises:
        BrokenFile: it is larger than a record may be.
    """
    with archive.open(name) as file:
        data = file.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise too_large()
    return data


def read_pdf(piece: Piece, source: Source) -> Iterator[Document | BadInput]:
    """Gives the text of a PDF as one document."""
    try:
        import pypdfium2
    except ImportError:
        missing = not_installed("pypdfium2", "books")
        yield BadInput(piece.path, missing.what, missing.remedy or "")
        return
    try:
        file = pypdfium2.PdfDocument(read_all(piece))
        pages = []
        for page in file:
            text = page.get_textpage()
            pages.append(text.get_text_range())
            text.close()
            page.close()
        file.close()
    except pypdfium2.PdfiumError as error:
        yield BadInput(
            piece.path,
            tr("this is not a readable PDF ({reason})", reason=error),
            tr("Fetch or write it again"),
        )
        return
    # A hyphen at the end of a line is marked by U+FFFE there.
    text_of_all = "\n\n".join(pages).replace("\ufffe\r\n", "").replace("\ufffe", "")
    yield Document(text_of_all.replace("\r\n", "\n"), piece.path)
