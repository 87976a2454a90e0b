"""What all kinds of tasks have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tianti.evaluate.models.base import LanguageModel
from tianti.evaluate.statistics import Statistic
from tianti.evaluate.tasks.rows import Row
from tianti.evaluate.tasks.template import compiled

Item = dict[str, Any]
Figures = dict[str, Statistic]


@dataclass(frozen=True)
class Question:
    """An item as a model is asked about it.

    Args:
        row: the item's fields.
        where: named in errors.
        prefix: solved examples that stand before it.
        options: continuations, of which some are asked for.
        gold: what is right: a number of an option, a text, or nothing.
        context: what stands before the options.
        contexts: what stands before each, where it is not the same before all.
        references: right texts.
    """

    row: Row
    where: str
    prefix: str = ""
    context: str = ""
    contexts: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    gold: int = 0
    references: list[str] = field(default_factory=list)

    def before(self, option: int) -> str:
        """Gives what stands before an option, without the examples."""
        return self.contexts[option] if self.contexts else self.context


class Kind:
    """One kind of task.

    Args:
        task: the settings.
    """

    headline = "accuracy"
    higher_is_better = True

    def __init__(self, task: Any):
        self.task = task

    def question(self, row: Row, where: str) -> Question:
        """Gives an item as it is asked.

        Raises:
            UserError: the item lacks a field, or what it says cannot be.
        """
        raise NotImplementedError

    def example(self, row: Row, where: str) -> str:
        """Gives an item with its right answer, as it stands before others."""
        question = self.question(row, where)
        return question.before(question.gold) + question.options[question.gold]

    def asked(self, row: Row) -> str:
        """Gives what an item asks, without which answer is right."""
        question = self.question(row, "")
        return "\n".join([question.context, *question.contexts, *question.options])

    def answer(self, model: LanguageModel, questions: Sequence[Question]) -> list[Item]:
        """Asks a model; gives a record for each question, plain values alone."""
        raise NotImplementedError

    def figures(self, items: Sequence[Item]) -> Figures:
        """Gives the statistics over the records, the headline first."""
        raise NotImplementedError

    def chances(self, items: Sequence[Item]) -> dict[str, float]:
        """Gives what guessing would give, for the figures for which that is known."""
        return {}

    def details(self, items: Sequence[Item]) -> dict[str, Any]:
        """Gives what pictures need beyond figures."""
        return {}

    def badness(self, item: Item) -> float | None:
        """Gives how bad an answer is, the more the worse; None where it is right."""
        raise NotImplementedError

    def _template(self, name: str) -> Any:
        return compiled(getattr(self.task, name), f"{self.task.name}: {name}")
