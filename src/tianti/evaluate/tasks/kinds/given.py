"""Tasks that ask how likely a given text is: whole texts, and their rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from tianti.evaluate.models.base import LanguageModel, Request
from tianti.evaluate.statistics import Ratio, Share
from tianti.evaluate.tasks.config import Cloze, Perplexity
from tianti.evaluate.tasks.kinds.base import Figures, Item, Kind, Question
from tianti.evaluate.tasks.rows import Row
from tianti.evaluate.tasks.template import render


class ClozeKind(Kind):
    """See `Cloze`."""

    task: Cloze

    def __init__(self, task: Cloze):
        super().__init__(task)
        self._context, self._target = self._template("context"), self._template("target")

    @override
    def question(self, row: Row, where: str) -> Question:
        target = render(self._target, row, where)
        return Question(row, where, context=render(self._context, row, where), options=[target])

    @override
    def asked(self, row: Row) -> str:
        return self.question(row, "").context

    @override
    def answer(self, model: LanguageModel, questions: Sequence[Question]) -> list[Item]:
        found = model.likelihoods(
            [Request(one.prefix + one.context, one.options[0]) for one in questions]
        )
        return [
            {"greedy": one.greedy, "nats": one.nats, "tokens": one.tokens, "bytes": one.bytes}
            | ({"truncated": one.truncated} if one.truncated else {})
            for one in found
        ]

    @override
    def figures(self, items: Sequence[Item]) -> Figures:
        nats = np.array([item["nats"] for item in items])
        return {
            "accuracy": Share(np.array([item["greedy"] for item in items])),
            "perplexity": _Exponential(nats, np.ones(len(nats))),
            "bits_per_byte": Ratio(
                nats / math.log(2), np.array([item["bytes"] for item in items], dtype=np.float64)
            ),
        }

    @override
    def badness(self, item: Item) -> float | None:
        return None if item["greedy"] else float(item["nats"])


class _Exponential(Ratio):
    """The exponential of a ratio: a perplexity."""

    def __call__(self, weights: np.ndarray) -> float:
        return math.exp(min(super().__call__(weights), 700.0))


class PerplexityKind(Kind):
    """See `Perplexity`."""

    task: Perplexity
    headline = "bits_per_byte"
    higher_is_better = False

    def __init__(self, task: Perplexity):
        super().__init__(task)
        self._text = self._template("text")

    @override
    def question(self, row: Row, where: str) -> Question:
        return Question(row, where, context=render(self._text, row, where))

    @override
    def answer(self, model: LanguageModel, questions: Sequence[Question]) -> list[Item]:
        found = model.texts([question.context for question in questions])
        return [{"nats": one.nats, "tokens": one.tokens, "bytes": one.bytes} for one in found]

    @override
    def figures(self, items: Sequence[Item]) -> Figures:
        nats = np.array([item["nats"] for item in items])
        sizes = {
            name: np.array([item[name] for item in items], dtype=np.float64)
            for name in ("bytes", "tokens")
        }
        return {
            "bits_per_byte": Ratio(nats / math.log(2), sizes["bytes"]),
            "perplexity": _Exponential(nats, sizes["tokens"]),
        }

    @override
    def badness(self, item: Item) -> float | None:
        return float(item["nats"] / math.log(2) / max(item["bytes"], 1))
