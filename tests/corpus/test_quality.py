from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tianti.corpus.config import ClassifierConfig, PerplexityConfig, QualityConfig
from tianti.corpus.filters import failing_rules, rules_table, statistics_needed
from tianti.corpus.learned import (
    bits_per_byte_column,
    quality_column,
    train_classifier,
    train_perplexity,
)
from tianti.corpus.rules import RULES
from tianti.corpus.statistics import NAMES, document_statistics
from tianti.errors import UserError

GOOD = (
    "The committee met on Monday to discuss the new budget with all of the members. "
    "They agreed that the proposal would have to be changed before the vote. "
    "Several speakers said the plan was a good one, and that it ought to be funded. "
    "The chair thanked the staff for their work and closed the meeting at noon. "
    "A second session will be held in the spring, when the figures are known."
)
ZH_GOOD = (
    "春天的早晨，阳光从窗外照进来，落在书桌上。他放下手中的笔，抬头看了看远处的山。"
    "昨天的雨已经停了，空气里有泥土的味道。街上的人不多，只有几个老人在散步。"
    "他想起小时候和祖父一起去河边钓鱼的日子，那时候的水很清，可以看见水底的石头。"
)


def statistics(text):
    columns = document_statistics(pa.array([text], pa.large_string()))
    return {name: float(columns[name][0].as_py()) for name in NAMES}


def reasons(text, filters, chinese=False, **thresholds):
    config = QualityConfig(filters=filters, thresholds=thresholds)
    columns = {
        name: column.to_numpy()
        for name, column in document_statistics(pa.array([text], pa.large_string())).items()
    }
    failed, names = failing_rules(columns, config, np.array([chinese]))
    return None if failed[0] < 0 else names[failed[0]]


def plain(text):
    """Repetition as Gopher and datatrove define it, in plain Python, for words without signs."""
    words = text.split()
    out = {"words": len(words), "mean_word_length": np.mean([len(word) for word in words])}
    paragraphs = re.split(r"\n{2,}", text.strip())
    lines = re.split(r"\n+", text)
    for name, parts in (("paragraph", paragraphs), ("line", lines)):
        repeated = [part for n, part in enumerate(parts) if part in parts[:n]]
        out[f"dup_{name}s"] = len(repeated) / len(parts)
        out[f"dup_{name}_chars"] = sum(map(len, repeated)) / len(text)
    for n in range(2, 11):
        grams = [words[i : i + n] for i in range(len(words) - n + 1)]
        if n < 5:
            if grams:
                top = Counter(map(" ".join, grams)).most_common(1)[0]
                out[f"top_{n}_gram"] = len(top[0]) * top[1] / len(text)
            continue
        seen: set[str] = set()
        chars = place = 0
        while place < len(grams):
            gram = "".join(grams[place])
            if gram in seen:
                chars += len(gram)
                place += n
            else:
                seen.add(gram)
                place += 1
        out[f"dup_{n}_gram"] = chars / len(text)
    return out


simple_texts = st.lists(
    st.tuples(st.sampled_from(["aa", "bbb", "c", "dddd"]), st.sampled_from([" ", "\n", "\n\n"])),
    min_size=3,
    max_size=60,
).map(lambda parts: "".join(word + gap for word, gap in parts).strip())


@given(simple_texts)
@settings(max_examples=150, deadline=None)
def test_repetition_is_what_a_plain_loop_finds(text):
    got = statistics(text)
    for name, value in plain(text).items():
        assert got[name] == pytest.approx(value, abs=1e-5), name


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_measured(text):
    got = statistics(text)
    assert got["words"] >= 0
    assert not text or 0 <= got["stop_words"] <= 8


def test_words_are_told_as_spacy_tells_them():
    for text, count in (
        ("I don't know.", 4),
        ("It's Mr. Smith's U.S. office", 7),
        ("well-known e-mail", 4),
        ("(see below), etc.", 3),
        ("今天下雨", 4),
    ):
        assert statistics(text)["words"] == count, text


def test_good_text_passes_all_rules():
    long = " ".join([GOOD, GOOD.replace("The", "Our").replace("committee", "board")])
    assert reasons(long, ["gopher_quality", "c4"]) is None
    assert reasons(GOOD, ["gopher_quality", "gopher_repetition", "c4"]) is None
    assert reasons(ZH_GOOD, ["chinese"], chinese=True) is None


