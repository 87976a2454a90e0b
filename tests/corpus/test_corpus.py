from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.corpus.building import build_from
from tianti.corpus.batch import text_column
from tianti.corpus.clean import clean_text, clean_texts
from tianti.corpus.config import CleanConfig, CorpusConfig, Source
from tianti.corpus.document import content_id
from tianti.corpus.split import Shares, cut_sections, derived_share, section_chars
from tianti.corpus.table import read_documents
from tianti.errors import UserError


def build(folder, out, **settings):
    return build_from(CorpusConfig(sources=[Source(path=str(folder))], **settings), out)


def all_rows(out):
    return [row for split in ("train", "validation", "test") for row in read_documents(out / split)]


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text):
    once = clean_text(text, CleanConfig())
    assert clean_text(once, CleanConfig()) == once


ODD = st.text(alphabet="a\n\r\t \x00\x7f中é\u0301Ãâ€Â\xa0\xbf", max_size=40)


@given(st.lists(ODD | st.text(), max_size=6), st.sampled_from(["NFC", "NFKC", "none"]))
@settings(deadline=None)
def test_cleaning_many_texts_is_cleaning_each(texts, form):
    config = CleanConfig(normalize=form)
    cleaned = clean_texts(text_column(texts), config)
    assert cleaned.column.to_pylist() == [clean_text(text, config) for text in texts]
    assert cleaned.bytes_in == sum(len(text.encode("utf-8", "replace")) for text in texts)


def test_cleaning_makes_text_canonical():
    decomposed = unicodedata.normalize("NFD", "café")
    assert (
        clean_text(f"\n{decomposed}\r\nb\x00\x1b \t\nc\n\n\n\n\nd\n", CleanConfig())
        == "café\nb\nc\n\n\nd"
    )
    assert clean_text("ＡＢＣ１２３", CleanConfig()) == "ＡＢＣ１２３"
    assert clean_text("ＡＢＣ１２３", CleanConfig(normalize="NFKC")) == "ABC123"


@given(st.text(max_size=3000), st.integers(min_value=2, max_value=200))
def test_sections_join_to_the_text_and_keep_the_limit(text, limit):
    pieces = list(cut_sections(text, limit))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)


def test_sections_end_at_a_paragraph_where_there_is_one():
    text = "一" * 60 + "。\n\n" + "二" * 60
    assert list(cut_sections(text, 100)) == ["一" * 60 + "。\n\n", "二" * 60]


