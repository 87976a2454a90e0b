"""The evaluate stage of a tuning: the test set judges once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tianti.device import choose_device
from tianti.evaluate.bits_per_byte import bits_per_byte, score_documents
from tianti.evaluate.metrics.answers import exact_match, token_f1
from tianti.evaluate.metrics.classification import Predictions
from tianti.evaluate.metrics.rouge import rouge
from tianti.evaluate.metrics.text import script
from tianti.evaluate.metrics.translation import bleu, chrf
from tianti.evaluate.statistics import Ratio, Share, Statistic, interval
from tianti.evaluate.tasks.rows import evenly
from tianti.exchange.huggingface import load_transformer
from tianti.files import write_text
from tianti.progress import SILENT, Display
from tianti.tokens.tokenizer import Tokenizer
from tianti.tune.config import GROUP, PREDICTIONS, JudgeStageConfig
from tianti.tune.examples import Example, load_examples
from tianti.tune.predictor import Predictor, answered
from tianti.tune.prepare import TEST


def judge(
    config: JudgeStageConfig,
    inputs: dict[str, Path],
    out: Path,
    display: Display = SILENT,
) -> dict[str, Any]:
    """Measures the tuned model on the test examples.

    Args:
        config: the task, and where it is computed.
        inputs: folders of `test` and `model`.
        out: where predictions go.
        display: shows progress.

    Returns:
        `figures`, each with its interval; `classes`, of each class or kind of entity `precision`,
        `recall`, `f1` and `support`; `groups`, the figures of each; `test_examples`; `task`.
    """
    tune, device = config.tune, config.device
    path = inputs["test"] / TEST
    if not path.is_file():
        return {"task": tune.task, "figures": {}, "test_examples": 0}
    examples = evenly(load_examples(path), tune.test_examples)
    if tune.task == "lm":
        return _foretold(inputs["model"], examples, device, display)
    predictor = Predictor(inputs["model"], choose_device(device))
    if tune.task == "align":
        return _aligned(predictor, examples, display)
    if tune.task == "reward":
        return _rated(predictor, examples, display)
    if tune.preference == "kto":
        # What a bad answer is like is nothing to be measured by.
        examples = [example for example in examples if example.get("good", True)]
    with display.task("evaluate", len(examples), "examples") as task:
        found = predictor(
            examples,
            max_tokens=tune.max_tokens,
            beams=tune.searched,
            on_progress=task.advance,
        )
    both = zip(examples, found, strict=True)
    lines = (json.dumps(e | {"predicted": p}, ensure_ascii=False) for e, p in both)
    write_text(out / PREDICTIONS, "".join(f"{line}\n" for line in lines))
    statistics, classes = figures_of(predictor, examples, found)
    groups = _by_group(predictor, examples, found)
    return {
        "task": tune.task,
        "test_examples": len(examples),
        "cut": predictor.encoder.cut,
        "figures": {
            name: interval(statistic, len(examples)).as_dict()
            for name, statistic in statistics.items()
        },
        **({"classes": classes} if classes else {}),
        **({"groups": groups} if groups else {}),
    }


def _by_group(
    predictor: Predictor, examples: Sequence[Example], found: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Gives the same figures of each group of examples, such as those of one language."""
    groups = {}
    for name, numbers in _members(examples).items():
        statistics, _ = figures_of(
            predictor, [examples[n] for n in numbers], [found[n] for n in numbers]
        )
        groups[name] = {
            figure: interval(statistic, len(numbers)).as_dict()
            for figure, statistic in statistics.items()
        }
    return groups


