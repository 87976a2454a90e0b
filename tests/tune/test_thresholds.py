"""Thresholds by F1 beside a search of all there are; figures and sampling by group."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from tests.tune.conftest import carried_out, reviews, several, write
from tianti.api import predict
from tianti.files import read_json
from tianti.tune.config import TuneConfig
from tianti.tune.predictor import Predictor
from tianti.tune.stage import _shares
from tianti.tune.thresholds import each_class, offsets_of


def drawn(seed, count, classes):
    draw = np.random.default_rng(seed)
    shares = {2: [0.8, 0.2], 3: [0.7, 0.2, 0.1]}[classes]
    gold = draw.choice(classes, size=count, p=shares)
    scores = draw.normal(size=(count, classes)).round(1)
    scores[np.arange(count), gold] += 0.8
    scores[:, 0] += 1
    return scores, gold


@pytest.mark.parametrize("seed", range(6))
def test_each_of_several_classes_has_the_threshold_of_highest_f1(seed):
    scores, gold = drawn(seed, 40, 3)
    right = np.eye(3, dtype=bool)[gold]
    found = np.array(each_class(scores, right, True))
    for number in range(3):
        mine = f1_score(right[:, number], scores[:, number] + found[number] > 0)
        cuts = [*np.unique(scores[:, number]) - 0.01, 99]
        best = max(f1_score(right[:, number], scores[:, number] > cut) for cut in cuts)
        assert mine == pytest.approx(best)
    assert each_class(scores, np.zeros((40, 3), bool), True) == [0, 0, 0]


def macro_f1(scores, offsets, gold):
    return f1_score(gold, (scores + np.array(offsets)).argmax(1), average="macro")


@pytest.mark.parametrize("seed", range(6))
def test_of_two_classes_the_offset_of_highest_macro_f1_is_found(seed):
    scores, gold = drawn(seed, 40, 2)
    found = each_class(scores, np.eye(2, dtype=bool)[gold], False)
    cuts = np.unique(scores[:, 0] - scores[:, 1])
    best = max(macro_f1(scores, [0, cut], gold) for cut in [*(cuts - 1e-3), *(cuts + 1e-3)])
    assert macro_f1(scores, found, gold) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_of_three_classes_none_alone_makes_it_better(seed):
    scores, gold = drawn(seed, 60, 3)
    found = np.array(each_class(scores, np.eye(3, dtype=bool)[gold], False))
    best = macro_f1(scores, found, gold)
    assert best >= macro_f1(scores, [0, 0, 0], gold)
    for number, step in itertools.product(range(3), np.arange(-3, 3, 0.05)):
        assert macro_f1(scores, found + step * np.eye(3)[number], gold) <= best + 1e-9


@pytest.mark.parametrize("several_are_right", [False, True])
def test_classes_get_thresholds_of_their_own_only_where_these_hold_for_other_examples(
    several_are_right,
):
    draw = np.random.default_rng(0)
    gold = draw.choice(3, size=600, p=[0.5, 0.3, 0.2])
    right, noise = np.eye(3, dtype=bool)[gold], draw.normal(size=(600, 3))
    good = noise + np.where(right, 4.0, -4.0)
    # Nothing is to be mended.
    assert offsets_of(good, right, several_are_right) == [0, 0, 0]
    # Each class is off by something else.
    off = np.array([1.0, -5.0, 4.0])
    found = np.array(offsets_of(good + off, right, several_are_right))
    moved = found + off
    assert np.abs(moved - moved.mean() * (not several_are_right)).max() < 3
    # Scores say nothing, and there are few: what fits best is chance.
    held = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        few, gold = draw.normal(size=(30, 3)), draw.integers(3, size=30)
        right = np.eye(3, dtype=bool)[gold]
        other = draw.normal(size=(3000, 3))
        truth = draw.integers(3, size=3000)
        held.append(
            [macro_f1(other, of(few, right, False), truth) for of in (offsets_of, each_class)]
        )
    ours, fitted = np.mean(held, axis=0)
    assert ours > fitted


@pytest.mark.parametrize("rows", [reviews, several])
def test_thresholds_travel_with_the_model(tmp_path, rows):
    found = carried_out(
        "classify", tmp_path, rows, steps=4, several=rows is several, thresholds="validation"
    )
    offsets = read_json(found.path / "model" / "task.json")["offsets"]
    assert any(offsets)
    predictor = Predictor(found.path / "model", torch.device("cpu"))
    examples = rows(6, 5)
    scores = predictor.scores(examples)
    told = predictor(examples)
    if rows is several:
        for one, row in zip(told, scores, strict=True):
            named = [n for n, s in zip(predictor.form.labels, row, strict=True) if s > 0]
            assert one["labels"] == named
    else:
        assert [one["label"] for one in told] == [
            predictor.form.labels[n] for n in scores.argmax(1)
        ]
    # How likely a class is does not change by it.
    shifts = dict(zip(predictor.form.labels, offsets, strict=True))
    if rows is not several:
        for one, row in zip(told, scores, strict=True):
            plain = row - torch.tensor(list(shifts.values()))
            assert sum(one["scores"].values()) == pytest.approx(1, abs=1e-5)
            assert max(one["scores"].values()) == pytest.approx(
                plain.softmax(0).max().item(), abs=1e-5
            )
    predictor.form.__dict__["offsets"] = ()
    np.testing.assert_allclose(predictor.scores(examples) + np.array(offsets), scores, atol=1e-5)


def by_language(count, seed):
    return [
        row | {"lang": "zh" if any(c > "\u3000" for c in row["text"]) else "en"}
        for row in reviews(count, seed)
    ]


def test_figures_of_each_group(tmp_path):
    found = carried_out(
        "classify", tmp_path, by_language, columns={"group": "lang"}, group_sampling="balanced"
    )
    judged = found.results["evaluate"]
    assert set(judged["groups"]) == {"en", "zh"}
    assert sum(g["accuracy"]["n"] for g in judged["groups"].values()) == 30
    whole = sum(g["accuracy"]["n"] * g["accuracy"]["value"] for g in judged["groups"].values())
    assert whole / 30 == pytest.approx(judged["figures"]["accuracy"]["value"])
    assert "Group by group" in (found.path / "report.html").read_text("utf-8")
    # What is predicted needs no group.
    source = write(tmp_path / "more.jsonl", [{"text": "great film"}])
    assert len(predict(found.path, source)) == 1


def test_rare_groups_are_drawn_more_often():
    tune = TuneConfig(
        task="classify",
        train="x",
        columns={"group": "lang"},
        group_sampling="balanced",
        sampling="root",
    )
    examples = [{"label": "a", "group": "en"}] * 8 + [{"label": "b", "group": "zh"}] * 2
    shares = _shares(tune, examples, ["a", "b"], [8, 2])
    assert shares.sum() == pytest.approx(10)
    # By the root of classes and wholly of groups: 8 · 8^-1.5 against 2 · 2^-1.5.
    assert shares[:8].sum() / shares[8:].sum() == pytest.approx((2 / 8) ** 0.5)
    # Copies are no examples.
    copied = [*examples, *[examples[0] | {"augmented": "swap"}] * 8]
    np.testing.assert_allclose(_shares(tune, copied, ["a", "b"], [8, 2])[:10], shares)
    with pytest.raises(ValueError, match=r"columns\.group"):
        TuneConfig(task="classify", train="x", group_sampling="root")
