"""The one progress display: live bars on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tianti.units import format_count, format_duration

PLAIN_EVERY_SECONDS = 10.0


class Task:
    """One piece of long work with a known or unknown total."""

    def __init__(self, display: Display, name: str, total: float | None, unit: str):
        self.name, self.total, self.unit = name, total, unit
        self.done = 0.0
        self.facts: dict[str, str] = {}
        self._display = display
        self._start = self._last_line = time.monotonic()
        self._base = 0.0
        self._bar = display.add_bar(self)

    def advance(self, amount: float = 1, **facts: str) -> None:
        """Says that `amount` more is done; `facts` are shown beside (loss, tokens/s …)."""
        self.facts.update(facts)
        self.update(self.done + amount)

    def start_at(self, done: float) -> None:
        """Says how much was done before this process: it does not count for the rate."""
        self._base = self.done = done

    def update(
        self, done: float, total: float | None = None, facts: dict[str, str] | None = None
    ) -> None:
        """Says how much is done in all, and what the total is if that became known."""
        self.done = done
        self.total = total if total is not None else self.total
        self.facts.update(facts or {})
        self._display.refresh(self)

    def rate(self) -> float:
        """Gives units a second since this task started."""
        return (self.done - self._base) / max(time.monotonic() - self._start, 1e-9)

    def line(self) -> str:
        """Gives the state of the task as one plain line."""
        parts = [self.name]
        if self.total:
            parts.append(
                f"{format_count(self.done)}/{format_count(self.total)} {self.unit}"
                f" ({100 * self.done / self.total:.0f}%)"
            )
            if self.rate() > 0:
                parts.append(f"ETA {format_duration((self.total - self.done) / self.rate())}")
        else:
            parts.append(f"{format_count(self.done)} {self.unit}")
        return "  ".join(parts + [f"{key} {value}" for key, value in self.facts.items()])


class Display:
    """Shows tasks and lines; `quiet` shows nothing."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self._progress: Any = None

    def say(self, text: str = "", style: str | None = None) -> None:
        """Shows one line, above the bars where there are any."""
        if self.quiet:
            return
        if self._progress is not None:
            self._progress.console.print(text, style=style, markup=False, highlight=False)
        elif self.live:
            from rich.console import Console

            Console(stderr=True).print(text, style=style, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """Shows a task while the block runs."""
        try:
            task = Task(self, name, total, unit)
            yield task
        finally:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def add_bar(self, task: Task) -> Any:
        """Starts the live bar of a task; nothing where the display is not live."""
        if not self.live:
            return None
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        return self._progress.add_task(task.name, total=task.total, detail="")

    def refresh(self, task: Task) -> None:
        """Redraws a task: the bar at once, plain lines now and then."""
        if self._progress is not None:
            facts = "  ".join(f"{key} {value}" for key, value in task.facts.items())
            detail = f"{format_count(task.done)} {task.unit}  {facts}"
            self._progress.update(task._bar, completed=task.done, total=task.total, detail=detail)
        elif not self.quiet and time.monotonic() - task._last_line >= PLAIN_EVERY_SECONDS:
            task._last_line = time.monotonic()
            print("  " + task.line(), file=sys.stderr, flush=True)


SILENT = Display(quiet=True)
