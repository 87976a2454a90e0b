"""`tianti corpus …` on files that the user names, and a corpus at a glance."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tianti.corpus.overview import histogram, overview, phrases
from tianti.errors import UserError


def lines(text):
    return [json.loads(line) for line in text.split("\n") if line]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_extract_prints_the_text_of_files_of_many_kinds(call, tmp_path):
    (tmp_path / "a.html").write_text(
        "<html><body><nav>Home</nav><article><p>"
        + "The main text is here. " * 20
        + "</p></article><footer>©</footer></body></html>"
    )
    write_jsonl(tmp_path / "b.jsonl", [{"text": "一\u2028二", "n": 1}])
    (tmp_path / "c.jsonl").write_text('{"text": broken\n')
    names = [tmp_path / name for name in ("a.html", "b.jsonl", "c.jsonl")]
    code, out, err = call("corpus", "extract", *names)
    html, record, bad = lines(out)
    assert code == 0
    assert html["text"].startswith("The main text is here.")
    assert "Home" not in html["text"]
    assert (record["text"], record["meta"]) == ("一\u2028二", {"n": 1})
    assert bad["origin"].endswith("c.jsonl:1")
    assert "not JSON" in bad["error"]
    assert "c.jsonl:1: this line is not JSON" in err
    assert call("corpus", "extract", names[2])[0] == 2
    assert call("corpus", "extract", tmp_path / "nothing.txt")[0] == 2


def test_languages_are_added_to_records(call, tmp_path):
    rows = [
        {"body": "The weather was fine and everyone went out for a walk.", "id": 1},
        {"body": "今天天气很好，大家都出去散步了。", "id": 2},
        {"body": "今日はとても天気がいいので、散歩に行きましょう。", "id": 3},
        {"body": "오늘은 날씨가 아주 좋아서 모두 산책을 나갔다.", "id": 4},
        {"body": "12345 67890", "id": 5},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    code, out, _ = call("corpus", "detect-language", path, "--field", "body")
    found = lines(out)
    assert code == 0
    assert [row["language"] for row in found] == ["en", "zh", "ja", "ko", "und"]
    assert [row["id"] for row in found] == [1, 2, 3, 4, 5]
    assert found[0]["body"] == rows[0]["body"]


def test_redaction_says_where_each_find_stood(call, tmp_path):
    text = "Write to ann@example.org or call 13812345678."
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "k": "v"}, {"text": "nothing"}])
    _, out, _ = call("corpus", "redact", path, "--spans")
    first, second = lines(out)
    assert first["text"] == "Write to <EMAIL> or call <PHONE>."
    found = [(text[span["start"] : span["end"]], span["kind"]) for span in first["spans"]]
    assert found == [("ann@example.org", "email"), ("13812345678", "phone")]
    assert second["spans"] == []
    _, out, _ = call("corpus", "redact", path, "--kind", "email")
    assert lines(out)[0]["text"] == "Write to <EMAIL> or call 13812345678."
    code, _, err = call("corpus", "redact", path, "--kind", "shoe")
    assert code == 2
    assert "no kind 'shoe'" in err


@pytest.fixture
def repeated(tmp_path, english_texts):
    texts = english_texts[:30]
    rows = [{"text": text, "n": n} for n, text in enumerate(texts)]
    rows += [{"text": texts[n], "n": 100 + n} for n in range(5)]
    rows += [{"text": texts[7] + " And a few more words.", "n": 200}]
    rows += [{"text": 5}, {"text": "only this one is new"}]
    return write_jsonl(tmp_path / "in.jsonl", rows), texts


def test_dedup_writes_what_is_left_and_who_repeats_whom(call, tmp_path, repeated):
    path, texts = repeated
    out = tmp_path / "out"
    code, printed, _ = call("corpus", "dedup", path, "--out", out, "--json")
    summary = json.loads(printed)
    assert code == 0
    kept = pq.read_table(out / "documents").to_pylist()
    assert len(kept) == summary["funnel"]["kept"]["documents"] == 31
    assert {row["text"] for row in kept} == {
        *texts[:7],
        texts[7] + " And a few more words.",
        *texts[8:],
        "only this one is new",
    }
    clusters = pq.read_table(out / "clusters.parquet").to_pylist()
    assert sorted(row["kind"] for row in clusters) == ["exact"] * 5 + ["near"]
    near = next(row for row in clusters if row["kind"] == "near")
    assert (near["origin"], near["kept_origin"]) == (f"{path}:8", f"{path}:36")
    quarantined = lines((out / "quarantine.jsonl").read_text())
    assert summary["bad_inputs"] == len(quarantined) == 1
    assert not (out / ".prepared").exists()
    # The same folder again, with other settings: what lay there goes.
    _, printed, _ = call("corpus", "dedup", path, "--out", out, "--exact-only")
    assert pq.read_table(out / "documents").num_rows == 32
    assert "near_duplicate" not in printed
    assert "exact_duplicate" in printed


def test_nothing_that_is_not_ours_is_touched(call, tmp_path, repeated):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("x")
    code, _, err = call("corpus", "dedup", repeated[0], "--out", tmp_path / "mine")
    assert code == 2
    assert "something else in this folder" in err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["precious.txt"]


def test_a_wrong_field_is_told_with_the_fields_there_are(call, tmp_path, repeated):
    code, _, err = call("corpus", "dedup", repeated[0], "--out", tmp_path / "o", "--field", "body")
    assert code == 2
    assert "no text in the field 'body' (found: text, n)" in err


def test_filter_keeps_what_passes_the_rules(call, tmp_path, repeated):
    path, _ = repeated
    arguments = ["--rules", "gopher_repetition", "--language", "en", "--min-chars", "30", "--json"]
    code, printed, _ = call("corpus", "filter", path, "--out", tmp_path / "o", *arguments)
    summary = json.loads(printed)
    assert code == 0
    assert summary["funnel"]["dropped"]["too_short"]["documents"] == 1
    # Duplicates are not this step's business.
    rows = pq.read_table(tmp_path / "o" / "documents").to_pylist()
    assert len({row["text"] for row in rows}) < len(rows)
    code, _, err = call("corpus", "filter", path, "--out", tmp_path / "p", "--rules", "nonsense")
    assert code == 2
    assert "nonsense" in err


def test_inspect_shows_a_corpus_and_writes_a_page(call, tmp_path, repeated):
    call("corpus", "dedup", repeated[0], "--out", tmp_path / "o")
    code, printed, _ = call("corpus", "inspect", tmp_path / "o", "--json")
    view = json.loads(printed)
    assert code == 0
    assert view["documents"] == 31
    assert view["languages"]["en"] >= 29
    assert sum(view["lengths"]["counts"]) == view["sampled_documents"] == 31
    assert view["clusters"][0]["documents"] == 2
    assert set(view["dropped"]) == {"exact_duplicate", "near_duplicate"}
    _, printed, _ = call("corpus", "inspect", tmp_path / "o", "--html", tmp_path / "page.html")
    assert "31 documents" in printed
    page = (tmp_path / "page.html").read_text("utf-8")
    for figure in ("funnel", "languages", "lengths", "quality"):
        assert f'id="figure-{figure}"' in page
    assert "<script>alert" not in page
    code, _, err = call("corpus", "inspect", tmp_path)
    assert code == 2
    assert "no corpus here" in err


def test_a_run_s_corpus_can_be_inspected(call, finished_run):
    code, printed, _ = call("corpus", "inspect", finished_run / "corpus", "--json")
    view = json.loads(printed)
    assert code == 0
    assert set(view["splits"]) == {"train", "validation", "test"}
    assert json.loads((finished_run / "corpus" / "overview.json").read_text())["documents"]


def test_phrases_are_counted_by_document_and_do_not_overlap():
    texts = (
        ["to be or not to be, that is the question"] * 3
        + ["to be or not"] * 2
        + ["今天天气很好"] * 4
    )
    found = phrases(pa.array(texts), size=4)
    assert found[0] == {"text": "to be or not", "documents": 5}
    assert {"text": "今天天气", "documents": 4} in found
    assert len([row for row in found if "天气" in row["text"]]) <= 2


def test_histograms_leave_out_what_is_no_number():
    found = histogram(np.array([1.0, 2.0, np.nan, np.inf, 3.0]), bins=2)
    assert found["counts"] == [1, 2]
    assert (found["median"], found["mean"]) == (2.0, 2.0)
    assert histogram(np.array([np.nan]))["counts"] == []


def test_a_table_without_text_is_told(tmp_path):
    (tmp_path / "documents").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "documents" / "a.parquet")
    with pytest.raises(UserError, match="no column text"):
        overview(tmp_path)


def test_the_input_is_never_removed_to_make_room(call, tmp_path, repeated):
    call("corpus", "dedup", repeated[0], "--out", tmp_path / "o")
    before = sorted((tmp_path / "o" / "documents").iterdir())
    code, _, err = call("corpus", "filter", tmp_path / "o" / "documents", "--out", tmp_path / "o")
    assert code == 2
    assert "lies in the folder to write to" in err
    assert sorted((tmp_path / "o" / "documents").iterdir()) == before
    # A summary of somebody else's does not make the folder ours.
    (tmp_path / "mine" / "documents").mkdir(parents=True)
    (tmp_path / "mine" / "summary.json").write_text("{}")
    (tmp_path / "mine" / "documents" / "thesis.txt").write_text("x")
    assert call("corpus", "dedup", repeated[0], "--out", tmp_path / "mine")[0] == 2
    assert (tmp_path / "mine" / "documents" / "thesis.txt").is_file()


def test_private_text_is_replaced_in_its_own_place(call, tmp_path):
    row = {"data": {"text": "mail bob@example.com", "n": 1}, "k": float("nan")}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    _, out, _ = call("corpus", "redact", path, "--field", "data.text")
    assert "bob@example.com" not in out
    (found,) = lines(out)
    assert found["data"] == {"text": "mail <EMAIL>", "n": 1}
    assert found["k"] is None


def test_what_cannot_be_inspected_is_told(call, tmp_path):
    (tmp_path / "documents").mkdir()
    pq.write_table(pa.table({"text": ["one", None, "two"]}), tmp_path / "documents" / "a.parquet")
    code, out, _ = call("corpus", "inspect", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["sampled_documents"] == 2
    (tmp_path / "documents" / "b.parquet").write_bytes(b"PAR1 no")
    code, _, err = call("corpus", "inspect", tmp_path)
    assert code == 2
    assert "not a readable Parquet" in err
