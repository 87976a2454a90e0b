"""What stands in the training text is found item by item."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pyarrow as pa
import pytest

from tests.judge.conftest import write_rows
from tests.judge.test_tasks import items_of
from tianti.api import answering, evaluate
from tianti.corpus.table import read_texts
from tianti.evaluate.contamination import FILTER, TrainingText
from tianti.progress import SILENT

ENGLISH = " ".join(f"word{n}" for n in range(60))
CHINESE = "今天天气很好我们决定去公园里散步并且看看湖边新开的荷花还有很多孩子在放风筝"


def made(*texts):
    return TrainingText.of_batches([pa.array(texts, pa.large_string())], sum(map(len, texts)), "x")


@pytest.mark.parametrize(
    ("item", "share"),
    [
        (ENGLISH, 1.0),
        ("before " + " ".join(ENGLISH.split()[7:20]) + " after", 1 / 3),
        (" ".join(ENGLISH.split()[7:19]) + " other", 0.0),
        ("too short", None),
        (CHINESE[5:25], 1.0),
        (CHINESE[5:24] + "鱼", 0.0),
        (CHINESE[:10], None),
        ("", None),
    ],
)
def test_runs_of_13_words_or_20_characters_are_found(item, share):
    assert made(ENGLISH, CHINESE).shares([[item]]) == [share]


def test_an_item_is_all_its_texts():
    found = made(ENGLISH).shares([["no", ENGLISH], [], ["no", "nor this"]])
    assert found[0] == 1
    assert found[1:] == [None, None]


def test_few_runs_seem_to_stand_there_that_do_not(rng):
    names = rng.permutation(40_000)
    training = [" ".join(f"w{n}" for n in names[i : i + 100]) for i in range(0, 20_000, 100)]
    others = [" ".join(f"w{n}" for n in names[i : i + 100]) for i in range(20_000, 40_000, 100)]
    text = made(*training)
    assert text.shares([[one] for one in training]) == [1.0] * 200
    assert np.mean(text.shares([[one] for one in others])) < 1e-3


def test_a_planted_leak_is_found_and_told_apart(finished_run, tasks, tmp_path):
    leaked = next(text for text in read_texts(finished_run / "corpus" / "train") if len(text) > 300)
    planted = " ".join(leaked[40:280].split()[1:-1])
    clean = " ".join(f"unheard{n} thing{n}" for n in range(20))
    rows = [{"text": clean}, {"text": "short"}, {"text": planted}, {"text": clean[10:]}]
    write_rows(tasks / "test.jsonl", rows)
    (tasks / "leak.yaml").write_text("name: leak\nkind: perplexity\ndata: test.jsonl\n")
    model, _ = answering(finished_run)
    out = tmp_path / "out"
    found = evaluate(model, [str(tasks / "leak.yaml")], out=out, display=SILENT)["leak"]
    shares = [item["in_training"] for item in items_of(out, "leak")]
    assert shares[0] == shares[3] == 0
    assert shares[1] is None
    assert shares[2] == 1
    counts = {name: part["n"] for name, part in found["contamination"].items()}
    assert counts == {"clean": 2, "touched": 1, "too_short": 1}
    assert "Does it stand in the training text" in (out / "evaluate.html").read_text("utf-8")
    stamp = (out / FILTER).stat().st_mtime_ns
    evaluate(model, [str(tasks / "leak.yaml")], out=out, changes={"limit": 2}, display=SILENT)
    assert (out / FILTER).stat().st_mtime_ns == stamp, "made once"
    # A copy of the run is the same text, whenever it was made.
    shutil.copytree(finished_run / "corpus", tmp_path / "copied")
    for path in (tmp_path / "copied").rglob("*"):
        os.utime(path, (0, 0))
    copied = TrainingText.of_corpus(tmp_path / "copied" / "train", tmp_path / "of-copy")
    assert (
        copied.identity == TrainingText.of_corpus(finished_run / "corpus" / "train", out).identity
    )
    (out / FILTER).write_bytes(b"torn")
    evaluate(model, [str(tasks / "leak.yaml")], out=out, changes={"limit": 3}, display=SILENT)
    assert (out / FILTER).stat().st_size > 100, "made again"
