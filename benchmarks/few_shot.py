"""Tunes with k examples of each class by each method and writes its part of docs/results.md.

`python benchmarks/few_shot.py --base runs/base-en-zh`. Training and validation have k examples of
each class, drawn by the seed; the test is the data set's own, or an even sample of it. Cells that
are in benchmarks/tables/few_shot.json stay; `--page-only` writes the page from it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from sections import Cells, put, with_interval

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "benchmarks" / "tables" / "few_shot.json"
PAGE = ROOT / "docs" / "results.md"
DATA = Path(os.environ.get("TIANTI_DATA", ROOT.parent / "shared" / "data"))
COUNTS, SEEDS, TEST_EXAMPLES = (4, 8, 16, 32, 64, 128), 5, 2000

TASKS: dict[str, dict[str, Any]] = {
    "sst2": {
        "train": "sst2/train.jsonl.gz",
        "test": "sst2/test.jsonl.gz",
        "label": "label",
        "pattern": "{text} It was",
        "words": {"1": " great", "0": " terrible"},
    },
    "tnews": {
        "train": "tnews/train.jsonl.gz",
        "test": "tnews/dev.jsonl.gz",
        "label": "label_name",
        "pattern": "{text}\n这篇文章是关于",
        "words": {
            "news_story": "故事",
            "news_culture": "文化",
            "news_entertainment": "娱乐",
            "news_sports": "体育",
            "news_finance": "财经",
            "news_house": "房产",
            "news_car": "汽车",
            "news_edu": "教育",
            "news_tech": "科技",
            "news_military": "军事",
            "news_travel": "旅游",
            "news_world": "国际",
            "news_stock": "股票",
            "news_agriculture": "农业",
            "news_game": "游戏",
        },
    },
}
METHODS: dict[str, dict[str, Any]] = {
    "from scratch": {"base": False},
    "plain": {},
    "pattern": {"pattern": True, "words": True},
    "pattern, contrast": {"pattern": True, "words": True, "contrast": 0.5},
    "pattern, examples": {"pattern": True, "start": "examples"},
    "class means": {"pattern": True, "start": "examples", "method": "none"},
    "prompt alone": {"pattern": True, "words": True, "method": "none"},
    "in context": {"pattern": True, "words": True, "method": "none", "shown": True},
    "related": {"related": True},
}
# Those that go by no more examples than fit a prompt, or by none.
ONLY_FOR = {"prompt alone": (4,), "in context": (4,)}
WHAT = {
    "from scratch": "the same network, weights drawn anew",
    "plain": "all weights, a new classifier",
    "pattern": "all weights; `pattern` and `words`",
    "pattern, contrast": "the same with `contrast: 0.5`",
    "pattern, examples": "all weights; `pattern` and `start: examples`",
    "class means": "nothing: `pattern`, `start: examples`, `method: none`",
    "prompt alone": "nothing: `pattern`, `words`, `method: none`; no example is seen",
    "in context": "nothing; the prompt shows two examples of each class",
    "related": "all weights of a model tuned for whole reviews (`recipes/tune/imdb.yaml`)",
}
# Tasks for which there is a model of a related one.
RELATED = {"related": ("sst2",)}
HEAD = """
Accuracy in percent with k examples of each class to learn from and as many to steer by: mean of
five draws with its 95 % interval by Student's t. The base is `recipes/base-en-zh.yaml`
({parameters} weights, {tokens} tokens of books, encyclopedia and articles); the test
is each set's own, or an even sample of {most} at most. Made by `python benchmarks/few_shot.py`.
"""


def read(name: str, label: str) -> list[dict[str, str]]:
    """Gives the examples of a file."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [{"text": row["text"], "label": str(row[label])} for row in rows]


def drawn(rows: list[dict[str, str]], count: int, seed: int) -> list[list[dict[str, str]]]:
    """Gives `count` examples of each class to learn from, and as many others to steer by."""
    draw = random.Random(seed)
    parts: list[list[dict[str, str]]] = [[], []]
    for label in sorted({row["label"] for row in rows}):
        chosen = draw.sample([row for row in rows if row["label"] == label], 2 * count)
        parts[0] += chosen[:count]
        parts[1] += chosen[count:]
    return parts


