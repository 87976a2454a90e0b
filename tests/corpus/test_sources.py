from __future__ import annotations

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.building import build_from
from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.python_docs import python_docs
from tianti.corpus.sources import list_files, read_source, source_hashes
from tianti.corpus.table import read_documents
from tianti.errors import UserError

ZH = "他说：“今天下雨。”\n第二行 — naïve café 😀"


def read(path, **settings):
    return list(read_source(Source(path=str(path), **settings)))


def texts_of(items):
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACK = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstd}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_text_is_read_as_it_is(tmp_path, name, ending):
    path = tmp_path / (name + ending)
    path.write_bytes(PACK[ending](ZH.encode()))
    assert texts_of(read(path)) == [ZH]


@pytest.mark.parametrize("ending", PACK)
def test_jsonl_gives_a_document_a_line(tmp_path, ending):
    rows = [{"text": ZH, "n": 1}, {"text": "two"}]
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    path = tmp_path / ("a.jsonl" + ending)
    path.write_bytes(PACK[ending](data.encode()))
    items = read(path)
    assert texts_of(items) == [ZH, "two"]
    assert items[1].origin == f"{path}:2"


def test_parquet_gives_a_document_a_row(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": [ZH, "two"]}), path)
    assert texts_of(read(path, text="content")) == [ZH, "two"]


def test_folders_and_globs_are_read_in_order(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", "ignored.exe"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts_of(read(tmp_path)) == ["a.md", "b.txt", "sub/c.txt"]
    assert texts_of(read(tmp_path / "**" / "*.txt")) == ["b.txt", "sub/c.txt"]


def test_a_separator_cuts_before_each_match(tmp_path):
    text = " = A = \none\n = B = \ntwo"
    (tmp_path / "a.txt").write_text(text)
    pieces = texts_of(read(tmp_path / "a.txt", separator=r"(?m)^ = .* = $"))
    assert pieces == [" = A = \none\n", " = B = \ntwo"]


BAD = {
    "latin1.txt": (b"caf\xe9 au lait", "not UTF-8: byte 0xe9 at 3"),
    "cut.txt.gz": (gzip.compress(b"x" * 10_000)[:-9], "broken or cut short"),
    "junk.txt.gz": (b"this is no gzip", "broken or cut short"),
    "flipped.txt.gz": (gzip.compress(b"abc" * 100)[:20] + b"\xff" * 30, "broken or cut short"),
    "junk.txt.zst": (b"this is no zstd", "broken or cut short"),
    "cut.jsonl.zst": (zstd(os.urandom(5000))[:-40], "broken or cut short|not UTF-8|not JSON"),
    "junk.parquet": (b"PAR1 but not really", "not a readable Parquet"),
    "line.jsonl": (b'{"text": "good"}\n{"text": \n', r"line.jsonl:2: this line is not JSON"),
    "field.jsonl": (b'{"content": "x"}\n', r"field.jsonl:1: there is no text in the field 'text'"),
    "number.jsonl": (b'{"text": 5}\n', "no text in the field"),
    "list.jsonl": (b"[1]\n", "no text in the field"),
    "bytes.jsonl": (b'{"text": "\xff"}\n', "not UTF-8"),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_the_file_and_the_remedy(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    out = tmp_path / "out"
    config = CorpusConfig(sources=[Source(path=str(tmp_path / name))])
    with pytest.raises(UserError, match=message) as caught:
        build_from(config, out)
    assert str(tmp_path / name) in str(caught.value)
    assert "quarantine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_quarantine_lists_bad_input_and_goes_on(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(BAD[name][0])
    for n in range(300):
        (tmp_path / "in" / f"z{n}.txt").write_text(f"{n} good text that is long enough to stay")
    out = tmp_path / "out"
    config = CorpusConfig(sources=[Source(path=str(tmp_path / "in"))], on_bad_input="quarantine")
    metrics = build_from(config, out)
    listed = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert metrics["bad_inputs"] == len(listed) >= 1
    assert all(name in row["origin"] and row["reason"] for row in listed)
    kept = sum(split["documents"] for split in metrics["splits"].values())
    assert kept == 300 + (metrics["funnel"]["kept"]["documents"] - 300)
    assert metrics["funnel"]["kept"]["documents"] >= 300


def test_missing_paths_and_empty_folders_are_told(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list_files(Source(path=str(tmp_path / "nothing")))
    with pytest.raises(UserError, match="no text files here"):
        list_files(Source(path=str(tmp_path)))
    with pytest.raises(UserError, match="variable NOT_SET_ANYWHERE"):
        list_files(Source(path="${NOT_SET_ANYWHERE}/x"))


def test_an_unreadable_file_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")

    def refuse(*_):
        raise PermissionError(13, "denied")

    monkeypatch.setattr("builtins.open", refuse)
    items = list(read_source(Source(path=str(tmp_path / "a.txt"))))
    assert isinstance(items[0], BadInput)
    assert items[0].reason == "permission denied"


def test_hashes_follow_content_and_are_not_read_twice(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("one")
    known: dict = {}
    first = source_hashes(Source(path=str(path)), known)
    monkeypatch.setattr("tianti.corpus.sources.sha256_file", lambda path: pytest.fail("read again"))
    assert source_hashes(Source(path=str(path)), known) == first
    monkeypatch.undo()
    path.write_text("two, longer")
    assert source_hashes(Source(path=str(path)), known) != first


@pytest.mark.slow
def test_python_docs_are_real_text():
    documents = list(python_docs())
    assert len(documents) > 400
    assert sum(len(document.text) for document in documents) > 1_500_000
    by_origin = {document.origin: document.text for document in documents}
    assert "def join(a, *p)" in by_origin["posixpath.py"]
    assert 'The "if" statement' in by_origin["topics/if"]


def test_what_is_held_out_wins_over_what_is_trained_on(tmp_path):
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{split} text number {n}, long enough"} for n in range(5)]
        rows.append({"text": "the very same text stands in every split"})
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    sources = [
        Source(path=str(tmp_path / f"{s}.jsonl"), split=s) for s in ("train", "validation", "test")
    ]
    build_from(CorpusConfig(sources=sources), out)
    same = {
        split: sum("very same" in row["text"] for row in read_documents(out / split))
        for split in ("train", "validation", "test")
    }
    assert same == {"train": 0, "validation": 0, "test": 1}
