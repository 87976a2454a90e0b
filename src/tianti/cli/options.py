"""What several commands share: options, and how JSON is printed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from tianti.messages import tr

AsJson = Annotated[
    bool, typer.Option("--json", help=tr("One JSON object on standard output, nothing else."))
]

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help=tr("A YAML recipe."))]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[a.b=c]…", help=tr("Settings to change."))
]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help=tr("Folder of the run; runs/NAME when not given."))
]


def print_json(value: Any) -> None:
    """Prints one JSON object on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_lines(rows: Iterable[dict[str, Any]]) -> None:
    """Prints rows as JSONL on standard output, as they come."""
    from tianti.runs.results import without_nan

    for row in rows:
        print(json.dumps(without_nan(row), ensure_ascii=False, allow_nan=False), flush=True)
