"""How examples of a task become tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Form:
    """How examples of a task become tokens; it travels with the model.

    Args:
        task: of the examples.
        context: most tokens of one.
        labels: the classes, or kinds of entities.
        several: any number of classes may be right.
        center: of numbers, what a score of 0 stands for.
        spread: the same, what a score stands for beyond that.
        pattern: how a text is put to the network; None for itself.
        offsets: what is added to the classes' scores; nothing where there are none.
    """

    task: str
    context: int
    labels: tuple[str, ...] = ()
    several: bool = False
    center: float = 0.0
    spread: float = 1.0
    pattern: str | None = None
    offsets: tuple[float, ...] = ()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Form:
        """Gives a form as a model's `task.json` says it."""
        names = [one.name for one in fields(cls)]
        held = {name: said[name] for name in names if name in said}
        return cls(**(held | {n: tuple(said.get(n, ())) for n in ("labels", "offsets")}))

    @property
    def tells(self) -> tuple[Any, ...]:
        """Gives what scores are told of: the task and its classes."""
        return self.task, self.labels, self.several

    @property
    def texts(self) -> int:
        """Gives the texts of an example that the network sees each by itself."""
        return 2 if self.task in ("prefer", "reward", "align") else 1

    @property
    def row(self) -> int:
        """Gives the tokens of a row that any example fits."""
        return self.context * self.texts

    @property
    def tags(self) -> list[str]:
        """Gives what a token may be: outside, or the begin or inside of an entity (BIO)."""
        return ["O", *[f"{mark}-{label}" for label in self.labels for mark in "BI"]]

    @property
    def classes(self) -> int:
        """Gives the scores that a network gives; 0 where it writes text."""
        counts = {
            "tag": len(self.tags),
            "classify": len(self.labels),
            "regress": 1,
            "reward": 1,
        }
        return counts.get(self.task, 0)
