"""Tunes unbalanced tasks with each remedy and writes its part of docs/results.md.

`python benchmarks/imbalance.py`; cells that are in benchmarks/tables/imbalance.json stay, and
`--page-only` writes the page from it. Smaller networks and fewer passes than in recipes/tune, the
same for all remedies of a task, so that all can be compared within the hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from sections import Cells, put

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "benchmarks" / "tables" / "imbalance.json"
PAGE = ROOT / "docs" / "results.md"
SMALLER = {
    "r8": ["model.width=96", "model.depth=1", "tune.context=192", "train.budget=4 epochs"],
    "tnews": ["model.width=96", "model.depth=1", "train.budget=1 epochs"],
    "clinc150-imbalanced": ["model.width=128", "model.depth=1", "train.budget=12 epochs"],
}
REMEDIES: dict[str, list[str]] = {
    "none": [],
    "class_weights: inverse": ["tune.class_weights=inverse"],
    "class_weights: effective": ["tune.class_weights=effective"],
    "focus: 2": ["tune.focus=2"],
    "adjusted": ["tune.adjusted=true"],
    "adjusted: 0.5": ["tune.adjusted=0.5"],
    "sampling: root": ["tune.sampling=root"],
    "sampling: balanced": ["tune.sampling=balanced"],
    "thresholds: validation": ["tune.thresholds=validation"],
}
HEAD = """
Macro-F1 on the test set in percent, with the difference from no remedy, and accuracy in brackets;
validation steers by macro-F1 in all. One training each, of smaller networks than those above; the
rarest class of r8 has 10 test examples, so that one of them is worth a point there. Made by
`python benchmarks/imbalance.py`.

"""


def tuned(task: str, remedy: str) -> dict[str, float]:
    """Runs a recipe with a remedy and gives the figures of its test."""
    name = f"runs/imbalance/{task}-{remedy.replace(': ', '-')}"
    command = [sys.executable, "-m", "tianti", "run", f"recipes/tune/{task}.yaml", *SMALLER[task]]
    command += ["tune.steer=macro_f1", *REMEDIES[remedy], "--out", name, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    figures = json.loads(done.stdout)["evaluate"]["figures"]
    return {figure: figures[figure]["value"] for figure in ("macro_f1", "accuracy")}


def write_page(cells: dict[str, Any]) -> None:
    """Writes the part about unbalanced classes anew."""
    tasks = [task for task in SMALLER if f"{task}/none" in cells]
    text = HEAD + f"| remedy | {' | '.join(tasks)} |\n" + "|---" * (len(tasks) + 1) + "|\n"
    for remedy in REMEDIES:
        row = []
        for task in tasks:
            held, plain = cells.get(f"{task}/{remedy}"), cells[f"{task}/none"]
            if held is None:
                row.append("")
                continue
            macro, accuracy = 100 * held["macro_f1"], 100 * held["accuracy"]
            change = "" if remedy == "none" else f" {macro - 100 * plain['macro_f1']:+.1f}"
            row.append(f"{macro:.1f}{change} ({accuracy:.1f})")
        text += f"| {remedy} | {' | '.join(row)} |\n"
    put(PAGE, "Unbalanced classes", text)


def main() -> None:
    """Measures what is not there yet and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[*SMALLER, []], default=[])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    cells = Cells(options.table)
    if not options.page_only:
        for remedy in REMEDIES:
            for task in options.tasks or SMALLER:
                cells.measure(f"{task}/{remedy}", partial(tuned, task, remedy))
    if options.table == TABLE:
        write_page(cells.held)


if __name__ == "__main__":
    main()
