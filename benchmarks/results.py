"""Runs the worked recipes and writes docs/results.md: `make results`.

Data is read from `TIANTI_DATA` (default ../shared/data). A run that is up to date is not repeated.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import tuning

ROOT = Path(__file__).parent.parent
RECIPES = ("quickstart", "wikitext2", "books-en", "tech-zh")
HEAD = """# Results

Bits per byte on the test split of each worked recipe, with its 95 % interval over documents
(bootstrap; delete-a-group jackknife for xz). Less is better. Made by `make results` on {date},
{cores} cores of {machine}, torch {torch}, one training each: the spread between trainings is not in
the interval.

| recipe | training | weights | tokens | model, test | validation | xz -9e | byte 3-grams | n |
|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
The recipes: [quickstart](../recipes/quickstart.yaml), [wikitext2](../recipes/wikitext2.yaml),
[books-en](../recipes/books-en.yaml), [tech-zh](../recipes/tech-zh.yaml). Where the test split is
larger than `evaluate.test_bytes` (2 MB), the longest documents are measured in part; xz and the
3-grams get the same text. The 3-grams learn from the whole training text, the model from as
much of it as its budget lets it read.
"""


def run(name: str) -> dict[str, Any]:
    """Runs a recipe by its command and gives its results."""
    command = [sys.executable, "-m", "tianti", "run", f"recipes/{name}.yaml", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def shown(metric: dict[str, Any]) -> str:
    """Gives a metric with its interval."""
    if metric["low"] is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def row(name: str, results: dict[str, Any]) -> str:
    """Gives the table row of a run."""
    test, train = results["evaluate"]["test"], results["train"]
    cells = [
        name,
        f"{train['train_seconds'] / 60:.1f} min",
        f"{train['parameters'] / 1e6:.2f} M",
        f"{train['tokens'] / 1e6:.2f} M",
        f"**{test['bits_per_byte']['value']:.3f}**" + shown(test["bits_per_byte"])[5:],
        shown(results["evaluate"]["validation"]["bits_per_byte"]),
        shown(test["xz_bits_per_byte"]),
        shown(test["byte_trigram_bits_per_byte"]),
        str(test["bits_per_byte"]["n"]),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Runs all recipes and writes the table."""
    finished = {name: run(name) for name in RECIPES}
    machine = next(iter(finished.values()))
    head = HEAD.format(
        date=datetime.date.today().isoformat(),
        cores=machine["machine"]["cores"],
        machine=platform.machine(),
        torch=machine["stages"]["train"]["versions"]["torch"],
    )
    rows = "\n".join(row(name, results) for name, results in finished.items())
    (ROOT / "docs" / "results.md").write_text(head + rows + "\n" + TAIL, "utf-8")
    # What was measured of tasks stands below.
    tuning.write_page(json.loads(tuning.TABLE.read_text("utf-8")))


if __name__ == "__main__":
    main()