@pytest.mark.parametrize(
    ("text", "filters", "reason"),
    [
        ("Too short to stay.", "gopher_quality", "gopher_short_doc"),
        (" ".join(["extraordinarily"] * 60), "gopher_quality", "gopher_above_avg_threshold"),
        ("# " * 30 + GOOD, "gopher_quality", "gopher_too_many_hashes"),
        (
            "\n".join(f"- {line}" for line in GOOD.split(". ")),
            "gopher_quality",
            "gopher_too_many_bullets",
        ),
        (
            " ".join(f"{n} {n + 1}" for n in range(100, 160)),
            "gopher_quality",
            "gopher_below_alpha_threshold",
        ),
        (
            "Green ideas sleep furiously tonight. " * 15,
            "gopher_quality",
            "gopher_enough_stop_words",
        ),
        ((GOOD + "\n\n") * 4, "gopher_repetition", "dup_para_frac"),
        ("Home page\nLog in\n" * 30, "gopher_repetition", "dup_line_frac"),
        ("buy it now " * 60, "gopher_repetition", "top_2_gram"),
        (GOOD + " Lorem ipsum dolor sit amet.", "c4", "lorem_ipsum"),
        (GOOD + " if (x) { y }.", "c4", "curly_bracket"),
        ("One sentence only stands here.", "c4", "too_few_sentences"),
        ("Menu\nHome\nAbout us\nContact\n" * 5, "fineweb", "line_punct_ratio"),
        ("太短了。", "chinese", "zh_short_doc"),
        ("abc def " * 60 + ZH_GOOD, "chinese", "zh_few_characters"),
        (ZH_GOOD.replace("，", "").replace("。", "") * 2, "chinese", "zh_no_punctuation"),
    ],
)
def test_each_rule_drops_what_it_is_for(text, filters, reason):
    assert reasons(text, [filters], chinese=filters == "chinese") == reason


def test_thresholds_can_be_moved_and_switched_off():
    text = "Too short to stay."
    assert reasons(text, ["gopher_quality"], gopher_short_doc=3, gopher_enough_stop_words=0) is None
    assert (
        reasons(text, ["gopher_quality"], gopher_short_doc=None, gopher_enough_stop_words=0) is None
    )
    with pytest.raises(ValidationError, match="no rule nonsense"):
        reasons(text, ["c4"], nonsense=1)


def test_chinese_rules_are_for_chinese_and_the_others_for_the_rest():
    assert reasons(ZH_GOOD, ["gopher_quality", "chinese"], chinese=True) is None
    assert reasons(GOOD, ["gopher_quality", "chinese"], chinese=False) is None


def test_every_rule_looks_at_a_statistic_that_is_taken():
    every = QualityConfig(filters=list(RULES))
    assert set(statistics_needed(every)) <= set(NAMES)
    names = [row["rule"] for row in rules_table()]
    assert len(names) == len(set(names))


def sample_files(tmp_path, english_texts):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
    for number, text in enumerate(english_texts[:60]):
        (good / f"{number}.txt").write_text(text[:2000], "utf-8")
        words = text[:2000].split()
        (bad / f"{number}.txt").write_text("CLICK here win $$$ " + " ".join(words[::-1]), "utf-8")
    return good, bad


def test_a_classifier_learns_good_from_bad(tmp_path, english_texts):
    good, bad = sample_files(tmp_path, english_texts)
    train_classifier(ClassifierConfig(good=str(good), bad=str(bad)), tmp_path / "c.npy")
    fresh = [text[:2000] for text in english_texts[60:]]
    spoilt = ["CLICK here win $$$ " + " ".join(text.split()[::-1]) for text in fresh]
    scores = quality_column(pa.array(fresh + spoilt), str(tmp_path / "c.npy")).to_numpy()
    assert (scores[: len(fresh)] > 0.5).mean() > 0.95
    assert (scores[len(fresh) :] < 0.5).mean() > 0.95


def test_an_n_gram_model_finds_its_own_language_likely(tmp_path, english_texts):
    (tmp_path / "reference.txt").write_text("\n\n".join(english_texts[:60]), "utf-8")
    config = PerplexityConfig(reference=str(tmp_path / "reference.txt"))
    train_perplexity(config, tmp_path / "p.npy")
    noise = "".join(np.random.default_rng(0).choice(list("qzxjkvw"), 500))
    texts = [english_texts[70], "他说今天下雨，明天也许天晴。", noise, "", english_texts[3]]
    bits = bits_per_byte_column(pa.array(texts), str(tmp_path / "p.npy")).to_numpy()
    assert bits[4] < bits[0] < bits[1]
    assert bits[0] < 3
    assert bits[2] > 5
    assert np.isnan(bits[3])


def test_a_sample_without_text_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("  ")
    with pytest.raises(UserError, match="no text here"):
        train_perplexity(PerplexityConfig(reference=str(tmp_path / "a.txt")), tmp_path / "p.npy")
