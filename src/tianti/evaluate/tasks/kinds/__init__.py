"""The kinds of tasks: what each asks a model about an item, and how it judges the answers."""

from __future__ import annotations

from tianti.evaluate.tasks.config import (
    Choice,
    Classify,
    Cloze,
    Generate,
    MinimalPair,
    Perplexity,
    Task,
)
from tianti.evaluate.tasks.kinds.base import Kind
from tianti.evaluate.tasks.kinds.generated import GenerateKind
from tianti.evaluate.tasks.kinds.given import ClozeKind, PerplexityKind
from tianti.evaluate.tasks.kinds.likeliest import ChoiceKind, ClassifyKind, MinimalPairKind

_KINDS: dict[type, type[Kind]] = {
    Choice: ChoiceKind,
    MinimalPair: MinimalPairKind,
    Classify: ClassifyKind,
    Cloze: ClozeKind,
    Perplexity: PerplexityKind,
    Generate: GenerateKind,
}


def kind_of(task: Task) -> Kind:
    """Gives what asks and judges for a task.

    Raises:
        UserError: a template cannot be read.
    """
    return _KINDS[type(task)](task)
