"""Parts of a page that commands write, each under its own heading; and figures of trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

# Student's t for two-sided 95 %, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


class Cells:
    """Figures in a file, each measured once: a measuring that is cut off goes on where it was.

    Args:
        path: JSON file; it need not be there yet.
    """

    def __init__(self, path: Path):
        self._path = path
        self.held: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def measure(self, key: str, make: Callable[[], Any]) -> None:
        """Measures what is not there yet, and tells and keeps it."""
        if key not in self.held:
            self.held[key] = make()
            print(key, self.held[key], flush=True)
            self._path.write_text(json.dumps(self.held, indent=1) + "\n", "utf-8")


def put(page: Path, title: str, text: str) -> None:
    """Writes the part under a heading of the second order anew, at the end where it is new.

    Args:
        page: Markdown file.
        title: of the part.
        text: what stands under it.
    """
    mark = f"\n## {title}\n"
    before, found, rest = page.read_text("utf-8").partition(mark)
    _, more, after = rest.partition("\n## ")
    tail = f"\n## {after}" if found and more else ""
    page.write_text(before.rstrip("\n") + "\n" + mark + text.rstrip("\n") + "\n" + tail, "utf-8")


def with_interval(values: Sequence[float], digits: int = 1) -> str:
    """Gives the mean of trainings with half its 95 % interval by Student's t."""
    if len(values) < 2:
        return f"{mean(values):.{digits}f}"
    half = STUDENT[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.{digits}f} ± {half:.{digits}f}"
