"""Readers, one claim each; the files are written here by hand or by other libraries."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import http.server
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.building import build_from
from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.sources import read_source
from tianti.corpus.table import read_documents

DATA = Path(os.environ.get("TIANTI_DATA", Path(__file__).parents[3] / "shared" / "data"))
ZH = "他说：“今天下雨，我们不去了。”第二天，天晴了。"
SENTENCE = "A page is worth keeping when its main text says something to whoever reads it."


def _by_arrow(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACK = {
    "": bytes,
    ".gz": functools.partial(gzip.compress, mtime=0),
    ".zst": functools.partial(_by_arrow, "zstd"),
    ".lz4": functools.partial(_by_arrow, "lz4"),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def tar_of(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, member in members.items():
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return file.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def page_of(body: str, head: str = "") -> str:
    """A web page: a menu, the body as its article, a footer."""
    return f"""<!doctype html><html><head><title>T</title>{head}</head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li></ul></nav>
<main><article><h1>Head line</h1>{body}</article></main>
<footer>All rights reserved</footer></body></html>"""


PAGE = page_of("".join(f"<p>{n}: {SENTENCE}</p>" for n in range(5)))


def epub_of(chapters: dict[str, str], order: list[str] | None = None, title: str = "Book") -> bytes:
    items = "".join(
        f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>'
        for name in chapters
    )
    spine = "".join(f'<itemref idref="{name}"/>' for name in order or chapters)
    return zip_of(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": b'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:'
            b'container"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc='
            f'"http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>".encode(),
        }
        | {
            f"OEBPS/{name}.xhtml": f"<html><body><p>{text}</p></body></html>".encode()
            for name, text in chapters.items()
        }
    )


def pdf_of(pages: list[str]) -> bytes:
    """A PDF of lines of ASCII, its table of objects included."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * n} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    tail = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + (head + tail).encode()


def warc_record(kind: str, body: bytes, address: str = "http://a.example/", **more: str) -> bytes:
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {address}",
        "WARC-Date: 2024-05-06T07:08:09Z",
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>",
        *(f"{name.replace('_', '-')}: {value}" for name, value in more.items()),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"\r\n\r\n"


def answer_of(body: bytes, status: str = "200 OK", mime: str = "text/html", **more: str) -> bytes:
    """A record of what a server answered."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {mime}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    block = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return warc_record("response", block, Content_Type="application/http; msgtype=response")


def read(path: Path | str, **settings) -> list[Document | BadInput]:
    return list(read_source(Source(path=str(path), **settings)))


def read_bytes(folder: Path, name: str, data: bytes, **settings) -> list[Document | BadInput]:
    (folder / name).write_bytes(data)
    return read(folder / name, **settings)


def texts_of(items: list[Document | BadInput]) -> list[str]:
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items]


def only(items: list[Document | BadInput], kind: type):
    assert [type(item) for item in items] == [kind], items
    return items[0]


# Text


@pytest.mark.parametrize("ending", PACK)
def test_what_is_compressed_is_read_by_its_ending(tmp_path, ending):
    items = read_bytes(tmp_path, "a.txt" + ending, PACK[ending](ZH.encode()))
    assert texts_of(items) == [ZH]


@pytest.mark.parametrize("ending", PACK)
def test_compressed_files_that_were_joined_are_read_to_the_end(tmp_path, ending):
    data = PACK[ending](b"one\n") + PACK[ending](b"two\n")
    assert texts_of(read_bytes(tmp_path, "a.txt" + ending, data)) == ["one\ntwo\n"]


@pytest.mark.parametrize("ending", [ending for ending in PACK if ending])
def test_what_follows_a_compressed_file_is_not_left_out_in_silence(tmp_path, ending):
    data = PACK[ending](b"one\n") + b"\x00damaged" + PACK[ending](b"two\n")
    items = read_bytes(tmp_path, "a.txt" + ending, data)
    assert any(isinstance(item, BadInput) for item in items)


@pytest.mark.parametrize("ending", [ending for ending in PACK if ending])
def test_a_compressed_file_of_no_bytes_is_broken(tmp_path, ending):
    assert "cut short" in only(read_bytes(tmp_path, "a.txt" + ending, b""), BadInput).reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_chinese_text_is_read_in_the_encodings_it_comes_in(tmp_path, encoding):
    assert texts_of(read_bytes(tmp_path, "a.txt", (ZH * 20).encode(encoding))) == [ZH * 20]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "big5"])
def test_other_encodings_are_named_and_not_guessed(tmp_path, encoding):
    text = {"shift_jis": "これはテストです。", "big5": "今天天氣很好"}.get(encoding, "café à la")
    assert (
        "not UTF-8" in only(read_bytes(tmp_path, "a.txt", text.encode(encoding)), BadInput).reason
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "gb18030"])
def test_a_long_file_is_several_documents_that_join_to_it(tmp_path, encoding):
    text = "\n\n".join(f"第{n}段。{ZH}" for n in range(700_000))
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    texts = texts_of(read_bytes(tmp_path, "a.txt", (mark + text).encode(encoding)))
    assert len(texts) > 1
    assert "".join(texts) == text


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path):
    for n in range(300):
        (tmp_path / os.fsdecode(b"\xff%d.txt" % n)).write_text(f"text number {n} of several")
    (tmp_path / os.fsdecode(b"\xff.jsonl")).write_text("no JSON\n")
    config = CorpusConfig(sources=[Source(path=str(tmp_path))], on_bad_input="quarantine")
    metrics = build_from(config, tmp_path / "out")
    assert metrics["funnel"]["read"]["documents"] == 300
    assert metrics["bad_inputs"] == 1


# Tables


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_csv_is_read_whatever_divides_its_fields(tmp_path, name, delimiter):
    rows = [["id", "text"], ["1", "one"], ["2", ZH]]
    data = "\r\n".join(delimiter.join(row) for row in rows) + "\r\n"
    items = read_bytes(tmp_path, name, data.encode("utf-8-sig"))
    assert texts_of(items) == ["one", ZH]
    assert [item.meta for item in items] == [{"id": "1"}, {"id": "2"}]
    assert items[1].origin.endswith(f"{name}:3")


def test_quoted_fields_of_csv_hold_line_ends_quotes_and_commas(tmp_path):
    data = b'text,n\n"two\nlines, and ""quotes""",1\nplain,2\n'
    items = read_bytes(tmp_path, "a.csv", data)
    assert texts_of(items) == ['two\nlines, and "quotes"', "plain"]


