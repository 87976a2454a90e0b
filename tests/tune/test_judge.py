"""Figures of the test beside scikit-learn and SciPy."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tune.conftest import write
from tianti.tune.form import Form
from tianti.tune.judge import figures_of
from tianti.tune.shown import shown_predictions
from tianti.tune.tags import spans_of

metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

LABELS = ("a", "b", "c")


def figures(form, examples, found):
    statistics, classes = figures_of(SimpleNamespace(form=form), examples, found)
    ones = np.ones(len(examples))
    return {name: statistic(ones) for name, statistic in statistics.items()}, classes


def test_one_class():
    draw = random.Random(0)
    true = [draw.choice("aab") for _ in range(80)]
    said = [one if draw.random() < 0.6 else draw.choice(LABELS) for one in true]
    examples = [{"label": one} for one in true]
    found = [{"label": one} for one in said]
    got, classes = figures(Form("classify", 8, LABELS), examples, found)
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(true, said))
    assert got["macro_f1"] == pytest.approx(
        metrics.f1_score(true, said, average="macro", labels=LABELS)
    )
    assert got["mcc"] == pytest.approx(metrics.matthews_corrcoef(true, said))
    each = metrics.precision_recall_fscore_support(true, said, labels=LABELS, zero_division=0)
    for number, label in enumerate(LABELS):
        row = [classes[label][name] for name in ("precision", "recall", "f1", "support")]
        assert row == pytest.approx([part[number] for part in each], abs=1e-4)


def test_several_classes():
    draw = random.Random(1)
    sets = [[one for one in LABELS if draw.random() < 0.4] for _ in range(120)]
    examples = [{"label": one} for one in sets[:60]]
    found = [{"labels": one} for one in sets[60:]]
    got, _ = figures(Form("classify", 8, LABELS, True), examples, found)
    true, said = (
        np.array([[label in one for label in LABELS] for one in part])
        for part in (sets[:60], sets[60:])
    )
    assert got["exact"] == pytest.approx(metrics.accuracy_score(true, said))
    for average in ("micro", "macro"):
        expected = metrics.f1_score(true, said, average=average)
        assert got[f"{average}_f1"] == pytest.approx(expected)


def test_numbers_with_ties():
    generator = np.random.default_rng(2)
    true = generator.integers(0, 6, 50).astype(float)
    said = true + generator.integers(-2, 3, 50)
    examples = [{"label": value} for value in true]
    got, _ = figures(Form("regress", 8), examples, [{"value": value} for value in said])
    assert got["mse"] == pytest.approx(metrics.mean_squared_error(true, said))
    assert got["pearson"] == pytest.approx(stats.pearsonr(true, said).statistic)
    assert got["spearman"] == pytest.approx(stats.spearmanr(true, said).statistic)


def test_entities_count_where_both_ends_and_the_kind_are_right():
    examples = [
        {"entities": [[0, 2, "a"], [3, 5, "b"]]},
        {"entities": [[0, 4, "c"]]},
        {"entities": []},
    ]

    def told(*spans):
        return {"entities": [{"start": s, "end": e, "type": k} for s, e, k in spans]}

    found = [told((0, 2, "a"), (3, 5, "a")), told((0, 3, "c")), told((1, 2, "b"))]
    got, classes = figures(Form("tag", 8, LABELS), examples, found)
    # One of four that were told, and of three that there are, is right.
    assert got["span_f1"] == pytest.approx(2 * 1 / (4 + 3))
    assert classes["a"]["precision"] == 0.5
    assert classes["a"]["recall"] == 1.0
    assert classes["c"]["f1"] == 0.0


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-a I-a O B-b", [(0, 2, "a"), (3, 4, "b")]),
        ("B-a B-a I-a", [(0, 1, "a"), (1, 3, "a")]),
        ("I-a I-b I-b", [(0, 1, "a"), (1, 3, "b")]),
        ("O I-a O I-a", [(1, 2, "a"), (3, 4, "a")]),
    ],
)
def test_what_tags_tell(tags, spans):
    each = tags.split()
    assert spans_of(each, [(n, n + 1) for n in range(len(each))]) == spans


def test_examples_are_shown_whatever_ends_lines_in_them(tmp_path):
    texts = ["a\u2028b", "c\u0085d", "e\rf\x0bg\x1ch"]
    rows = [{"text": t, "label": "x", "predicted": {"label": "y", "scores": {}}} for t in texts]
    write(tmp_path / "predictions.jsonl", rows)
    found = shown_predictions(tmp_path / "predictions.jsonl")
    assert [one["asked"] for one in found] == texts
