"""JSONL read as columns against JSONL read record by record, the parser deciding."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tianti.corpus.readers.opening as opening
from tests.corpus.building import build_from
from tianti.corpus.batch import Batch, gathered
from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.document import BadInput
from tianti.corpus.kernels import COMPILED
from tianti.corpus.readers.opening import BrokenFile, Piece
from tianti.corpus.readers.records import read_columns
from tianti.corpus.readers.tables import read_jsonl
from tianti.corpus.table import read_documents
from tianti.errors import UserError

pytestmark = pytest.mark.skipif(not COMPILED, reason="there is one way without compiled kernels")

KEYS = st.sampled_from(["text", "id", "score", "a.b", "名", "b", ""]) | st.text(max_size=4)
TEXTS = st.text() | st.text(alphabet='ab\\"/\n\t\x00\x1f\x7fé中😀', max_size=90)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=6) | st.fixed_dictionaries(
    {"text": TEXTS, "id": VALUES}
)
LINES = (
    st.tuples(RECORDS, st.booleans(), st.sampled_from([None, 1]))
    .map(lambda made: json.dumps(made[0], ensure_ascii=made[1], indent=made[2]).replace("\n", " "))
    .map(lambda line: line.encode("utf-8", "surrogatepass"))
)
ODD = [
    b"",
    b"  \t\r",
    b"\x0b",
    b"{}",
    b"[]",
    b'{"text": "a"',
    b'{"text": "a"}}',
    b'{"text": "a",}',
    b'{"text" "a"}',
    b'{"text": "a" "b": 1}',
    b'{"text": "a\tb"}',
    b'{"text": "a\x00b"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\\ud83d\\ude00"}',
    b'{"text": "\\ud83d\\u0041"}',
    b'{"text": "\\udc00\\ud800"}',
    b'{"text": "\\u12"}',
    b'{"text": "\\x41"}',
    b'{"text": "a\\"}',
    b'{"text": "one", "text": "two"}',
    b'{"te\\u0078t": "escaped name"}',
    b'{"text": "a", "n": 1, "n": 2}',
    b'{"text": "a", "b": 1, "a": 2, "ab": 3}',
    b'{"text": "a", "n": 01}',
    b'{"text": "a", "n": -0}',
    b'{"text": "a", "n": -5}',
    b'{"text": "a", "n": 1.0}',
    b'{"text": "a", "n": 1e400}',
    b'{"text": "a", "n": NaN}',
    b'{"text": "a", "n": nul}',
    b'{"text": "a", "n": [1, {"x": "]}"}, "\\""]}',
    b'{"text": "a", "n": [1, }',
    b'{"text": "a", "n": "\xff"}',
    b'{"text": "\xff"}',
    b'{"text": "\xed\xa0\x80"}',
    b'{"text": 5}',
    b'{"text": null, "b": 1}',
    b'{"a": {"b": "nested"}}',
    b'{"text": "' + "长".encode() * 40 + b'"} x',
    b'\xef\xbb\xbf{"text": "marked"}',
]


def read(reader, *arguments):
    """Gives the documents as rows, and what was wrong, in the order in which they came."""
    bad = []

    def items():
        try:
            for item in reader(*arguments):
                if isinstance(item, BadInput):
                    bad.append(item)
                else:
                    yield item
        except BrokenFile as error:
            bad.append(error.reason)

    rows = []
    for batch in gathered(items()):
        assert isinstance(batch, Batch)
        for column in (batch.texts, batch.metas, batch.origins):
            column.validate(full=True)
        columns = (batch.texts, batch.origins, batch.metas, batch.labels)
        rows += zip(*(column.to_pylist() for column in columns), strict=True)
    return rows, bad


def assert_same(data, source, rows=7, path="a.jsonl"):
    piece = Piece(path, data=data)
    assert read(read_columns, piece, source, rows) == read(read_jsonl, piece, source)


@given(
    st.lists(LINES | st.sampled_from(ODD) | st.binary(max_size=30), max_size=20),
    st.sampled_from(["text", "id", "a.b", "名", 'a"b', "\\"]),
    st.sampled_from([b"\n", b"\r\n"]),
)
@example(ODD, "text", b"\n")
@example(ODD, "a.b", b"\r\n")
@settings(deadline=None)
def test_columns_hold_what_records_do(lines, name, ending):
    assert_same(ending.join(lines), Source(path="a.jsonl", text=name))


def test_mutated_records_are_read_alike():
    chance = random.Random(5)
    line = json.dumps({"id": "7", "text": 'He said "雪" \n', "n": [1, 2.5], "u": "\u00e9"})
    good = "\n".join([line, line.replace(" ", ""), json.dumps({"text": "中文😀" * 9})]).encode()
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(chance.choice([1, 1, 2, 5])):
            place = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[place] ^= 1 << chance.randrange(8)
                case 1:
                    del data[place : place + chance.randrange(1, 4)]
                case _:
                    data[place:place] = chance.choice([b'"', b"\\", b"{", b"}", b"\n", b","])
        assert_same(bytes(data), Source(path="a.jsonl"))


@pytest.mark.parametrize("size", [1, 10, 31, 64, 1000])
def test_lines_that_lie_across_blocks_are_whole(monkeypatch, size):
    monkeypatch.setattr(opening, "_BLOCK", size)
    monkeypatch.setattr(opening, "_MEGABYTES", size)
    lines = [json.dumps({"text": f"{n} 行 " * (n % 7), "n": n}) for n in range(60)]
    assert_same("\n\n".join(lines).encode(), Source(path="a.jsonl"))
    assert_same("\n".join(lines).encode() + b"\n", Source(path="a.jsonl"))


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 50])
def test_a_line_too_long_is_told_and_the_next_one_read(monkeypatch, extra):
    monkeypatch.setattr(opening, "_BLOCK", 16)
    monkeypatch.setattr(opening, "_MEGABYTES", 64)
    monkeypatch.setattr(opening, "MAX_RECORD_BYTES", 200)
    for module in ("tables",):
        monkeypatch.setattr(f"tianti.corpus.readers.{module}.MAX_RECORD_BYTES", 200)
    long = '{"text": "' + "x" * (200 + extra - 12) + '"}'
    for order in ([long, "A"], ["A", long], ["A", long, "A"], [long, long], [long, "A", long]):
        data = "\n".join('{"text": "short"}' if line == "A" else line for line in order).encode()
        for ending in (b"", b"\n"):
            assert_same(data + ending, Source(path="a.jsonl"))


def test_what_stands_before_a_break_is_read(tmp_path):
    lines = b"".join(orjson.dumps({"text": str(n) * 50}) + b"\n" for n in range(5000))
    packed = gzip.compress(lines, compresslevel=1)
    piece = Piece("a.jsonl.gz", data=packed[: len(packed) // 2])
    columns = read(read_columns, piece, Source(path="a"), 100)
    records = read(read_jsonl, piece, Source(path="a"))
    assert columns == records
    assert columns[1]


def test_what_normal_form_leaves_alone_it_leaves_alone_beside_anything():
    import unicodedata

    from tianti.corpus.clean import _is_composed

    second = {
        parts[1]
        for point in range(0x110000)
        if (parts := unicodedata.decomposition(chr(point)).split())
        and len(parts) == 2
        and not parts[0].startswith("<")
    }
    alone = [
        point
        for point in range(0x80, 0x110000)
        if not 0xD800 <= point < 0xE000
        and _is_composed(np.frombuffer(chr(point).encode(), np.uint8))
    ]
    assert len(alone) > 25_000
    for point in alone:
        assert unicodedata.normalize("NFC", chr(point)) == chr(point), hex(point)
        assert unicodedata.combining(chr(point)) == 0, hex(point)
        assert f"{point:04X}" not in second, hex(point)


def test_media_of_a_later_file_are_kept(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    text = "A line that says which record this is of the many here: {}."
    rows = [json.dumps({"text": text.format(n)}) for n in range(5000)]
    (folder / "a.jsonl").write_text("\n".join(rows))
    for name, images in (("b", [None] * 30), ("c", [b"one", None, b"three"] * 10)):
        table = {"text": [text.format(f"{name}{n}") for n in range(30)], "image": images}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    config = CorpusConfig(sources=[Source(path=str(folder))], validation=0.1, test=0.1)
    build_from(config, tmp_path / "out")
    rows = [r for split in ("train", "test") for r in read_documents(tmp_path / "out" / split)]
    for row in rows:
        name = row["origin"].rsplit("/", 1)[1]
        known = name.startswith("c") and int(name.split(":")[1]) % 3 != 2
        assert (row["image"] is not None) == known, name


def test_a_column_of_different_kinds_is_told(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, image in (("a", b"one"), ("b", 1.5)):
        table = pa.table({"text": [f"the text of {name}"] * 3, "image": [image] * 3})
        pq.write_table(table, folder / f"{name}.parquet")
    config = CorpusConfig(sources=[Source(path=str(folder))])
    with pytest.raises(UserError, match="values of different kinds"):
        build_from(config, tmp_path / "out")
