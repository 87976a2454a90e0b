"""Settings that are derived, each with its reason."""

from __future__ import annotations

from typing import Any

from tianti.messages import tr
from tianti.units import format_count


class Reasons:
    """Collects what was picked and why; `rows` holds `(setting, value, reason)`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def pick(self, setting: str, asked: Any, derived: Any, reason: str) -> Any:
        """Gives the asked-for value or else the derived one, and notes why."""
        value = derived if asked is None else asked
        shown = format_count(value) if isinstance(value, int) and value >= 10_000 else str(value)
        self.rows.append((setting, shown, reason if asked is None else tr("set in the recipe")))
        return value