def test_a_csv_row_with_other_fields_is_named_and_the_next_read(tmp_path):
    bad, good = read_bytes(tmp_path, "a.csv", b"text,n\na,b,c\ngood,2\n")
    assert bad.origin.endswith("a.csv:2")
    assert "3 fields, not 2" in bad.reason
    assert good.text == "good"


def test_a_csv_without_the_column_names_those_it_has(tmp_path):
    bad = only(read_bytes(tmp_path, "a.csv", b"body,n\nx,1\n"), BadInput)
    assert "found: body, n" in bad.reason


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
def test_csv_of_spreadsheets_is_read(tmp_path, encoding):
    data = f"编号,text\r\n1,{ZH}\r\n2,{ZH * 2000}\r\n".encode(encoding)
    items = read_bytes(tmp_path, "a.csv", data)
    assert texts_of(items) == [ZH, ZH * 2000]
    assert items[0].meta == {"编号": "1"}


@pytest.mark.parametrize(
    "data", [b"te\xffxt,n\nx,1\n", b"text,n\n\xffx,1\n"], ids=["in the head line", "in a row"]
)
def test_a_csv_that_is_not_utf8_is_named(tmp_path, data):
    assert "not UTF-8" in only(read_bytes(tmp_path, "a.csv", data), BadInput).reason


def test_a_field_may_be_nested_in_its_record(tmp_path):
    data = b'{"doc": {"body": "deep"}, "n": 1}\n'
    assert texts_of(read_bytes(tmp_path, "a.jsonl", data, text="doc.body")) == ["deep"]


@pytest.mark.parametrize("where", ["text", "note", "label"])
def test_half_a_surrogate_pair_that_python_wrote_is_no_end_of_the_run(tmp_path, where):
    rows = [{"text": f"{n} text that is long enough", "note": "", "label": "x"} for n in range(300)]
    rows[7][where] += "\ud800"
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = CorpusConfig(
        sources=[Source(path=str(path), label="label")], on_bad_input="quarantine"
    )
    metrics = build_from(config, tmp_path / "out")
    assert metrics["funnel"]["read"]["documents"] + metrics["bad_inputs"] == 300


