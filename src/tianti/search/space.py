"""What is searched: settings with a range or a list of choices, written as on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tianti.errors import UserError
from tianti.messages import tr
from tianti.recipe import read_value
from tianti.units import parse_count

if TYPE_CHECKING:
    import optuna

_RANGE = re.compile(r"^\s*(\S+?)\s*\.\.\s*(\S+)\s*$")
# From here on the ends of a range are of different orders, and so is what lies between.
LOG_RATIO = 8
SEARCHED = ("train", "model", "tokenizer", "tune")
# Settings of a tuning that change what is validated, or nothing that validation sees.
FIXED = (
    *("task", "train", "validation", "test", "columns", "labels", "several", "steer"),
    *("examples_per_class", "thresholds", "test_examples", "max_tokens", "beams", "preference"),
)
# What a token is, or how its loss is counted: losses of trials that differ in it are of two kinds.
CHANGES_LOSS = (
    *("tokenizer.vocab_size", "tune.more_tokens", "tune.template", "tune.context", "tune.beta"),
    "train.label_smoothing",
)
EXAMPLE = "train.learning_rate=0.002..0.05 train.optimizer=muon,adamw"

Value = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, whole ones where both ends are; `log` draws by order."""

    low: int | float
    high: int | float
    log: bool

    def suggest(self, trial: optuna.trial.Trial, setting: str) -> Value:
        """Gives the number that a trial should try."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(setting, self.low, self.high, log=self.log)
        return trial.suggest_float(setting, self.low, self.high, log=self.log)

    def examples(self) -> tuple[Value, ...]:
        """Gives values that must all be allowed."""
        return (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Gives whether a value could be tried."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        wanted = int if whole else int | float
        return isinstance(value, wanted) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Value, ...]

    def suggest(self, trial: optuna.trial.Trial, setting: str) -> Value:
        """Gives the value that a trial should try."""
        chosen = trial.suggest_categorical(setting, list(self.values))
        assert chosen is not None
        return chosen

    def examples(self) -> tuple[Value, ...]:
        """Gives values that must all be allowed."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Gives whether a value could be tried."""
        return value in self.values


Space = dict[str, Range | Choices]


def parse_space(items: list[str]) -> tuple[Space, list[str]]:
    """Gives what is searched, and the overrides that hold for every trial.

    Args:
        items: `a.b=low..high`, `a.b=x,y,z` or a plain override `a.b=c`.

    Raises:
        UserError: nothing is searched, or something that cannot be compared on validation.
    """
    space: Space = {}
    fixed = []
    for item in items:
        setting, equals, text = item.partition("=")
        if not equals or (".." not in text and "," not in text) or text.startswith(("[", "{")):
            fixed.append(item)
            continue
        if setting in space:
            raise UserError(tr("this setting is searched twice"), where=setting)
        _refuse_what_cannot_be_compared(setting)
        space[setting] = _range(setting, text) if ".." in text else _choices(setting, text)
    if not space:
        raise UserError(
            tr("no setting is searched"),
            remedy=tr("Give one or more a range or choices: {example}", example=EXAMPLE),
        )
    return space, fixed


def _refuse_what_cannot_be_compared(setting: str) -> None:
    section, _, name = setting.partition(".")
    if section not in SEARCHED:
        raise UserError(
            tr("trials that differ in this cannot be compared on the same validation text"),
            where=setting,
            remedy=tr("Search settings of {sections}", sections=", ".join(SEARCHED)),
        )
    of_all = ("train.budget", "train.validation_tokens", "train.validate_every")
    if setting in of_all or (section == "tune" and name.split(".")[0] in FIXED):
        raise UserError(
            tr("trials that differ in this cannot be compared: all get the same"),
            where=setting,
            remedy=tr("Give it one value"),
        )


def _number(text: str) -> int | float:
    try:
        return parse_count(text)
    except ValueError:
        return float(text)


def _range(setting: str, text: str) -> Range:
    match = _RANGE.match(text)
    try:
        if match is None:
            raise ValueError
        low, high = _number(match[1]), _number(match[2])
    except ValueError as error:
        raise UserError(
            tr("{text!r} is not a range", text=text),
            where=setting,
            remedy=tr("Write it as low..high, such as 0.002..0.05"),
        ) from error
    if not low < high:
        raise UserError(
            tr("a range begins with its lower end"),
            where=setting,
            remedy=tr("Write it as low..high, such as 0.002..0.05"),
        )
    if "." in match[1] + match[2] or "e" in (match[1] + match[2]).lower():
        low, high = float(low), float(high)
    return Range(low, high, log=low > 0 and high / low >= LOG_RATIO)


def _choices(setting: str, text: str) -> Choices:
    values = tuple(read_value(part.strip()) for part in text.split(","))
    if len(set(values)) < 2 or not all(isinstance(value, Value) for value in values):
        raise UserError(
            tr("{text!r} is not a list of two or more different values", text=text),
            where=setting,
            remedy=tr("Write it as one,other"),
        )
    return Choices(values)
