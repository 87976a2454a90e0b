from __future__ import annotations

import json
from collections import Counter
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus.building import build_from
from tianti.corpus.augment import expand, noise
from tianti.corpus.augment.copies import augmented_copies
from tianti.corpus.config import Augmentation, CorpusConfig
from tianti.corpus.document import content_id
from tianti.corpus.table import SCHEMA, read_documents
from tianti.errors import UserError

EN = "The quick brown fox jumps over the lazy dog. Modern companies often buy cheap products. " * 20
ZH = "今天天气很好，我们去公园散步。孩子们非常高兴，因为老师说明天不上课。" * 20
CHARACTER_NOISE = {
    name: getattr(noise, name)
    for name in ("keyboard", "delete", "swap", "homophone", "lookalike", "ocr", "punctuation")
}
SYNONYMS = expand.load_synonyms(None)


@pytest.mark.parametrize("name", ["keyboard", "homophone", "lookalike"])
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_the_rate_is_the_share_of_places_that_change(name, rate):
    text = EN if name == "keyboard" else ZH
    changed = CHARACTER_NOISE[name](text, rate, Random(1))
    everything = CHARACTER_NOISE[name](text, 1.0, Random(1))
    assert len(changed) == len(everything) == len(text)
    places = sum(a != b for a, b in zip(text, everything, strict=True))
    got = sum(a != b for a, b in zip(text, changed, strict=True))
    assert places > 100
    assert got / places == pytest.approx(rate, abs=4 * (rate / places) ** 0.5)


def test_keys_lie_beside_those_that_were_meant():
    changed = noise.keyboard("g" * 500, 1.0, Random(0))
    assert set(changed) == set("tyfhvb")
    assert noise.keyboard("G", 1.0, Random(0)).isupper()
    assert noise.keyboard(ZH, 1.0, Random(0)) == ZH


def test_homophones_sound_the_same():
    from pypinyin import lazy_pinyin

    text = "公司生产产品"
    changed = noise.homophone(text, 1.0, Random(3))
    assert changed != text
    for before, after in zip(text, changed, strict=True):
        assert lazy_pinyin(before) == lazy_pinyin(after)


def test_hearing_leaves_no_case_or_punctuation():
    heard = noise.asr("Their dog, Rex — is HERE! 今天，下雨。明天呢？", 0.2, Random(2))
    assert heard == heard.lower()
    assert not set(",.!—，。？") & set(heard)
    quiet = noise.asr("Don't go.", 1e-9, Random(2))
    assert quiet.strip() == "don't go"


@given(st.text(max_size=200), st.floats(0.01, 1), st.integers(0, 99))
@settings(max_examples=60)
def test_no_noise_fails_on_any_text_and_the_seed_decides(text, rate, seed):
    for change in CHARACTER_NOISE.values():
        assert change(text, rate, Random(seed)) == change(text, rate, Random(seed))
    for change in (expand.random_swap, expand.sentence_shuffle, expand.span_mask):
        change(text, rate, Random(seed))
    expand.random_delete(text, rate, Random(seed))
    assert "".join(expand.pieces(text)) == text


def test_swapped_words_and_sentences_are_the_same_words_and_sentences():
    swapped = expand.random_swap(EN, 0.3, Random(1))
    assert swapped != EN
    assert Counter(expand.pieces(swapped)) == Counter(expand.pieces(EN))
    text = "One. Two! Three? Four. Five.\n一。二！三？四。五。\n"
    shuffled = expand.sentence_shuffle(text, 1.0, Random(2))
    assert shuffled != text
    for before, after in zip(text.splitlines(), shuffled.splitlines(), strict=True):
        assert sorted(before) == sorted(after)


def test_masked_spans_are_about_three_words():
    masked = expand.span_mask(EN, 0.3, Random(1))
    gone = 1 - len([w for w in masked.split() if w != expand.MASK]) / len(EN.split())
    assert 0.15 < gone < 0.45