def test_every_document_is_in_one_split_and_duplicates_are_gone(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(400):
        (folder / f"{n}.txt").write_text(f"{n % 300} 的内容，长度足够。")
    metrics = build(folder, tmp_path / "out", validation=0.1, test=0.1)
    rows = all_rows(tmp_path / "out")
    assert len({row["text"] for row in rows}) == len(rows) == 300
    assert metrics["funnel"]["dropped"]["exact_duplicate"]["documents"] == 100
    assert metrics["funnel"]["read"]["documents"] == 400
    assert 10 <= metrics["splits"]["test"]["documents"] <= 55
    assert metrics["cjk_share"] > 0.3


def test_the_split_follows_content_alone(tmp_path):
    for name, order in (("a", 1), ("b", -1)):
        (tmp_path / name).mkdir()
        for place, n in enumerate(list(range(300))[::order]):
            (tmp_path / name / f"{place:03d}.txt").write_text(
                f"text number {n} is here to be split"
            )
        build(tmp_path / name, tmp_path / f"out-{name}")
    splits = [
        {row["text"]: row["split"] for row in all_rows(tmp_path / f"out-{name}")} for name in "ab"
    ]
    assert splits[0] == splits[1]


@given(st.text(min_size=1), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_a_smaller_share_only_moves_documents_into_training(text, one, two):
    small, large = sorted((one, two))
    key = np.array([int(content_id(text)[:13], 16) / 16**13])
    before, after = Shares(large, large).splits_of(key), Shares(small, small).splits_of(key)
    assert after[0] in (before[0], "train")


def test_shares_and_sections_are_derived_from_the_amount():
    assert derived_share(1_000_000) == 0.05
    assert derived_share(10**9) == pytest.approx(0.002)
    assert section_chars(1000, 10**6) is None
    assert section_chars(1, 1_000_000) == 2000


def test_one_long_file_is_cut_so_that_it_can_be_split(tmp_path, english_texts):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "book.txt").write_text("\n\n".join(english_texts[:60]))
    metrics = build(tmp_path / "in", tmp_path / "out")
    assert metrics["section_chars"] is not None
    assert all(metrics["splits"][split]["documents"] > 0 for split in metrics["splits"])


@pytest.mark.parametrize("own", [("train",), ("train", "test"), ("train", "validation", "test")])
def test_held_out_splits_that_no_source_is_come_out_of_train(tmp_path, own, english_texts):
    sources = []
    for number, split in enumerate(own):
        path = tmp_path / f"{split}.jsonl"
        texts = [text for n, text in enumerate(english_texts) if n % len(own) == number]
        path.write_text("".join(json.dumps({"text": text * 3}) + "\n" for text in texts))
        sources.append({"path": str(path), "split": split})
    out = tmp_path / "out"
    build_from(CorpusConfig(sources=sources, validation=0.2, test=0.2), out)
    for split in ("train", "validation", "test"):
        rows = list(read_documents(out / split))
        assert rows
        expected = split if split in own else "train"
        assert {Path(row["origin"].rpartition(":")[0]).stem for row in rows} == {expected}
        assert {row["split"] for row in rows} == {split}


def test_short_documents_are_kept(tmp_path):
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": f"好吃{n}"}) + "\n" for n in range(200))
    )
    config = CorpusConfig(sources=[{"path": str(tmp_path / "in.jsonl")}])
    assert build_from(config, tmp_path / "out")["funnel"]["kept"]["documents"] == 200


def test_an_empty_corpus_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(" \n\t\n ")
    with pytest.raises(UserError, match=r"the corpus is empty.*min_chars"):
        build(tmp_path / "in", tmp_path / "out")


def test_a_corpus_too_small_for_its_split_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("just long enough to be one document")
    with pytest.raises(UserError, match=r"too small for its split: 1 documents.*Add text"):
        build(tmp_path / "in", tmp_path / "out")


SOURCE = {"path": "a", "name": "one"}


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"quality": {"thresholds": {"top_5_gram": 0.1}}}, "no rule top_5_gram"),
        ({"languages": {"keep": ["en", "cn"]}}, "cn"),
        ({"balance": {"weights": {"two": 1.0}}}, "no source is called two"),
        ({"balance": {"by": "language", "temperature": 2.0}}, "languages.detect"),
        ({"balance": {"by": "label", "temperature": 2.0}}, "label field"),
    ],
)
def test_settings_that_name_what_is_not_there_are_refused(settings, what):
    with pytest.raises(ValidationError, match=what):
        CorpusConfig.model_validate({"sources": [SOURCE], **settings})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "synonym", "synonyms": "nowhere.txt"},
        {"kind": "paraphrase", "model": "nowhere"},
        {"kind": "back_translate", "there": "nowhere", "back": "nowhere"},
    ],
)
def test_what_the_last_step_needs_is_looked_for_first(tmp_path, change):
    (tmp_path / "a.txt").write_text("Some text that would be read first.")
    with pytest.raises(UserError) as caught:
        build(tmp_path / "a.txt", tmp_path / "out", augment=[change])
    assert "nowhere" in str(caught.value.where)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_broken_file_stops_the_work_when_it_is_met(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("no record\n")
    for name in ("b", "c"):
        # Each is a group of its own.
        (folder / f"{name}.txt").write_text("A line of text.\n" * (33 << 16))
    with pytest.raises(UserError, match="not JSON"):
        build(folder, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.parquet"))) <= 1
