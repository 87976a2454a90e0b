"""Tasks that are answered by a text of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from tianti.errors import UserError
from tianti.evaluate.metrics import answers, diversity, rouge, translation
from tianti.evaluate.models.base import LanguageModel
from tianti.evaluate.statistics import Jackknifed, Ratio, Share
from tianti.evaluate.tasks.config import Generate
from tianti.evaluate.tasks.kinds.base import Figures, Item, Kind, Question
from tianti.evaluate.tasks.rows import Row
from tianti.evaluate.tasks.template import compiled, render
from tianti.messages import tr


class GenerateKind(Kind):
    """See `Generate`."""

    task: Generate

    def __init__(self, task: Generate):
        super().__init__(task)
        self._prompt = self._template("prompt")
        self._references = (
            None
            if isinstance(task.references, str)
            else [compiled(text, f"{task.name}: references") for text in task.references]
        )
        first = task.metrics[0]
        self.headline = {"rouge": "rougeL", "distinct": "distinct_2"}.get(first, first)

    @override
    def question(self, row: Row, where: str) -> Question:
        if self._references is None:
            references = _listed(row.get(str(self.task.references)), where)
        else:
            references = [render(template, row, where) for template in self._references]
        if self.task.references and not any(text.strip() for text in references):
            raise UserError(
                tr("this item has no reference that says something"),
                where=where,
                remedy=tr("Correct the item or the task's references"),
            )
        return Question(row, where, context=render(self._prompt, row, where), references=references)

    @override
    def example(self, row: Row, where: str) -> str:
        question = self.question(row, where)
        return question.context + " " * (self.task.language != "zh") + question.references[0]

    @override
    def asked(self, row: Row) -> str:
        return self.question(row, "").context

    @override
    def answer(self, model: LanguageModel, questions: Sequence[Question]) -> list[Item]:
        made = model.generate(
            [question.prefix + question.context for question in questions],
            max_tokens=self.task.max_tokens,
            stop=self.task.stop,
            temperature=self.task.temperature,
            seed=self.task.seed,
        )
        return [
            self._item(one.text.strip(), question)
            | ({"truncated": one.truncated} if one.truncated else {})
            for one, question in zip(made, questions, strict=True)
        ]

    def _item(self, text: str, question: Question) -> Item:
        item: Item = {"generated": text, "references": question.references}
        chinese = self.task.language == "zh"
        if "exact_match" in self.task.metrics:
            item["exact_match"] = answers.exact_match(text, question.references, chinese=chinese)
        if "f1" in self.task.metrics:
            item["f1"] = answers.token_f1(text, question.references, chinese=chinese)
        if "rouge" in self.task.metrics:
            item |= rouge.rouge(text, question.references, stem=self.task.stem)
        return item

    @override
    def figures(self, items: Sequence[Item]) -> Figures:
        texts = [item["generated"] for item in items]
        references = [item["references"] for item in items]
        found: Figures = {}
        for metric in self.task.metrics:
            if metric == "bleu":
                found["bleu"] = translation.bleu(texts, references, self.task.tokenize)
            elif metric == "chrf":
                found["chrf"] = translation.chrf(texts, references)
            elif metric == "rouge":
                for kind in ("rougeL", "rouge1", "rouge2", "rougeLsum"):
                    found[kind] = Ratio(np.array([item[kind] for item in items]))
            elif metric == "exact_match":
                found[metric] = Share(np.array([item[metric] for item in items]) == 1)
            elif metric == "f1":
                found[metric] = Ratio(np.array([item[metric] for item in items]))
            elif metric == "distinct":
                found |= {f"distinct_{n}": Jackknifed(diversity.Distinct(texts, n)) for n in (2, 1)}
            elif metric == "repetition":
                found[metric] = diversity.repetition(texts)
            else:
                found[metric] = diversity.compression_ratio(texts)
        return found

    @override
    def details(self, items: Sequence[Item]) -> dict[str, Any]:
        if not {"bleu", "chrf"} & set(self.task.metrics):
            return {}
        texts = [item["generated"] for item in items]
        references = [item["references"] for item in items]
        signatures = {}
        if "bleu" in self.task.metrics:
            signatures["bleu"] = translation.bleu(texts, references, self.task.tokenize).signature
        if "chrf" in self.task.metrics:
            signatures["chrf"] = translation.chrf(texts, references).signature
        return {"signatures": signatures}

    @override
    def badness(self, item: Item) -> float | None:
        for name in ("f1", "rougeL", "exact_match"):
            if name in item:
                return -float(item[name])
        if not item["references"]:
            return None
        alone = translation.chrf([item["generated"]], [item["references"]])
        return -alone(np.ones(1))


def _listed(given: Any, where: str) -> list[str]:
    """Gives references from what a field holds: a text, a number, a list of such, or answers with
    their places as SQuAD's files have them (`[{"text": …}]`) or as Hugging Face's tables do
    (`{"text": […]}`).
    """
    if isinstance(given, dict) and "text" in given:
        given = given["text"]
    listed = given if isinstance(given, list | tuple) else [] if given is None else [given]
    found = [one.get("text") if isinstance(one, dict) else one for one in listed]
    if any(one is None or isinstance(one, dict | list | tuple) for one in found):
        raise UserError(
            tr("these references are no texts: {given}", given=str(given)[:60]),
            where=where,
            remedy=tr("Write a text, a list of texts, or {form}", form='[{"text": "…"}]'),
        )
    return [str(one) for one in found]
