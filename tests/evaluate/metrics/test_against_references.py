"""Every metric gives what the field's own code gives on the same inputs."""

from __future__ import annotations

import numpy as np
import pytest

from tianti.evaluate.metrics.answers import exact_match, token_f1
from tianti.evaluate.metrics.calibration import Calibration
from tianti.evaluate.metrics.classification import Predictions
from tianti.evaluate.metrics.rouge import KINDS, rouge
from tianti.evaluate.metrics.translation import bleu, by_rank, chrf

ENGLISH = [
    ("The cat sat on the mat, quietly.", ["The cat is sitting on the mat.", "A cat sat there."]),
    ("He said: 'no', then left at 5.30 p.m.", ["He said no and left at 5.30 p.m."]),
    ("Prices rose by 3.5% in May", ["Prices rose 3.5% in May", "In May prices rose by 3.5 %"]),
    ("nothing alike here", ["another text entirely, without overlap"]),
    ("state-of-the-art systems_x are running", ["State of the art system runs"]),
]
CHINESE = [
    ("今天天气很好，我们去公园玩。", ["今天的天气不错，我们到公园去玩。"]),
    ("GPU用于训练大模型", ["大模型的训练使用ＧＰＵ"]),
    ("他在2024年出版了三本书。", ["他于2024年出版了三本书", "二〇二四年他出了三本书"]),
]


@pytest.fixture(params=[2, 5])
def predictions(request, rng):
    classes = request.param
    gold = rng.integers(0, classes, 300)
    predicted = np.where(rng.random(300) < 0.6, gold, rng.integers(0, classes, 300))
    # One class that is never predicted, one that never occurs.
    predicted[predicted == classes - 1] = 0
    return predicted, gold


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_classification_is_scikit_learns(predictions, average):
    metrics = pytest.importorskip("sklearn.metrics")
    predicted, gold = predictions
    ours, ones = Predictions(predicted.tolist(), gold.tolist()), np.ones(len(gold))
    theirs = metrics.precision_recall_fscore_support(
        gold, predicted, average=average, zero_division=0
    )
    for name, value in zip(("precision", "recall", "f1"), theirs[:3], strict=True):
        assert ours.averaged(name, average, ones) == pytest.approx(value, abs=1e-12)
    assert ours.matthews(ones) == pytest.approx(metrics.matthews_corrcoef(gold, predicted))
    assert ours.accuracy(ones) == pytest.approx(metrics.accuracy_score(gold, predicted))
    assert (ours.confusion() == metrics.confusion_matrix(gold, predicted)).all()
    each = metrics.precision_recall_fscore_support(gold, predicted, average=None, zero_division=0)
    rates = ours.per_class(ones)
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert rates[name] == pytest.approx(values)