def test_media_columns_are_carried_into_the_corpus(tmp_path):
    count = 300
    images = [{"bytes": os.urandom(50), "path": f"{n}.png"} for n in range(count)]
    table = {"text": [f"picture {n} of many" for n in range(count)], "image": images}
    pq.write_table(pa.table(table | {"sound": [b"s"] * count}), tmp_path / "a.parquet")
    source = Source(path=str(tmp_path / "a.parquet"))
    build_from(CorpusConfig(sources=[source]), tmp_path / "out")
    rows = [row for split in ("train", "validation", "test")
            for row in read_documents(tmp_path / "out" / split)]  # fmt: skip
    assert len(rows) == count
    for row in rows:
        assert row["image"] == images[int(row["text"].split()[1])]
        assert json.loads(row["meta"]) == {"sound": "<1 bytes>"}


def test_of_parquet_only_the_columns_asked_for_are_carried(tmp_path):
    table = pa.table({"text": ["a"], "image": [b"i"], "sound": [b"s"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", carry=["sound"])[0].media == {"sound": b"s"}
    assert read(tmp_path / "a.parquet", carry=[])[0].media == {}


# Web pages


def test_of_a_page_the_main_text_stays(tmp_path):
    (text,) = texts_of(read_bytes(tmp_path, "a.html", PAGE.encode()))
    assert text.count(SENTENCE) == 5
    assert "Shop" not in text
    assert "All rights reserved" not in text


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "iso-8859-1"])
def test_a_page_is_read_in_the_encoding_it_names(tmp_path, encoding):
    said = {"iso-8859-1": "Un café à la crème.", "big5": "今天天氣很好。"}.get(encoding, ZH)
    page = page_of(f"<p>{said * 8}</p>", f'<meta charset="{encoding}">')
    assert said in texts_of(read_bytes(tmp_path, "a.html", page.encode(encoding)))[0]


def test_what_a_page_says_of_robots_and_licence_stays_with_it(tmp_path):
    head = '<meta name="robots" content="noai"><link rel="license" href="https://cc.example/by">'
    page = page_of(f"<p>{SENTENCE}</p>", head)
    document = only(read_bytes(tmp_path, "a.html", page.encode()), Document)
    assert document.meta == {"robots": "noai", "licence": "https://cc.example/by"}


def test_an_archive_of_the_web_gives_its_pages(tmp_path):
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in (PAGE[:100].encode(), PAGE[100:].encode(), b"")
    )
    data = (
        warc_record("warcinfo", b"software: none\r\n")
        + answer_of(PAGE.encode(), X_Robots_Tag="noindex")
        + answer_of(chunked, Transfer_Encoding="chunked")
        + answer_of(PACK[".gz"](PAGE.encode()), Content_Encoding="gzip")
        + warc_record("conversion", ZH.encode(), Content_Type="text/plain")
        + warc_record("request", b"GET / HTTP/1.1\r\n\r\n")
    )
    items = read_bytes(tmp_path, "a.warc", data)
    texts = texts_of(items)
    assert len(texts) == 4
    assert texts[0].count(SENTENCE) == 5
    assert texts[0] == texts[1] == texts[2]
    assert texts[3] == ZH
    assert items[0].meta["url"] == "http://a.example/"
    assert items[0].meta["date"] == "2024-05-06T07:08:09Z"
    assert items[0].meta["robots"] == "noindex"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (answer_of(b"gone", status="404 Not Found"), "status 404"),
        (answer_of(b"\x89PNG", mime="image/png"), "not text: image/png"),
        (answer_of(b"\x1f\x8bxxxxxxxxxxxxxx", Content_Encoding="gzip"), "broken or cut short"),
        (answer_of(b"x", Content_Encoding="br"), "encoding br is not read"),
        (answer_of(PAGE.encode())[:-200], "bytes"),
        (b"\x00\x01\x02 no record\r\n", "broken or cut short"),
    ],
    ids=["status", "picture", "gzip", "brotli", "cut", "junk"],
)
def test_what_is_no_page_in_an_archive_of_the_web_has_a_reason(tmp_path, record, reason):
    good = warc_record("conversion", b"good", Content_Type="text/plain")
    first, *rest = read_bytes(tmp_path, "a.warc", good + record)
    assert first.text == "good"
    assert reason in only(rest, BadInput).reason


def test_what_a_record_holds_beyond_its_length_is_not_left_out_in_silence(tmp_path):
    record = warc_record("conversion", b"one two three", Content_Type="text/plain")
    data = record.replace(b"Length: 13", b"Length: 7") + record
    items = read_bytes(tmp_path, "a.warc", data)
    assert [item.text for item in items if isinstance(item, Document)] == [
        "one two",
        "one two three",
    ]
    assert any(isinstance(item, BadInput) for item in items)


SAMPLES = sorted((DATA / "warc_samples").glob("*arc*"))


