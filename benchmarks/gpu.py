"""Whole training steps on one GPU, beside transformers compiled: `python benchmarks/gpu.py`.

Bfloat16 with weights in float32, some micro-batches a step; every contender is a process of its
own, so that each has the whole card. MFU is the work of the network over the time and the card's
dense bfloat16 peak: six operations a weight and token (output layer counted, embedding not) and
attention as causal, so half of the square; what is computed twice counts once, and float8 is held
against the same peak. The largest network comes first, and none is begun after `--limit` seconds:
8 minutes on one H200.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from train_peers import GPU_SHAPES, transformers_llama
from train_speed import our_step

# Dense bfloat16, from the makers' data sheets, by what the name of the card holds.
PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}
CONTENDERS = ("tianti-adamw", "transformers-compiled", "tianti-float8", "tianti")
WARM_STEPS = 2


def measure(name: str, size: str, device: str, steps: int, compiled: bool = True) -> dict[str, Any]:
    """Gives the speed of one contender's steps.

    Args:
        name: one of `CONTENDERS`.
        size: one of `GPU_SHAPES`.
        device: `cuda`, or `cpu` to see that it works.
        steps: that are timed.
        compiled: whether they are compiled.
    """
    shape = GPU_SHAPES[size]
    torch.manual_seed(0)
    begun = time.perf_counter()
    if name.startswith("tianti"):
        optimizer = "muon" if name == "tianti" else "adamw"
        step = our_step(shape, optimizer, compiled, device, float8="float8" in name)
    else:
        step = transformers_llama(shape, compiled, device)
    ids = torch.randint(0, shape.vocabulary, (shape.batch, shape.time), device=device)
    for _ in range(WARM_STEPS):
        step(ids, ids)
    cold = time.perf_counter() - begun
    times = []
    for _ in range(steps):
        # Every step ends with its loss on the host, so no more waiting is needed.
        begun = time.perf_counter()
        step(ids, ids)
        times.append(time.perf_counter() - begun)
    speed = shape.batch * shape.time / statistics.median(times)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {
        "tokens_per_second": round(speed),
        "flops": speed * shape.flops_per_token,
        "memory_gb": round(memory / 1e9, 1),
        "cold_seconds": round(cold, 1),
    }


def peak_flops(card: str) -> float | None:
    """Gives the dense bfloat16 peak of a card by its name."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in card), None)


def table(figures: dict[str, dict[str, Any]], card: str) -> str:
    """Gives the figures as Markdown."""
    peak = peak_flops(card)
    known = f", peak {peak / 1e12:.0f} TFLOP/s" if peak else ""
    lines = [
        f"{card}{known}, torch {torch.__version__}:",
        "",
        "| | | tokens/s | MFU | ÷ transformers | memory | cold start |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, row in figures.items():
        size, name = key.split(" ")
        if "failed" in row:
            lines.append(f"| {size} | {name} | {row['failed']} | | | | |")
            continue
        peer = figures.get(f"{size} transformers-compiled", {}).get("tokens_per_second")
        ratio = f"{row['tokens_per_second'] / peer:.2f}" if peer else ""
        share = f"{row['flops'] / peak:.1%}" if peak else ""
        memory, cold = f"{row['memory_gb']} GB", f"{row['cold_seconds']} s"
        speed = f"{row['tokens_per_second']:,}"
        lines.append(f"| {size} | {name} | {speed} | {share} | {ratio} | {memory} | {cold} |")
    return "\n".join(lines)


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="1.3b,124m,350m")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, with commas")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--limit", type=float, default=420.0, help="seconds; none is begun after")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(measure(*arguments.work, arguments.device, arguments.steps)))
        return
    begun = time.perf_counter()
    figures: dict[str, dict[str, Any]] = {}
    for size in arguments.shapes.split(","):
        for name in arguments.only.split(","):
            if time.perf_counter() - begun > arguments.limit:
                continue
            command = [sys.executable, __file__, "--work", name, size]
            command += ["--device", arguments.device, "--steps", str(arguments.steps)]
            done = subprocess.run(command, capture_output=True, text=True)
            last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]
            figures[f"{size} {name}"] = {"failed": last} if done.returncode else json.loads(last)
            print(size, name, last, file=sys.stderr, flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=1))
    card = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(table(figures, card))


if __name__ == "__main__":
    main()
