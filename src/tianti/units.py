"""Sizes and durations as people write them: `10M`, `500M tokens`, `1h30m`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from tianti.messages import tr

_COUNT = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([kKMGBT]?)\s*$")
_COUNT_FACTOR = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|sec|min|m|h|d)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_count(value: Any) -> int:
    """Gives a whole number from `10M`, `2k`, `1.5B`, `1e6` or a number.

    Raises:
        ValueError: the text is no count, or the number is not whole.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(
            tr("{value!r} is not a count; write it as 2000, 10k, 3M or 1.5B", value=value)
        )
    match = _COUNT.match(str(value))
    if not match:
        raise ValueError(
            tr("{value!r} is not a count; write it as 2000, 10k, 3M or 1.5B", value=value)
        )
    number = float(match[1]) * _COUNT_FACTOR[match[2]]
    if number != int(number):
        raise ValueError(tr("{value!r} is not a whole number", value=value))
    return int(number)


def parse_duration(value: Any) -> float:
    """Gives seconds from `90s`, `3m`, `1h30m`, `2d` or a number of seconds.

    Raises:
        ValueError: the text is no duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError(
            tr("{value!r} is not a duration; write it as 90s, 3m or 1h30m", value=value)
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


@dataclass(frozen=True)
class Budget:
    """How long to train: `amount` of `kind`."""

    kind: Literal["tokens", "steps", "epochs", "seconds"]
    amount: float

    def __str__(self) -> str:
        if self.kind == "seconds":
            return f"{self.amount:.15g}s"
        return f"{self.amount:.15g} {self.kind}"


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(tr("{value!r} is not a number", value=text)) from None


def parse_budget(value: Any) -> Budget:
    """Gives a `Budget` from `500M tokens`, `2000 steps`, `3 epochs` or a duration such as `10m`.

    Raises:
        ValueError: the text is none of these, or not positive.
    """
    if isinstance(value, Budget):
        return value
    text = str(value).strip()
    match = re.match(r"^(.*?)\s*(tokens?|steps?|epochs?)$", text)
    if match:
        kind = match[2].rstrip("s") + "s"
        amount = _parse_number(match[1]) if kind == "epochs" else float(parse_count(match[1]))
    elif isinstance(value, int | float) or re.fullmatch(r"[\d.]+[kKMBGT]?", text):
        raise ValueError(
            tr(
                "{value!r} has no unit; write it as 10m (minutes), 500M tokens or 2000 steps",
                value=value,
            )
        )
    else:
        kind = "seconds"
        try:
            amount = parse_duration(value)
        except ValueError:
            raise ValueError(
                tr(
                    "{value!r} is not a budget;"
                    " write it as 10m (minutes), 500M tokens or 2000 steps",
                    value=value,
                )
            ) from None
    if amount <= 0:
        raise ValueError(tr("a budget must be more than nothing"))
    return Budget(kind, amount)  # type: ignore[arg-type]


def format_count(value: float) -> str:
    """Gives a count in three digits: `3.07M`."""
    for factor, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Gives a number of bytes in binary units: `1.5 GiB`."""
    for factor, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def format_duration(seconds: float) -> str:
    """Gives seconds as `0.42s`, `42s`, `3m 20s` or `5h 12m`."""
    if seconds < 10:
        return f"{seconds:.2g}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


Count = Annotated[int, BeforeValidator(parse_count)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
