"""Tunes the worked recipes of tasks and writes their part of docs/results.md.

`python benchmarks/tuning.py clinc150 sms-spam --seeds 3`; all recipes when none is named. What was
measured is kept in benchmarks/tables/tuning.json, so that one task can be measured anew without
the others; `--page-only` writes the page from that.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sections import STUDENT, put

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "benchmarks" / "tables" / "tuning.json"
PAGE = ROOT / "docs" / "results.md"
# The figure that was published, and what had it.
PUBLISHED = {
    "sst2": ("accuracy", "83.5 (CNN, random vectors), 87.0 (CNN, word vectors)"),
    "imdb": ("accuracy", "88.9 (Maas 2011, other text too), 91.2 (NB-SVM), 95.4 (ULMFiT)"),
    "sst2-imdb": ("accuracy", "83.5 (CNN, random vectors), 87.0 (CNN, word vectors)"),
    "r8": ("accuracy", "96.1 (fastText), 94.0 (CNN), 97.1 (TextGCN)"),
    "clinc150": ("accuracy", "91.2 (CNN), 91.0 (SVM), 93.5 (MLP), 96.9 (BERT)"),
    "clinc150-imbalanced": ("accuracy", "89.1 (CNN), 89.9 (SVM), 92.5 (MLP), 96.3 (BERT)"),
    "tnews": ("accuracy", "53.6 (ALBERT-tiny), 56.1 (BERT)"),
    "sms-spam": ("mcc", "0.893 (SVM, 30 % to train on; here 60 %)"),
    "cluener": ("span_f1", "70.0 (BiLSTM-CRF), 78.8 (BERT)"),
    "multi30k": ("bleu", "41.0 (Transformer-Tiny, 2.6 M)"),
    "samsum": ("rouge1", "36.6 (Transformer), 32.5 (longest three)"),
}
# Recipes that begin with what another one gives, which stands before them here.
BASES = {"sst2-imdb": "imdb"}
HEAD = """
Each recipe of `recipes/tune` from scratch, without any pretrained weights, on two cores at most
(`sst2-imdb` begins with what `imdb` gave); the test set judged once a training. Mean over trainings
with other seeds, and its 95 % interval by Student's t; of one training, the interval over its test
examples. Made by `python benchmarks/tuning.py`.

| recipe | figure | tianti | published | weights | minutes | seeds | measured |
|---|---|---|---|---|---|---|---|
"""


def tuned(name: str, seed: int) -> dict[str, Any]:
    """Runs a recipe with a seed by its command and gives its results."""
    command = [sys.executable, "-m", "tianti", "run", f"recipes/tune/{name}.yaml"]
    if name in BASES:
        command.append(f"base=runs/tune/{BASES[name]}-{seed}")
    command += [f"seed={seed}", "--out", f"runs/tune/{name}-{seed}", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(name: str, seeds: int) -> dict[str, Any]:
    """Gives what is kept of a recipe's trainings."""
    runs = [tuned(name, seed) for seed in range(seeds)]
    return {
        "figures": {
            figure: [run["evaluate"]["figures"][figure] for run in runs]
            for figure in runs[0]["evaluate"]["figures"]
        },
        "parameters": runs[0]["train"]["parameters"],
        "minutes": mean(run["train"]["train_seconds"] for run in runs) / 60,
        "device": runs[0]["train"]["device"],
        "date": datetime.date.today().isoformat(),
    }


def shown(figures: list[dict[str, Any]], scale: float) -> str:
    """Gives the mean of trainings with its interval."""
    values = [figure["value"] * scale for figure in figures]
    digits = 3 if scale == 1 and max(map(abs, values)) <= 1 else 1
    if len(values) == 1:
        low, high = figures[0]["low"] * scale, figures[0]["high"] * scale
    else:
        half = STUDENT[len(values) - 1] * stdev(values) / math.sqrt(len(values))
        low, high = mean(values) - half, mean(values) + half
    return f"**{mean(values):.{digits}f}** [{low:.{digits}f}, {high:.{digits}f}]"


def row(name: str, held: dict[str, Any]) -> str:
    """Gives the table row of a recipe."""
    figure, published = PUBLISHED[name]
    figures = held["figures"][figure]
    scale = 100.0 if figure in ("accuracy", "span_f1") else 1.0
    cells = [
        f"[{name}](../recipes/tune/{name}.yaml)",
        figure,
        shown(figures, scale),
        published,
        f"{held['parameters'] / 1e6:.2f} M",
        f"{held['minutes']:.1f}",
        str(len(figures)),
        held["date"],
    ]
    return "| " + " | ".join(cells) + " |"


def write_page(table: dict[str, Any]) -> None:
    """Writes the part about tasks anew."""
    rows = "\n".join(row(name, table[name]) for name in PUBLISHED if name in table)
    put(PAGE, "Tasks", HEAD + rows)


def main() -> None:
    """Measures recipes and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", choices=[*PUBLISHED, []], default=[])
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    table = json.loads(TABLE.read_text("utf-8")) if TABLE.is_file() else {}
    if not options.page_only:
        for name in options.recipes or list(PUBLISHED):
            table[name] = measure(name, options.seeds)
            TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    write_page(table)


if __name__ == "__main__":
    main()