@pytest.mark.skipif(not SAMPLES, reason="the samples are not on this machine (TIANTI_DATA)")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_every_web_archive_of_the_samples_ends_in_documents_or_reasons(path):
    items = read(path)
    assert items
    for item in items:
        assert item.origin.startswith(str(path))
        if isinstance(item, BadInput):
            assert item.reason
            assert item.remedy


# Books


def test_an_epub_is_one_document_in_reading_order(tmp_path):
    data = epub_of({"a": "the end", "b": ZH}, order=["b", "a"], title="How it ended")
    document = only(read_bytes(tmp_path, "a.epub", data), Document)
    assert document.text == f"{ZH}\n\nthe end"
    assert document.meta["title"] == "How it ended"


@pytest.mark.parametrize(
    "data",
    [
        b"PK no archive",
        zip_of({"mimetype": b"application/epub+zip"}),
        zip_of({"META-INF/container.xml": b"<container/>"}),
        zip_of({"META-INF/container.xml": b"<container"}),
        zip_of({"META-INF/container.xml": b'<!DOCTYPE x [<!ENTITY e "e">]><x>&e;</x>'}),
        epub_of({"a": "text"}, order=["missing"]),
        epub_of({"a": SENTENCE * 50})[:-300],
    ],
    ids=["junk", "empty", "no root", "no xml", "entities", "no chapter", "cut"],
)
def test_a_broken_epub_is_named(tmp_path, data):
    assert "not a readable EPUB" in only(read_bytes(tmp_path, "a.epub", data), BadInput).reason


def test_a_pdf_is_one_document_of_its_pages(tmp_path):
    pytest.importorskip("pypdfium2")
    data = pdf_of(["The first page.", "The second page."])
    assert texts_of(read_bytes(tmp_path, "a.pdf", data)) == ["The first page.\n\nThe second page."]


def test_a_broken_pdf_is_named(tmp_path):
    pytest.importorskip("pypdfium2")
    for data in (b"", b"no pdf", pdf_of(["one"])[:60]):
        assert "not a readable PDF" in only(read_bytes(tmp_path, "a.pdf", data), BadInput).reason


# Code


@pytest.fixture
def repositories(tmp_path):
    files = {
        "mit/LICENSE": "Permission is hereby granted, free of charge, to any person",
        "mit/src/a.py": "print('mit')",
        "mit/README.md": "no code",
        "gpl/COPYING": "GNU GENERAL PUBLIC LICENSE\nVersion 3",
        "gpl/b.c": "int main(void) {}",
        "own/c.rs": "// SPDX-License-Identifier: Apache-2.0\nfn main() {}",
        "none/d.go": "package main",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_code_is_read_where_it_is_asked_for_and_knows_its_licence(repositories):
    items = read(repositories, format="code")
    assert all(isinstance(item, Document) for item in items)
    said = {Path(item.origin).name: item.meta for item in items}
    assert said == {
        "a.py": {"language": "py", "licence": "MIT"},
        "b.c": {"language": "c", "licence": "GPL-3.0"},
        "c.rs": {"language": "rs", "licence": "Apache-2.0"},
        "d.go": {"language": "go"},
    }
    assert texts_of(read(repositories)) == ["no code"]


def test_code_of_other_licences_is_left_out_with_a_reason(repositories):
    items = read(repositories, format="code", licences=["MIT", "Apache-2.0"])
    kept = {Path(item.origin).name for item in items if isinstance(item, Document)}
    left_out = {Path(item.origin).name: item.reason for item in items if isinstance(item, BadInput)}
    assert kept == {"a.py", "c.rs"}
    assert left_out.keys() == {"b.c", "d.go"}
    assert "GPL-3.0" in left_out["b.c"]
    assert "unknown" in left_out["d.go"]


# Archives

MEMBERS = {
    "one.txt": b"one",
    "sub/two.jsonl": b'{"text": "two"}\n{"text": "three"}\n',
    "four.txt.gz": PACK[".gz"](b"four"),
    "inner.zip": zip_of({"five.txt": b"five"}),
    "inner.tar.xz": lzma.compress(tar_of({"six.txt": b"six"})),
}
ARCHIVES = {
    "a.zip": zip_of,
    "a.tar": tar_of,
    "a.tgz": lambda members: PACK[".gz"](tar_of(members)),
    "a.tar.zst": lambda members: PACK[".zst"](tar_of(members)),
    "a.tar.bz2": lambda members: bz2.compress(tar_of(members)),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_members_of_an_archive_are_read_each_by_its_name(tmp_path, name):
    items = read_bytes(tmp_path, name, ARCHIVES[name](MEMBERS))
    assert texts_of(items) == ["one", "two", "three", "four", "five", "six"]
    assert items[2].origin.endswith("!sub/two.jsonl:2")
    assert items[4].origin.endswith("!inner.zip!five.txt")


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "..\\out.txt", "C:/out.txt"]
)
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, pack, name):
    archive = "a.zip" if pack is zip_of else "a.tar"
    bad, good = read_bytes(tmp_path, archive, pack({name: b"x", "good.txt": b"good"}))
    assert "leads out" in bad.reason
    assert good.text == "good"