def write(path: Path, rows: list[dict[str, str]]) -> str:
    """Writes examples to a file and gives its name."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return str(path)


def shown_before(task: dict[str, Any], rows: list[dict[str, str]], seed: int) -> str:
    """Gives a pattern that shows examples before what is asked."""
    by_label: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    chosen = [row for group in by_label.values() for row in group[:2]]
    random.Random(seed).shuffle(chosen)
    said = [task["pattern"].format(text=r["text"]) + task["words"][r["label"]] for r in chosen]
    escaped = "\n".join(said).replace("{", "{{").replace("}", "}}")
    return f"{escaped}\n{task['pattern']}"


def accuracy(
    task: dict[str, Any], base: Path, related: Path, method: str, count: int, seed: int
) -> float:
    """Gives the accuracy of one training."""
    from tianti.api import run
    from tianti.files import read_json
    from tianti.progress import SILENT
    from tianti.recipe import Recipe

    told = METHODS[method]
    rows = read(task["train"], task["label"])
    train, validation = drawn(rows, count, seed)
    tests = read(task["test"], task["label"])
    tests = tests[:: max(1, math.ceil(len(tests) / TEST_EXAMPLES))]
    tune: dict[str, Any] = {"task": "classify", "steer": "accuracy"}
    if told.get("pattern"):
        tune["pattern"] = task["pattern"]
        if told.get("shown"):
            tune["pattern"] = shown_before(task, train, seed)
    if told.get("words"):
        tune["words"] = task["words"]
    tune |= {name: told[name] for name in ("start", "method", "contrast") if name in told}
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        tune["train"] = write(where / "train.jsonl", train)
        tune["validation"] = write(where / "validation.jsonl", validation)
        tune["test"] = write(where / "test.jsonl", tests)
        made: dict[str, Any] = {"name": "few", "seed": seed, "device": "cpu", "tune": tune}
        if told.get("base", True):
            made["base"] = str(related if told.get("related") else base)
        else:
            config = read_json(base / "model" / "config.json")
            made["model"] = {
                "width": config["hidden_size"],
                "depth": config["num_hidden_layers"],
            }
        done = run(Recipe.model_validate(made), where / "run", display=SILENT)
        return done.results["evaluate"]["figures"]["accuracy"]["value"]


def write_page(cells: dict[str, Any]) -> None:
    """Writes the part about few examples anew."""
    text = HEAD.format(
        parameters=f"{cells['base']['parameters'] / 1e6:.1f} M",
        tokens=f"{cells['base']['tokens'] / 1e6:.0f} M",
        most=f"{TEST_EXAMPLES:,}",
    )
    for task in TASKS:
        there = [key.split("/") for key in cells if key.startswith(f"{task}/")]
        counts = [k for k in COUNTS if any(key[2] == str(k) for key in there)]
        if not counts:
            continue
        text += f"\n| {task}, what learns | {' | '.join(f'k = {k}' for k in counts)} |\n"
        text += "|---" * (len(counts) + 1) + "|\n"
        for method in METHODS:
            row = [
                [cells[key] for s in range(SEEDS) if (key := f"{task}/{method}/{k}/{s}") in cells]
                for k in counts
            ]
            if any(row):
                shown = " | ".join(
                    with_interval([100 * value for value in values]) if values else ""
                    for values in row
                )
                text += f"| {method}: {WHAT[method]} | {shown} |\n"
    put(PAGE, "Few examples", text)


def main() -> None:
    """Measures what is not there yet and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "base-en-zh")
    parser.add_argument("--related", type=Path, default=ROOT / "runs" / "tune" / "imdb-0")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--counts", nargs="*", type=int, default=list(COUNTS))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    cells = Cells(options.table)
    if not options.page_only:
        trained = json.loads((options.base / "results.json").read_text("utf-8"))["train"]
        cells.measure("base", lambda: {name: trained[name] for name in ("parameters", "tokens")})
        for count in options.counts:
            for seed in range(SEEDS):
                for name in options.tasks:
                    for method in options.methods:
                        # What is shown of fifteen classes does not fit the context.
                        long = (name, method) == ("tnews", "in context")
                        other = name not in RELATED.get(method, (name,))
                        if not long and not other and count in ONLY_FOR.get(method, (count,)):
                            told = (TASKS[name], options.base, options.related, method, count, seed)
                            key = f"{name}/{method}/{count}/{seed}"
                            cells.measure(key, partial(accuracy, *told))
    if options.table == TABLE:
        write_page(cells.held)


if __name__ == "__main__":
    main()
