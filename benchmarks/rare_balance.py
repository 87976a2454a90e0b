"""What more of the rare does: bits per byte on the rarest test documents, with and without it.

    python benchmarks/rare_balance.py --out DIR --json figures.json

Trains the same small model on the same number of tokens three times for each corpus: documents once
each, the documents with the rarest words three times, those with the rarest sentence shapes three
times. The slice is the rarest fifth of the test documents, told by the training text's counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tianti.tokens.rarity import document_rarity
from tianti.tokens.shards import TokenSplit
from tianti.tokens.tokenizer import Tokenizer

RECIPES = ("tech-zh", "wikitext2")
SIZE = "1M"
WAYS = {
    "once each": [],
    "rare words × 3": ["corpus.balance.rare={by: token, share: 0.1, epochs: 3}"],
    "rare shapes × 3": ["corpus.balance.rare={by: shape, share: 0.1, epochs: 3}"],
}
SLICE = 0.2


def bits(
    rows: list[dict[str, Any]], chosen: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Gives bits per byte of the chosen documents and its 95 % interval (bootstrap)."""
    nats = np.array([row["nats"] for row in rows])[chosen]
    sizes = np.array([row["bytes"] for row in rows])[chosen]
    draws = np.random.default_rng(seed).integers(0, len(nats), (1000, len(nats)))
    found = nats[draws].sum(axis=1) / sizes[draws].sum(axis=1) / np.log(2)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(nats.sum() / sizes.sum() / np.log(2)), float(low), float(high)


def difference(
    plain: list[dict[str, Any]], rows: list[dict[str, Any]], chosen: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Gives by how much a way changes the bits per byte of the chosen documents, with the interval
    of the paired bootstrap."""
    nats = np.array([[a["nats"], b["nats"]] for a, b in zip(plain, rows, strict=True)])[chosen]
    sizes = np.array([row["bytes"] for row in rows])[chosen]
    draws = np.random.default_rng(seed).integers(0, len(nats), (1000, len(nats)))
    change = (nats[:, 1] - nats[:, 0]) / np.log(2)
    found = change[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(change.sum() / sizes.sum()), float(low), float(high)


def measure(recipe: str, way: str, out: Path, tokens: str) -> dict[str, Any]:
    """Runs a recipe in one way and measures all test documents and the rare ones."""
    run = out / f"{recipe}-{list(WAYS).index(way)}"
    settings = [f"train.budget={tokens} tokens", f"model.size={SIZE}", *WAYS[way]]
    command = ["run", f"recipes/{recipe}.yaml", *settings, "--out", str(run), "--until", "evaluate"]
    subprocess.run([sys.executable, "-m", "tianti", *command, "--json"], check=True, stdout=-3)
    test, train = (TokenSplit.open(run / "tokens" / name) for name in ("test", "train"))
    rows = [json.loads(line) for line in (run / "evaluate" / "test.jsonl").open()]
    numbers = np.array([row["document"] for row in rows])
    found: dict[str, Any] = {"recipe": recipe, "way": way, "documents": len(rows)}
    every = np.arange(len(rows))
    plain_rows = [
        json.loads(line) for line in (out / f"{recipe}-0" / "evaluate" / "test.jsonl").open()
    ]
    found["all"] = bits(rows, every)
    found["all_change"] = difference(plain_rows, rows, every)
    for by in ("token", "shape"):
        # What is rare is told by the plain run's counts, the same for all ways.
        plain = out / f"{recipe}-0"
        counted = TokenSplit.open(plain / "tokens" / "train")
        scores = document_rarity(test, Tokenizer.load(plain / "tokenizer"), by, counted).scores
        rare = np.argsort(-scores[numbers])[: max(int(SLICE * len(rows)), 1)]
        found[by] = bits(rows, rare)
        found[f"{by}_change"] = difference(plain_rows, rows, rare)
    found["train_tokens"] = train.num_tokens
    return found


def main() -> None:
    """Prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/rare-balance"))
    parser.add_argument("--tokens", default="1M")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [
        measure(recipe, way, arguments.out, arguments.tokens)
        for recipe in arguments.recipes
        for way in WAYS
    ]
    print("| corpus | training documents | | test, all | rare words | rare shapes | n |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        for label, ending, form in (("bits per byte", "", ".3f"), ("change", "_change", "+.3f")):
            found = [row[name + ending] for name in ("all", "token", "shape")]
            cells = [f"{value:{form}} [{low:{form}}, {high:{form}}]" for value, low, high in found]
            if ending == "" or row["way"] != "once each":
                print(
                    f"| {row['recipe']} | {row['way']} | {label} | {' | '.join(cells)}"
                    f" | {row['documents']} |"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