@pytest.mark.parametrize(
    ("archive", "data"),
    [
        ("a.zip", zip_of({".": b"", "good.txt": b"good"})),
        ("a.zip", zip_of({"@": b"", "good.txt": b"good"}).replace(b"@", b"\0")),
        ("a.tar", tar_of({".": b"", "good.txt": b"good"})),
        ("a.tar", tar_of({"": b"", "good.txt": b"good"})),
    ],
)
def test_a_member_without_a_name_is_no_end_of_its_archive(tmp_path, archive, data):
    items = read_bytes(tmp_path, archive, data)
    assert [item.text for item in items if isinstance(item, Document)] == ["good"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_not_followed(tmp_path, kind):
    (tmp_path / "secret.txt").write_text("secret")
    members = {"a.txt": link("a.txt", str(tmp_path / "secret.txt"), kind), "b.txt": b"good"}
    bad, good = read_bytes(tmp_path, "a.tar", tar_of(members))
    assert "link or device" in bad.reason
    assert good.text == "good"


def test_members_of_one_name_are_each_read(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", b"two")
    assert texts_of(read_bytes(tmp_path, "a.zip", file.getvalue())) == ["one", "two"]


def test_a_locked_member_is_named_and_the_next_one_read(tmp_path):
    data = bytearray(zip_of({"locked.txt": b"x", "good.txt": b"good"}))
    # The first bit of the flags, in the file's own head and in the directory at the end.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    bad, good = read_bytes(tmp_path, "a.zip", bytes(data))
    assert "encrypted" in bad.reason
    assert good.text == "good"


@pytest.mark.parametrize("cut", [2560, 1900, 1536], ids=["data", "head", "between"])
def test_a_cut_tar_gives_what_lies_before_the_cut_and_says_so(tmp_path, cut):
    data = tar_of({"a.txt": b"a" * 600, "b.txt": b"b" * 1600})[:cut]
    first, bad = read_bytes(tmp_path, "a.tar", data)
    assert first.text == "a" * 600
    assert "broken or cut short" in bad.reason


def test_a_damaged_head_line_in_a_tar_does_not_end_it_in_silence(tmp_path):
    data = bytearray(tar_of({"a.txt": b"a" * 600, "b.txt": b"b" * 600}))
    data[1536] ^= 1
    assert any(isinstance(i, BadInput) for i in read_bytes(tmp_path, "a.tar", bytes(data)))


# Remote


def test_files_of_any_filesystem_of_fsspec_are_read_in_order(tmp_path):
    memory = fsspec.filesystem("memory")
    for name, data in {"b.txt": b"b", "a.jsonl.gz": PACK[".gz"](b'{"text": "a"}\n')}.items():
        memory.pipe(f"/readers/{name}", data)
    memory.pipe("/readers/sub/table.parquet", _parquet(["c"]))
    try:
        items = read("memory://readers")
        assert texts_of(items) == ["a", "b", "c"]
        assert items[1].origin == "memory:///readers/b.txt"
        assert texts_of(read("memory://readers/*.txt")) == ["b"]
    finally:
        memory.rm("/readers", recursive=True)


def _parquet(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def served(folder: Path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_file_on_a_server_becomes_a_corpus(tmp_path):
    (tmp_path / "served").mkdir()
    rows = [{"text": f"{n}: {ZH}"} for n in range(300)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "served" / "a.jsonl.gz").write_bytes(PACK[".gz"](data))
    with served(tmp_path / "served") as address:
        source = Source(path=f"{address}/a.jsonl.gz")
        config = CorpusConfig(sources=[source], dedup={"near": False})
        metrics = build_from(config, tmp_path / "out")
    assert metrics["funnel"]["read"]["documents"] == 300


def test_what_a_server_does_not_have_is_named(tmp_path):
    with served(tmp_path) as address:
        bad = only(read(f"{address}/missing.txt"), BadInput)
    assert bad.origin == f"{address}/missing.txt"
    assert bad.reason