def _members(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Gives the numbers of the examples of each group; none where there are no groups."""
    members: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        if GROUP in example:
            members.setdefault(example[GROUP], []).append(number)
    return dict(sorted(members.items()))


def _foretold(
    folder: Path, examples: Sequence[Example], device: str, display: Display
) -> dict[str, Any]:
    """Gives bits per byte of texts."""
    model = load_transformer(folder, choose_device(device)).eval()
    tokenizer = Tokenizer.load(folder)
    texts = [example["text"] for example in examples]
    encoded = [(np.array(tokenizer.encode(t), np.int64), len(t.encode())) for t in texts]
    with display.task("evaluate", sum(len(ids) for ids, _ in encoded), "tokens") as task:
        scores = score_documents(model, encoded, begin=tokenizer.begin, on_progress=task.advance)
    figures = {"bits_per_byte": bits_per_byte(scores).as_dict()}
    return {"task": "lm", "test_examples": len(examples), "figures": figures}


def _aligned(predictor: Predictor, examples: Sequence[Example], display: Display) -> dict[str, Any]:
    """Gives how often the other of a pair is the nearest of all, both ways."""
    with display.task("evaluate", 2 * len(examples), "examples") as task:
        one, other = (
            predictor.embeddings([example[name] for example in examples], task.advance)
            for name in ("source", "target")
        )
    ways = {"source_to_target": (one, other), "target_to_source": (other, one)}
    right = {}
    for name, (asked, among) in ways.items():
        own = (asked * among).sum(dim=1)
        best = torch.cat([(part @ among.T).amax(dim=1) for part in asked.split(1024)])
        # The same text may stand in several pairs.
        right[name] = (own >= best - 1e-6).numpy()
    return _counted_right("align", predictor, examples, right)


def _counted_right(
    task: str, predictor: Predictor, examples: Sequence[Example], right: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Gives shares of examples, of all and of each group; see `judge`."""

    def figures(numbers: Sequence[int]) -> dict[str, Any]:
        return {
            name: interval(Share(each[list(numbers)]), len(numbers)).as_dict()
            for name, each in right.items()
        }

    groups = {name: figures(numbers) for name, numbers in _members(examples).items()}
    return {
        "task": task,
        "test_examples": len(examples),
        "cut": predictor.encoder.cut,
        "figures": figures(range(len(examples))),
        **({"groups": groups} if groups else {}),
    }


def _rated(predictor: Predictor, examples: Sequence[Example], display: Display) -> dict[str, Any]:
    """Gives how often the better of two answers is rated higher."""
    with display.task("evaluate", 2 * len(examples), "examples") as task:
        better, worse = (
            predictor.scores([answered(example, name) for example in examples], task.advance)[:, 0]
            for name in ("chosen", "rejected")
        )
    right = {"accuracy": (better > worse).numpy()}
    return _counted_right("reward", predictor, examples, right)


Statistics = dict[str, Statistic]
Rates = dict[str, dict[str, float]]


def figures_of(
    predictor: Predictor, examples: Sequence[Example], found: Sequence[dict[str, Any]]
) -> tuple[Statistics, Rates]:
    """Gives the figures of a task as statistics over examples, and those of each class."""
    form = predictor.form
    if form.task == "classify" and not form.several:
        return _classified(examples, found, form.labels)
    if form.task == "classify":
        return _several(examples, found, form.labels)
    if form.task == "regress":
        return _measured(examples, found), {}
    if form.task == "tag":
        return _tagged(examples, found, form.labels)
    texts = [one["text"] for one in found]
    answers = [_references(example) for example in examples]
    if form.task == "translate":
        return {"bleu": bleu(texts, answers), "chrf": chrf(texts, answers)}, {}
    if form.task == "answer":
        return _answered(texts, answers), {}
    scores = [rouge(text, one) for text, one in zip(texts, answers, strict=True)]
    kinds = ("rouge1", "rouge2", "rougeL")
    return {kind: Ratio(np.array([score[kind] for score in scores])) for kind in kinds}, {}


def _references(example: Example) -> list[str]:
    if "references" in example:
        return example["references"]
    for name in ("chosen", "completion"):
        if name in example:
            return [example[name]]
    said = [message for message in example["messages"] if message["role"] == "assistant"]
    return [said[-1]["content"]]


def _classified(
    examples: Sequence[Example], found: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[Statistics, Rates]:
    said = Predictions([p["label"] for p in found], [e["label"] for e in examples], labels)
    statistics: Statistics = {
        "accuracy": Share(said.predicted == said.gold),
        "macro_f1": lambda weights: said.averaged("f1", "macro", weights),
        "mcc": said.matthews,
    }
    return statistics, _by_class(said.per_class(np.ones(len(said))), labels)


def _by_class(rates: dict[str, np.ndarray], labels: Sequence[str]) -> Rates:
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: round(float(rates[name][number]), 4) for name in names}
        for number, label in enumerate(labels)
    }


