"""Texts that say the same in several languages, as documents."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tests.corpus.building import build_from
from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.document import BadInput
from tianti.corpus.sources import read_source
from tianti.corpus.table import read_documents

PAIRS = [{"en": f"It is {n}  o'clock.\n", "zh": f"现在{n}点。", "id": n} for n in range(40)]


def written(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = ["en,zh,id"] + [f'"{r["en"]}","{r["zh"]}",{r["id"]}' for r in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def of(path, **settings):
    return Source(path=str(path), parallel=["en", "zh"], **settings)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_document_holds_both_texts_either_first(tmp_path, name):
    found = list(read_source(of(written(tmp_path / name, PAIRS))))
    english_first = 0
    for row, document in zip(PAIRS, found, strict=True):
        lines = document.text.split("\n")
        assert sorted(lines) == sorted([f"It is {row['id']} o'clock.", row["zh"]])
        english_first += lines[0].startswith("It")
        assert {key: str(value) for key, value in document.meta.items()} == {"id": str(row["id"])}
    assert 10 < english_first < 30
    assert [d.text for d in read_source(of(tmp_path / name))] == [d.text for d in found]


def test_a_corpus_holds_them(tmp_path):
    config = CorpusConfig(
        sources=[of(written(tmp_path / "a.jsonl", PAIRS))], dedup={"exact": False}
    )
    build_from(config, tmp_path / "out")
    texts = [row["text"] for row in read_documents(tmp_path / "out" / "train")]
    assert len(texts) > 30
    assert all("点" in text and "clock" in text for text in texts)


@pytest.mark.parametrize(
    ("row", "found"), [({"en": "a"}, "found: en"), ({"en": "a", "zh": None}, "'zh'"), ([], "'en'")]
)
def test_a_record_without_one_of_them_is_named(tmp_path, row, found):
    (bad,) = read_source(of(written(tmp_path / "a.jsonl", [row])))
    assert isinstance(bad, BadInput)
    assert bad.origin.endswith("a.jsonl:1")
    assert found in bad.reason


def test_a_parquet_file_without_one_of_them_is_named(tmp_path):
    (bad,) = read_source(of(written(tmp_path / "a.parquet", [{"de": "a", "en": "b"}])))
    assert isinstance(bad, BadInput)
    assert "found: de, en" in bad.reason


@pytest.mark.parametrize("settings", [{"parallel": ["en"]}, {"parallel": ["a", "b"], "text": "c"}])
def test_one_text_or_two_ways_to_name_it_are_refused(settings):
    with pytest.raises(ValidationError, match="parallel"):
        Source(path="a.jsonl", **settings)