def test_synonyms_come_from_the_list_that_is_named(tmp_path):
    table = tmp_path / "synonyms.tsv"
    table.write_text("fox\tvixen\n狗,犬\n", "utf-8")
    mine = expand.load_synonyms(str(table))
    assert expand.synonym("A Fox and a fox", 1.0, Random(0), mine) == "A Vixen and a vixen"
    assert expand.synonym("a big dog", 1.0, Random(0), SYNONYMS).split()[1] in (
        "large",
        "huge",
        "great",
    )
    (tmp_path / "wordnet").mkdir()
    (tmp_path / "wordnet" / "data.noun").write_text(
        "  1 licence text\n00001740 03 n 02 dog 0 hound 1 000 | a pet\n"
    )
    assert expand.load_synonyms(str(tmp_path / "wordnet")) == {"dog": ["hound"], "hound": ["dog"]}
    (tmp_path / "empty.tsv").write_text("\n")
    with pytest.raises(UserError, match="no synonyms"):
        expand.load_synonyms(str(tmp_path / "empty.tsv"))


def rows(texts, language=None):
    return pa.Table.from_pylist(
        [
            {"id": content_id(t), "text": t, "origin": str(n), "language": language, "meta": None}
            for n, t in enumerate(texts)
        ],
        schema=SCHEMA,
    )


def copies(texts, **settings):
    step = Augmentation(**settings).model_dump(mode="json")
    now, late = augmented_copies(rows(texts), [step])
    return now.to_pylist(), late.to_pylist()


def test_copies_are_marked_and_a_share_of_documents_gets_one(english_texts):
    texts = [f"{n} {text[:300]}" for n in range(20) for text in english_texts[:40]]
    now, late = copies(texts, kind="keyboard", share=0.25)
    assert not late
    assert 0.2 * len(texts) < len(now) < 0.3 * len(texts)
    originals = {content_id(text): text for text in texts}
    for row in now:
        assert row["augmented"] == "keyboard"
        assert json.loads(row["meta"])["augmented_from"] in originals
        assert row["id"] == content_id(row["text"])
        assert row["text"] not in texts
    assert now == copies(texts, kind="keyboard", share=0.25)[0]
    assert now != copies(texts, kind="keyboard", share=0.25, seed=1)[0]


def test_only_documents_in_the_languages_that_are_named_are_changed(english_texts):
    now, _ = copies([*english_texts[:5], ZH], kind="swap", share=1.0, languages=["zh"])
    assert [row["origin"] for row in now] == ["5~swap"]


def test_late_copies_stand_apart(english_texts):
    now, late = copies(english_texts[:5], kind="delete", share=1.0, late=True)
    assert not now
    assert len(late) == 5


def test_evaluation_text_is_never_augmented(tmp_path, english_texts):
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} {t}"}) + "\n" for n in range(4) for t in english_texts)
    )
    steps = [
        {"kind": "keyboard", "share": 1.0},
        {"kind": "punctuation", "share": 1.0, "rate": 0.5, "late": True},
    ]
    config = CorpusConfig(
        sources=[{"path": str(tmp_path / "in.jsonl")}], augment=steps, validation=0.1, test=0.1
    )
    metrics = build_from(config, tmp_path / "out")
    kinds = {
        split: Counter(row.get("augmented") for row in read_documents(tmp_path / "out" / split))
        for split in ("train", "validation", "test", "late")
    }
    assert set(kinds["validation"]) == set(kinds["test"]) == {None}
    assert kinds["train"]["keyboard"] == kinds["train"][None]
    assert set(kinds["late"]) == {"punctuation"}
    assert metrics["augmented"] == kinds["train"]["keyboard"] + kinds["late"]["punctuation"]


def test_a_model_that_rewrites_must_be_named():
    for kind in ("paraphrase", "back_translate"):
        with pytest.raises(ValueError, match="needs"):
            Augmentation(kind=kind)


def _shouted(texts, model, prompt, seed):
    return [f"{model}: {text.upper()}" for text in texts]


def test_what_rewrites_is_handed_in_from_above(english_texts):
    step = Augmentation(kind="back_translate", there="a", back="b", share=1.0)
    now, _ = augmented_copies(
        rows(english_texts[:2]), [step.model_dump(mode="json")], f"{__name__}:_shouted"
    )
    texts = [row["text"] for row in now.to_pylist()]
    assert texts == [f"b: A: {text.upper()}" for text in english_texts[:2]]