def _several(
    examples: Sequence[Example], found: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[Statistics, Rates]:
    true = np.array([[label in e["label"] for label in labels] for e in examples])
    said = np.array([[label in p["labels"] for label in labels] for p in found])
    statistics = _counted(true & said, said, true)
    return {"exact": Share((true == said).all(axis=1)), **statistics}, _rates(
        true & said, said, true, labels
    )


def _counted(right: np.ndarray, told: np.ndarray, true: np.ndarray) -> Statistics:
    """Gives F1 over all and over classes alike, from counts by item and class."""

    def macro(weights: np.ndarray) -> float:
        above, below = 2 * weights @ right, weights @ (told.astype(float) + true)
        return float((above[below > 0] / below[below > 0]).mean()) if (below > 0).any() else 0.0

    both = (told.astype(float) + true).sum(axis=1)
    return {"micro_f1": Ratio(2.0 * right.sum(axis=1), both), "macro_f1": macro}


def _rates(right: np.ndarray, told: np.ndarray, true: np.ndarray, labels: Sequence[str]) -> Rates:
    above, found, there = (part.sum(axis=0).astype(float) for part in (right, told, true))
    rates = {
        "precision": above / np.maximum(found, 1),
        "recall": above / np.maximum(there, 1),
        "f1": 2 * above / np.maximum(found + there, 1),
        "support": there,
    }
    return _by_class(rates, labels)


def _measured(examples: Sequence[Example], found: Sequence[dict[str, Any]]) -> Statistics:
    true = np.array([example["label"] for example in examples])
    said = np.array([one["value"] for one in found])

    def correlation(of: Callable[[np.ndarray], np.ndarray]) -> Statistic:
        a, b = of(true), of(said)

        def pearson(weights: np.ndarray) -> float:
            total = weights.sum()
            x, y = a - weights @ a / total, b - weights @ b / total
            below = np.sqrt((weights @ x**2) * (weights @ y**2))
            return float(weights @ (x * y) / below) if below > 0 else 0.0

        return pearson

    return {
        "mse": Ratio((true - said) ** 2),
        "pearson": correlation(lambda values: values),
        "spearman": correlation(_ranks),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Gives the rank of each value, those that are equal the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = count.cumsum()
    return (ends - (count - 1) / 2)[place]


def _tagged(
    examples: Sequence[Example], found: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[Statistics, Rates]:
    shape = (len(examples), len(labels))
    right, told, true = (np.zeros(shape) for _ in "123")
    places = {label: number for number, label in enumerate(labels)}
    for row, (example, one) in enumerate(zip(examples, found, strict=True)):
        there = {tuple(entity) for entity in example["entities"]}
        said = {(entity["start"], entity["end"], entity["type"]) for entity in one["entities"]}
        for counts, spans in ((right, there & said), (told, said), (true, there)):
            for *_, kind in spans:
                counts[row, places[kind]] += 1
    statistics = _counted(right, told, true)
    named = {"span_f1": statistics["micro_f1"], "macro_f1": statistics["macro_f1"]}
    return named, _rates(right, told, true, labels)


def _answered(texts: Sequence[str], answers: Sequence[Sequence[str]]) -> Statistics:
    chinese = script([one[0] for one in answers]) == "zh"
    pairs = list(zip(texts, answers, strict=True))
    return {
        "exact_match": Share(
            np.array([exact_match(text, one, chinese=chinese) == 1 for text, one in pairs])
        ),
        "f1": Ratio(np.array([token_f1(text, one, chinese=chinese) for text, one in pairs])),
    }