def test_weighted_items_are_scikit_learns_sample_weights(predictions, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    predicted, gold = predictions
    weights = rng.integers(0, 4, len(gold)).astype(float)
    ours = Predictions(predicted.tolist(), gold.tolist())
    there = metrics.f1_score(gold, predicted, average="weighted", sample_weight=weights)
    assert ours.averaged("f1", "weighted", weights) == pytest.approx(there)
    there = metrics.matthews_corrcoef(gold, predicted, sample_weight=weights)
    assert ours.matthews(weights) == pytest.approx(there)


@pytest.mark.parametrize(("pairs", "tokenize"), [(ENGLISH, "13a"), (CHINESE, "zh")])
def test_bleu_and_chrf_are_sacrebleus(pairs, tokenize):
    metrics = pytest.importorskip("sacrebleu.metrics")
    import unicodedata

    given = [p for p, _ in pairs], [r for _, r in pairs]
    ours = bleu(*given)
    # Full and half width are one here, which sacrebleu leaves to its caller.
    texts = [[unicodedata.normalize("NFKC", t) for t in each] for each in given[1]]
    found = [unicodedata.normalize("NFKC", text) for text in given[0]]
    theirs = metrics.BLEU(tokenize=tokenize).corpus_score(found, by_rank(texts))
    assert ours(np.ones(len(pairs))) == pytest.approx(theirs.score, abs=1e-9)
    assert f"tok:{tokenize}" in ours.signature
    for order in (0, 2):
        theirs = metrics.CHRF(word_order=order).corpus_score(found, by_rank(texts))
        assert chrf(*given, order)(np.ones(len(pairs))) == pytest.approx(theirs.score, abs=1e-9)


def test_a_draw_is_the_score_of_the_drawn_segments():
    found, texts = [p for p, _ in ENGLISH], [r for _, r in ENGLISH]
    weights = np.array([2.0, 0, 1, 1, 0])
    drawn = [0, 0, 2, 3]
    for metric in (bleu, chrf):
        alone = metric([found[i] for i in drawn], [texts[i] for i in drawn])(np.ones(4))
        assert metric(found, texts)(weights) == pytest.approx(alone)


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_of_english_is_rouge_scores(stem):
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer([k for k in KINDS if k != "rougeLsum"], use_stemmer=stem)
    for prediction, references in ENGLISH:
        expected = theirs.score_multi(references, prediction)
        ours = rouge(prediction, references, stem=stem)
        for kind, score in expected.items():
            assert ours[kind] == pytest.approx(100 * score.fmeasure, abs=1e-9)
    lines = ("One line here.\nThe second line.", "The second line here.\nOne line.")
    expected = scorer.RougeScorer(["rougeLsum"], use_stemmer=stem).score(lines[1], lines[0])
    ours = rouge(lines[0], [lines[1]], stem=stem)
    assert ours["rougeLsum"] == pytest.approx(100 * expected["rougeLsum"].fmeasure)


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        # Figures of the script that SQuAD 1.1 is judged by.
        ("the Denver Broncos", ["Denver Broncos", "The Broncos!"], 1, 1.0),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("a cat, a dog", ["The dog, cat and bird"], 0, 2 / 3),
        ("nothing", ["else"], 0, 0.0),
    ],
)
def test_english_answers_are_squads(prediction, references, exact, f1):
    assert exact_match(prediction, references, chinese=False) == exact
    assert token_f1(prediction, references, chinese=False) == pytest.approx(f1, abs=1e-9)


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        # Figures of the script that CMRC 2018 is judged by.
        ("光荣和ω-force", ["光荣和ω-force", "光荣"], 1, 1.0),
        ("1998年3月", ["1998年", "1998年3月12日"], 0, 0.8),
        ("约3.5% GDP增长", ["3.5%"], 0, 0.5),
        ("《关东三国志》", ["关东三国志"], 1, 1.0),
        ("北京", ["上海"], 0, 0),
        ("HTML 5.0标准", ["html5标准", "HTML 5.0 标准"], 0, 1.0),
        ("他……走了", ["他走了"], 0, 0.5714285714285715),
    ],
)
def test_chinese_answers_are_cmrcs(prediction, references, exact, f1):
    assert exact_match(prediction, references, chinese=True) == exact
    assert token_f1(prediction, references, chinese=True) == pytest.approx(f1, abs=1e-9)


def test_calibration_is_what_its_definition_says(rng):
    chances = rng.dirichlet([1, 1, 1], 200)
    gold = np.array([rng.choice(3, p=row) for row in chances])
    made = Calibration(chances, gold)
    error = brier = 0.0
    for number in range(15):
        inside = [i for i, row in enumerate(chances) if number / 15 < max(row) <= (number + 1) / 15]
        right = sum(chances[i].argmax() == gold[i] for i in inside)
        error += abs(right - sum(max(chances[i]) for i in inside)) / 200
    for row, true in zip(chances, gold, strict=True):
        brier += sum((p - (k == true)) ** 2 for k, p in enumerate(row)) / 200
    assert made.expected_calibration_error(np.ones(200)) == pytest.approx(error)
    assert made.brier(np.ones(200)) == pytest.approx(brier)
    points = made.reliability()
    assert sum(point.n for point in points) == 200
    assert all(point.low <= point.confidence <= point.high for point in points)
