"""Tasks that are answered by the likeliest of several continuations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from tianti.errors import UserError
from tianti.evaluate.metrics.calibration import Calibration
from tianti.evaluate.metrics.classification import Predictions
from tianti.evaluate.models.base import LanguageModel, Likelihood, Request
from tianti.evaluate.statistics import Jackknifed, Share, Statistic
from tianti.evaluate.tasks.config import Choice, Classify, MinimalPair, Normalise
from tianti.evaluate.tasks.kinds.base import Figures, Item, Kind, Question
from tianti.evaluate.tasks.rows import Row
from tianti.evaluate.tasks.template import compiled, render
from tianti.messages import tr


class _Likeliest(Kind):
    """The likeliest of several continuations."""

    normalise: Normalise

    @override
    def answer(self, model: LanguageModel, questions: Sequence[Question]) -> list[Item]:
        asked = [
            Request(question.prefix + question.before(number), option, item)
            for item, question in enumerate(questions)
            for number, option in enumerate(question.options)
        ]
        alone = []
        if self.task.normalise == "unconditional":
            if not model.scores_first_token:
                raise UserError(
                    tr("an endpoint does not tell how likely a text's first token is"),
                    where=f"{self.task.name}: normalise: unconditional",
                    remedy=tr("Choose sum, token or byte"),
                )
            alone = [Request("", request.continuation) for request in asked]
        found = model.likelihoods([*asked, *alone])
        items, place = [], 0
        for question in questions:
            count = len(question.options)
            items.append(
                self._item(
                    question,
                    found[place : place + count],
                    found[len(asked) + place : len(asked) + place + count] if alone else [],
                )
            )
            place += count
        return items

    def _item(self, question: Question, found: list[Likelihood], alone: list[Likelihood]) -> Item:
        item: Item = {
            "gold": question.gold,
            "nats": [one.nats for one in found],
            "tokens": [one.tokens for one in found],
            "bytes": [one.bytes for one in found],
        }
        if alone:
            item["alone"] = [one.nats for one in alone]
        if truncated := max(one.truncated for one in found):
            item["truncated"] = truncated
        item["predicted"] = self._best(_scores(item, self.task.normalise))
        return item

    def _best(self, scores: np.ndarray) -> int:
        return int(np.argmax(scores))

    def _right(self, items: Sequence[Item], normalise: Normalise) -> np.ndarray:
        return np.array([self._best(_scores(i, normalise)) == i["gold"] for i in items])

    @override
    def figures(self, items: Sequence[Item]) -> Figures:
        found: Figures = {"accuracy": Share(self._right(items, self.task.normalise))}
        for other in ("sum", "token", "byte"):
            if other != self.task.normalise:
                found[f"accuracy_by_{other}"] = Share(self._right(items, other))
        return found | self._calibration_figures(items)

    @override
    def chances(self, items: Sequence[Item]) -> dict[str, float]:
        return {"accuracy": float(np.mean([1 / len(item["nats"]) for item in items]))}

    @override
    def badness(self, item: Item) -> float | None:
        scores = _scores(item, self.task.normalise)
        gap = float(scores.max() - scores[item["gold"]])
        return gap if item["predicted"] != item["gold"] else None

    def _calibration(self, items: Sequence[Item]) -> Calibration | None:
        """Gives the chances the model gives to options, where all items have as many."""
        if len({len(item["nats"]) for item in items}) != 1:
            return None
        scores = np.array([_scores(item, self.task.normalise) for item in items])
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        return Calibration(chances, np.array([item["gold"] for item in items]))

    def _calibration_figures(self, items: Sequence[Item]) -> Figures:
        made = self._calibration(items)
        if made is None:
            return {}
        # A draw with replacement has larger gaps in its bins than the items themselves.
        error = Jackknifed(made.expected_calibration_error, least=0.0)
        return {"calibration_error": error, "brier": made.brier}

    @override
    def details(self, items: Sequence[Item]) -> dict[str, Any]:
        made = self._calibration(items)
        return {} if made is None else {"reliability": [vars(p) for p in made.reliability()]}


def _scores(item: Item, normalise: Normalise) -> np.ndarray:
    """Gives log-likelihoods of options, normalised."""
    logs = -np.array(item["nats"])
    if normalise == "token":
        return logs / np.array(item["tokens"])
    if normalise == "byte":
        return logs / np.maximum(np.array(item["bytes"]), 1)
    if normalise == "unconditional":
        return logs + np.array(item["alone"])
    return logs


class ChoiceKind(_Likeliest):
    """See `Choice`."""

    task: Choice

    def __init__(self, task: Choice):
        super().__init__(task)
        self._context, self._answer = self._template("context"), self._template("answer")
        self._continuation = self._template("continuation")
        self._choices = (
            None
            if isinstance(task.choices, str)
            else [compiled(text, f"{task.name}: choices") for text in task.choices]
        )

    @override
    def question(self, row: Row, where: str) -> Question:
        if self._choices is None:
            choices = row.get(str(self.task.choices))
            if not isinstance(choices, list | tuple) or len(choices) < 2:
                raise UserError(
                    tr("the field {field!r} is no list of two or more", field=self.task.choices),
                    where=where,
                    remedy=tr("Name the field of the choices, or give templates"),
                )
        else:
            choices = [render(template, row, where) for template in self._choices]
        text = render(self._answer, row, where).strip()
        if not text.isdecimal() or int(text) >= len(choices):
            raise UserError(
                tr(
                    "the answer {answer!r} is none of {count} choices",
                    answer=text,
                    count=len(choices),
                ),
                where=where,
                remedy=tr("Give the number of the right choice, from 0"),
            )
        return Question(
            row,
            where,
            contexts=[render(self._context, row, where, choice=one) for one in choices],
            options=[render(self._continuation, row, where, choice=one) for one in choices],
            gold=int(text),
        )


class MinimalPairKind(_Likeliest):
    """See `MinimalPair`."""

    task: MinimalPair

    def __init__(self, task: MinimalPair):
        super().__init__(task)
        self._good, self._bad = self._template("good"), self._template("bad")

    @override
    def question(self, row: Row, where: str) -> Question:
        options = [render(self._good, row, where), render(self._bad, row, where)]
        return Question(row, where, options=options)

    @override
    def _best(self, scores: np.ndarray) -> int:
        # Whoever finds both alike has not told them apart.
        return 0 if scores[0] > scores[1] else 1

    @override
    def _calibration_figures(self, items: Sequence[Item]) -> Figures:
        # The right one always comes first: there is no class whose chance could be calibrated.
        return {}

    @override
    def details(self, items: Sequence[Item]) -> dict[str, Any]:
        return {}


class ClassifyKind(_Likeliest):
    """See `Classify`."""

    task: Classify
    headline = "f1_macro"

    def __init__(self, task: Classify):
        super().__init__(task)
        self._context, self._gold = self._template("context"), self._template("gold")
        self._continuation = self._template("continuation")
        self._values = list(task.labels)

    @override
    def question(self, row: Row, where: str) -> Question:
        value = render(self._gold, row, where).strip()
        if value not in self._values:
            raise UserError(
                tr("the class {value!r} is none of the task's labels", value=value),
                where=where,
                remedy=tr("Labels: {labels}", labels=", ".join(self._values)[:200]),
            )
        return Question(
            row,
            where,
            context=render(self._context, row, where),
            options=[
                render(self._continuation, row, where, label=name)
                for name in self.task.labels.values()
            ],
            gold=self._values.index(value),
        )

    def _predictions(self, items: Sequence[Item]) -> Predictions:
        return Predictions(
            [item["predicted"] for item in items],
            [item["gold"] for item in items],
            range(len(self._values)),
        )

    @override
    def figures(self, items: Sequence[Item]) -> Figures:
        made = self._predictions(items)
        found: Figures = {}
        for average in ("macro", "weighted"):
            for name in ("f1", "precision", "recall"):
                found[f"{name}_{average}"] = _averaged(made, name, average)
        found["accuracy"] = Share(made.predicted == made.gold)
        found["matthews"] = made.matthews
        return found | self._calibration_figures(items)

    @override
    def details(self, items: Sequence[Item]) -> dict[str, Any]:
        made = self._predictions(items)
        rates = made.per_class(np.ones(len(made)))
        names = list(self.task.labels.values())
        return super().details(items) | {
            "labels": names,
            "confusion": made.confusion().astype(int).tolist(),
            "per_class": {
                name: {key: float(values[place]) for key, values in rates.items()}
                for place, name in enumerate(names)
            },
        }


def _averaged(made: Predictions, name: str, average: Any) -> Statistic:
    return lambda weights: made.averaged(name, average, weights)
