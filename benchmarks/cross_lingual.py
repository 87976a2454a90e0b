"""Trains on English, tests on Chinese, and writes its part of docs/results.md.

`python benchmarks/cross_lingual.py --base runs/base-en-zh`: film reviews of sst2 to learn from, its
test and the Chinese reviews of chnsenticorp to judge. Cells that are in
benchmarks/tables/cross_lingual.json stay; `--page-only` writes the page from it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from sections import Cells, put

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "benchmarks" / "tables" / "cross_lingual.json"
PAGE = ROOT / "docs" / "results.md"
DATA = Path(os.environ.get("TIANTI_DATA", ROOT.parent / "shared" / "data"))
SEEDS = 3
WAYS: dict[str, dict[str, Any]] = {
    "English alone": {"base": None},
    "base": {"base": "base"},
    "base, classifier alone": {"base": "base", "method": "head"},
    "base, aligned": {"base": "aligned"},
    "base, aligned, classifier alone": {"base": "aligned", "method": "head"},
}
WHAT = {
    "English alone": "from scratch",
    "base": "all weights of the bilingual base",
    "base, classifier alone": "the base stays as it is",
    "base, aligned": "the base was tuned by `task: align` before; all weights",
    "base, aligned, classifier alone": "the same, which stays as it is",
}
HEAD = """
Reviews for or against: learnt from English ones (sst2), judged on English (sst2) and on Chinese
ones (chnsenticorp, 1,200), of which none was learnt from. Accuracy in percent, mean of trainings,
with its 95 % interval over test examples; the majority class has {majority} of the Chinese ones.
The base is `recipes/base-en-zh.yaml`; aligned, it has learnt from 23,444 pairs of sentences
(`recipes/tune/align-en-zh.yaml`). Made by `python benchmarks/cross_lingual.py`.

| what learns | trainings | English | Chinese | Chinese, above English alone |
|---|---|---|---|---|
"""


def read(name: str) -> list[dict[str, Any]]:
    """Gives the examples of a file."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes examples to a file and gives its name."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return str(path)


def tested() -> list[dict[str, Any]]:
    """Gives the test examples of both languages."""
    both = {"en": "sst2/test.jsonl.gz", "zh": "chnsenticorp/test.jsonl.gz"}
    return [
        {"text": row["text"], "label": str(row["label"]), "language": language}
        for language, name in both.items()
        for row in read(name)
    ]


def align(base: Path, out: Path) -> Path:
    """Brings English and Chinese sentences of one meaning together; nothing is done twice."""
    command = [sys.executable, "-m", "tianti", "run", "recipes/tune/align-en-zh.yaml"]
    subprocess.run([*command, f"base={base}", "--out", str(out)], cwd=ROOT, check=True)
    return out


def accuracies(way: str, bases: dict[str, Path], seed: int) -> dict[str, float]:
    """Gives the accuracy of one training in each language."""
    from tianti.api import run
    from tianti.progress import SILENT
    from tianti.recipe import Recipe

    told = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        train = [
            {"text": row["text"], "label": str(row["label"]), "language": "en"}
            for row in read("sst2/train.jsonl.gz")
        ]
        tune = {
            "task": "classify",
            "train": write(where / "train.jsonl", train),
            "validation": 0.1,
            "test": write(where / "test.jsonl", tested()),
            "columns": {"group": "language"},
            "context": 160,
            "method": told.get("method", "full"),
        }
        made: dict[str, Any] = {"name": "cross", "seed": seed, "device": "cpu", "tune": tune}
        if told["base"] is not None:
            made["base"] = str(bases[told["base"]])
        else:
            made["model"] = {"width": 128, "depth": 2}
        made["train"] = {"budget": "3 epochs" if told["base"] else "6 epochs"}
        if told["base"] and tune["method"] == "full":
            # What both languages have in common is soon forgotten.
            made["train"]["learning_rate"] = 0.00063
        done = run(Recipe.model_validate(made), where / "run", display=SILENT)
        groups = done.results["evaluate"]["groups"]
        return {name: group["accuracy"]["value"] for name, group in groups.items()}


def spread(share: float, count: int) -> float:
    """Gives half the 95 % interval of a share of test examples, in percent."""
    return 196 * math.sqrt(share * (1 - share) / count)


def write_page(cells: dict[str, Any]) -> None:
    """Writes the part about languages anew."""
    rows = tested()
    counts = {name: sum(row["language"] == name for row in rows) for name in ("en", "zh")}
    zh = [row["label"] for row in rows if row["language"] == "zh"]
    most = max(zh.count(label) for label in set(zh)) / len(zh)
    text = HEAD.format(majority=f"{100 * most:.1f}")
    plain = 0.0
    for way in WAYS:
        there = [cells[key] for s in range(SEEDS) if (key := f"{way}/{s}") in cells]
        if not there:
            continue
        means = {name: mean(one[name] for one in there) for name in counts}
        shown = [
            f"{100 * share:.1f} ± {spread(share, counts[name]):.1f}"
            for name, share in means.items()
        ]
        plain = plain or means["zh"]
        both = math.hypot(spread(plain, counts["zh"]), spread(means["zh"], counts["zh"]))
        change = (
            f"{100 * (means['zh'] - plain):+.1f} ± {both:.1f}" if way != "English alone" else ""
        )
        text += f"| {way}: {WHAT[way]} | {len(there)} | {' | '.join(shown)} | {change} |\n"
    put(PAGE, "From one language to another", text)


def main() -> None:
    """Measures what is not there yet and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "base-en-zh")
    parser.add_argument("--aligned", type=Path, default=ROOT / "runs" / "aligned-en-zh")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    cells = Cells(options.table)
    if not options.page_only:
        bases = {"base": options.base, "aligned": align(options.base, options.aligned)}
        for seed in range(SEEDS):
            for way in options.ways:
                cells.measure(f"{way}/{seed}", partial(accuracies, way, bases, seed))
    if options.table == TABLE:
        write_page(cells.held)


if __name__ == "__main__":
    main()
