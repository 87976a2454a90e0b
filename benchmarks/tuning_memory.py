"""Measures the peak memory of tuning: all weights, adapters, adapters beside few bits.

`python benchmarks/tuning_memory.py` tunes a network of random weights (a third of a billion) for a
few steps, each way in a process of its own, and prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "LoRA": {"method": "lora"},
    "LoRA beside 8 bits": {"method": "lora", "quantize": "int8"},
    "LoRA beside 4 bits": {"method": "lora", "quantize": "nf4"},
}


def write_base(folder: Path, width: int, depth: int) -> int:
    """Writes a network of random weights with a tokenizer, and gives the number of its weights."""
    from tianti.exchange.huggingface import save_transformer
    from tianti.model.initialization import initialize
    from tianti.model.settings import ModelConfig
    from tianti.model.transformer import Transformer
    from tianti.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.train((f"word {number}" for number in range(2000)), 1000)
    settings = ModelConfig(width=width, depth=depth)
    config = settings.build(size=None, vocab_size=tokenizer.vocab_size, context=256, tied=True)
    model = Transformer(config)
    initialize(model, 0)
    save_transformer(model, folder, eos_token_id=tokenizer.ends[0], pad_token_id=tokenizer.padding)
    tokenizer.save(folder)
    return config.num_parameters()


def tune(base: str, way: str, folder: str) -> None:
    """Tunes a few steps and prints the peak of this process's memory, in bytes."""
    from tianti.api import run
    from tianti.progress import SILENT
    from tianti.recipe import Recipe

    where = Path(folder)
    rows = [{"text": f"word {n} " * 20, "label": str(n % 2)} for n in range(24)]
    train = where / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = {
        "name": "memory",
        "base": base,
        "device": "cpu",
        "tune": {
            "task": "classify",
            "train": str(train),
            "validation": 0.25,
            "context": 64,
            **WAYS[way],
        },
        "train": {"budget": "2 steps", "batch_tokens": 256},
    }
    run(Recipe.model_validate(recipe), where / "run", display=SILENT, until="train")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measures each way and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--one", nargs=3, metavar=("BASE", "WAY", "FOLDER"))
    options = parser.parse_args()
    if options.one:
        tune(*options.one)
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        count = write_base(Path(folder) / "base", options.width, options.depth)
        for way in WAYS:
            where = Path(folder) / way.replace(" ", "-")
            where.mkdir()
            command = [sys.executable, __file__, "--one", f"{folder}/base", way, str(where)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            peaks[way] = int(done.stdout.split()[-1])
    print(f"\nA network of {count / 1e6:.0f} M weights, float32; 256 tokens at once.\n")
    print("| what learns | peak memory | of all weights |\n|---|---|---|")
    whole = peaks["all weights"]
    for way, peak in peaks.items():
        print(f"| {way} | {peak / 2**30:.2f} GiB | {peak / whole:.2f} |")


if __name__ == "__main__":
    main()
