"""Steps that look at more than one document: lines, evaluation sets, meaning, balance of splits."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.building import build_from
from tianti.corpus.config import CorpusConfig
from tianti.corpus.table import read_documents
from tianti.errors import UserError


def write_jsonl(path, texts, **fields):
    path.write_text(
        "".join(json.dumps({"text": text, **fields}, ensure_ascii=False) + "\n" for text in texts),
        "utf-8",
    )
    return path


def all_rows(out):
    return [row for split in ("train", "validation", "test") for row in read_documents(out / split)]


def build(tmp_path, sources, **settings):
    config = CorpusConfig(
        sources=[
            source if isinstance(source, dict) else {"path": str(source)} for source in sources
        ],
        **{"validation": 0.1, "test": 0.1} | settings,
    )
    out = tmp_path / "out"
    return build_from(config, out), out


def paragraphs(english_texts, count=300):
    found = [p for text in english_texts for p in text.split("\n\n") if 80 < len(p) < 900]
    return list(dict.fromkeys(found))[:count]


def test_lines_that_all_pages_of_a_source_carry_go(tmp_path, english_texts):
    pages = [
        f"Home | About us | Contact\n{p}\n版权所有 © 某某网站保留一切权利"
        for p in paragraphs(english_texts)
    ]
    site = write_jsonl(tmp_path / "site.jsonl", pages)
    others = [
        f"Home | About us | Contact\n{n} {p[:200]} once only"
        for n, p in enumerate(paragraphs(english_texts, 3))
    ]
    other = write_jsonl(tmp_path / "other.jsonl", others)
    _, out = build(tmp_path, [site, other], clean={"boilerplate_lines": 20}, dedup={"near": False})
    texts = [row["text"] for row in all_rows(out)]
    assert len(texts) > 300
    carried = [text for text in texts if "Home | About us" in text]
    # In the other source the line stands three times only.
    assert len(carried) == 3
    assert not any("版权所有" in text for text in texts)


def test_a_repeated_line_stays_where_it_comes_first(tmp_path, english_texts):
    shared = "This very line is quoted in many of the documents."
    texts = [f"{p}\n{shared}\nend {n}" for n, p in enumerate(paragraphs(english_texts, 250))]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    _, out = build(tmp_path, [path], dedup={"lines": 5, "near": False})
    found = [row["text"] for row in all_rows(out)]
    assert sum(shared in text for text in found) == 1
    assert len(found) == 250


@pytest.mark.parametrize("language", ["en", "zh"])
def test_documents_that_hold_evaluation_text_go_and_the_match_is_shown(
    tmp_path, english_texts, language
):
    if language == "en":
        secret = "the committee decided on a rainy tuesday to paint all seventeen"
        secret += " bridges bright green again"
        near_miss = " ".join(secret.split()[:12])
    else:
        secret = "那年冬天祖母在灯下给我讲了一个关于会说话的石狮子的故事"
        near_miss = secret[:19]
    evaluation = write_jsonl(tmp_path / "eval.jsonl", ["short"], question=secret.upper())
    texts = paragraphs(english_texts, 240)
    texts[7] += f" And {secret}, they said."
    texts[8] += f" And {near_miss}."
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    against = {"decontaminate": {"against": [{"path": str(evaluation)}]}, "dedup": {"near": False}}
    metrics, out = build(tmp_path, [path], **against)
    assert metrics["funnel"]["dropped"]["in_evaluation_set"]["documents"] == 1
    assert not any(secret in row["text"] for row in all_rows(out))
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert dropped[0]["reason"] == "in_evaluation_set"
    assert "eval.jsonl" in dropped[0]["contaminated_text"]
    assert dropped[0]["contaminated_text"].split(": ", 1)[1] in secret
    against["decontaminate"]["action"] = "report"
    metrics, _ = build(tmp_path, [path], **against)
    assert "in_evaluation_set" not in metrics["funnel"]["dropped"]


def test_near_duplicates_never_straddle_train_and_test(tmp_path, english_texts):
    texts = []
    for number, text in enumerate(english_texts[:70] * 2):
        words = f"{number} {text[:2500]} {text[:2500][::-1]} {number}".split()
        for copy in range(4):
            changed = words[:]
            changed[len(words) // 2] = f"changed{number}x{copy}"
            texts.append(" ".join(changed))
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    settings = {"dedup": {"near": "group"}, "validation": 0.2, "test": 0.2}
    metrics, out = build(tmp_path, [path], **settings)
    assert metrics["funnel"]["kept"]["documents"] == len(texts)
    where: dict[str, set[str]] = {}
    for row in all_rows(out):
        where.setdefault(row["text"][:60], set()).add(row["split"])
    assert sum(len(splits) > 1 for splits in where.values()) == 0
    assert {split for splits in where.values() for split in splits} == {
        "train",
        "validation",
        "test",
    }
    dropped, _ = build(tmp_path, [path])
    assert dropped["funnel"]["dropped"]["near_duplicate"]["documents"] >= 440


def test_the_longest_of_a_cluster_stays_or_the_first(tmp_path, english_texts):
    base = english_texts[10][:3000]
    texts = [base, base + " and a little more at the end of it", base[:-20]]
    texts += paragraphs(english_texts, 220)
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    for keep, wanted in (("longest", texts[1]), ("first", texts[0])):
        _, out = build(tmp_path, [path], dedup={"keep": keep})
        found = {row["text"] for row in all_rows(out)} & set(texts[:3])
        assert found == {wanted}
        clusters = pq.read_table(out / "clusters.parquet").to_pylist()
        of_base = [row for row in clusters if row["kind"] == "near"][:2]
        assert {row["kept_origin"] for row in of_base} == {f"{path}:{texts.index(wanted) + 1}"}


def test_documents_that_mean_the_same_are_told_by_vectors(tmp_path, english_texts, rng):
    texts = paragraphs(english_texts, 250)
    vectors = rng.normal(size=(250, 16)).astype(np.float32)
    vectors[100] = vectors[3] * 2 + 0.001
    table = pa.table({"text": texts, "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    source = {"path": str(tmp_path / "a.parquet"), "carry": ["vector"]}
    settings = {"dedup": {"near": False, "embeddings": "vector"}}
    metrics, _ = build(tmp_path, [source], **settings)
    assert metrics["funnel"]["dropped"] == {
        "semantic_duplicate": {
            "documents": 1,
            "bytes": min(len(texts[3].encode()), len(texts[100].encode())),
        }
    }
    with pytest.raises(UserError, match="no column of vectors 'nothing'"):
        build(tmp_path, [source], dedup={"near": False, "embeddings": "nothing"})


def test_languages_are_kept_and_named(tmp_path, english_texts):
    chinese = [
        f"{n}号公告：今天的会议改到下午三点，请各位同事准时参加，不要迟到。" for n in range(150)
    ]
    path = write_jsonl(tmp_path / "a.jsonl", paragraphs(english_texts, 150) + chinese)
    metrics, out = build(tmp_path, [path], languages={"keep": ["zh"]}, dedup={"near": False})
    assert {row["language"] for row in all_rows(out)} == {"zh"}
    assert metrics["languages"] == {"zh": 150}
    assert metrics["funnel"]["dropped"]["other_language"]["documents"] == 150


def test_private_things_are_replaced_before_anything_is_kept(tmp_path, english_texts):
    texts = [
        f"{p} Write to person{n}@example.org." for n, p in enumerate(paragraphs(english_texts, 220))
    ]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    metrics, out = build(tmp_path, [path], privacy={"redact": ["email"]})
    assert all("@example.org" not in row["text"] for row in all_rows(out))
    assert any("<EMAIL>" in row["text"] for row in all_rows(out))
    assert metrics["funnel"]["kept"]["documents"] >= 200


def test_thresholds_can_be_retuned_without_measuring_again(tmp_path, english_texts):
    from tianti.corpus.stage import prepare_config

    def prepared(**quality):
        return prepare_config(CorpusConfig(sources=[{"path": "x"}], quality=quality))

    one = prepared(filters=["gopher_quality"])
    assert one == prepared(filters=["gopher_quality", "c4"], thresholds={"gopher_short_doc": 9})
    assert one != prepared(filters=[])
    path = write_jsonl(tmp_path / "a.jsonl", paragraphs(english_texts, 300))
    strict, _ = build(tmp_path, [path], quality={"filters": ["gopher_quality"]})
    settings = {"filters": ["gopher_quality"], "thresholds": {"gopher_short_doc": 5}}
    loose, _ = build(tmp_path, [path], quality=settings)
    short = strict["funnel"]["dropped"]["gopher_short_doc"]["documents"]
    assert short > loose["funnel"]["dropped"].get("gopher_short_doc", {"documents": 0})["documents"]


def test_an_evaluation_set_that_cannot_be_read_stops_the_run(tmp_path, english_texts):
    path = write_jsonl(tmp_path / "a.jsonl", paragraphs(english_texts, 220))
    evaluation = tmp_path / "eval.jsonl"
    for text, reason in (('{"question": "what?"}\n', "no text in the field"), ("", "no text here")):
        evaluation.write_text(text)
        with pytest.raises(UserError, match=reason):
            build(tmp_path, [path], decontaminate={"against": [{"path": str(evaluation)}]})


def test_another_evaluation_set_in_the_same_process_counts(tmp_path, english_texts):
    texts = paragraphs(english_texts, 260)
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    found = []
    for part in (texts[:3], texts[3:10]):
        evaluation = write_jsonl(tmp_path / "eval.jsonl", part)
        against = {"against": [{"path": str(evaluation)}]}
        metrics, _ = build(tmp_path, [path], decontaminate=against)
        found.append(metrics["funnel"]["dropped"]["in_evaluation_set"]["documents"])
    assert found[0] < found[1]


def test_what_is_held_out_already_is_not_mixed_with_anything_else(tmp_path, english_texts):
    texts = paragraphs(english_texts, 300)
    mine = write_jsonl(tmp_path / "mine.jsonl", texts[:250])
    official = write_jsonl(tmp_path / "official.jsonl", texts[250:])
    sources = [{"path": str(mine)}, {"path": str(official), "split": "test"}]
    _, out = build(tmp_path, sources, dedup={"near": False})
    assert {row["source"] for row in read_documents(out / "test")} == {str(official)}
    assert {row["source"] for row in read_documents(out / "validation")} == {str(mine)}


def test_copies_are_not_counted_among_what_was_kept(tmp_path, english_texts):
    path = write_jsonl(tmp_path / "a.jsonl", paragraphs(english_texts, 260))
    metrics, _ = build(tmp_path, [path], augment=[{"kind": "swap", "share": 0.5}])
    kept = metrics["funnel"]["kept"]["documents"]
    assert metrics["augmented"] > 50
    assert sum(s["documents"] for s in metrics["funnel"]["sources"].values()) == kept


def test_numbers_are_carried_too_and_our_own_names_are_not(tmp_path, english_texts):
    texts = paragraphs(english_texts, 250)
    table = pa.table({"text": texts, "width": list(range(250))})
    pq.write_table(table, tmp_path / "a.parquet")
    _, out = build(tmp_path, [{"path": str(tmp_path / "a.parquet"), "carry": ["width"]}])
    assert all(texts[row["width"]] == row["text"] for row in all_rows(out))
    with pytest.raises(ValueError, match="written already"):
        CorpusConfig(sources=[{"path": "x", "carry": ["id"]}])
