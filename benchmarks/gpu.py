"""Whole training steps on one GPU, beside transformers compiled: `python benchmarks/gpu.py`.

Bfloat16 with weights in float32, some micro-batches a step; every contender is a process of its
own, so that each has the whole card. MFU is the work of the network over the time and the card's
dense bfloat16 peak: six operations a weight and token (output layer counted, embedding not) and
attention as causal, so half of the square; what is computed twice counts once, and float8 is held
against the same peak. The largest network comes first, and none is begun after `--limit` seconds:
8 minutes on one H200. `--profile` prints where a step of one contender spends its time instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from train_peers import GPU_SHAPES, Shape, transformers_llama
from train_speed import our_step

# Dense bfloat16, from the makers' data sheets, by what the name of the card holds.
PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}
CONTENDERS = ("tianti-adamw", "transformers-compiled", "tianti-float8", "tianti")
WARM_STEPS = 2
PROFILED = 30


def contender(name: str, shape: Shape, device: str, compiled: bool) -> Callable[[], float]:
    """Gives the step of one contender.

    Args:
        name: one of `CONTENDERS`.
        shape: of the network and its batch.
        device: `cuda`, or `cpu` to see that it works.
        compiled: whether it is compiled.
    """
    torch.manual_seed(0)
    if name.startswith("tianti"):
        optimizer = "muon" if name == "tianti" else "adamw"
        step = our_step(shape, optimizer, device, compile=compiled, float8="float8" in name)
    else:
        step = transformers_llama(shape, compiled, device)
    ids = torch.randint(0, shape.vocabulary, (shape.batch, shape.time), device=device)
    return lambda: step(ids, ids)


def measure(
    name: str, shape: Shape, device: str, steps: int, compiled: bool = True
) -> dict[str, Any]:
    """Gives the speed of `steps` steps of a contender; see `contender`."""
    begun = time.perf_counter()
    step = contender(name, shape, device, compiled)
    for _ in range(WARM_STEPS):
        step()
    cold = time.perf_counter() - begun
    times = []
    for _ in range(steps):
        # Every step ends with its loss on the host, so no more waiting is needed.
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    speed = shape.batch * shape.time / statistics.median(times)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {
        "tokens_per_second": round(speed),
        "flops": speed * shape.flops_per_token,
        "memory_gb": round(memory / 1e9, 1),
        "cold_seconds": round(cold, 1),
    }


def profile(name: str, shape: Shape, device: str, compiled: bool = True) -> str:
    """Gives how long each kernel of a contender's step takes, in milliseconds; see `contender`."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    step = contender(name, shape, device, compiled)
    for _ in range(WARM_STEPS):
        step()
    kind = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with recorded(activities=[kind]) as found:
        step()
    times = {
        event.key: (
            event.self_device_time_total if device == "cuda" else event.self_cpu_time_total,
            event.count,
        )
        for event in found.key_averages()
    }
    lines = [f"{sum(took for took, _ in times.values()) / 1e3:.1f} ms in all"]
    for key, (took, count) in sorted(times.items(), key=lambda item: -item[1][0])[:PROFILED]:
        lines.append(f"{took / 1e3:9.2f} ms in {count:5} calls  {key[:100]}")
    return "\n".join(lines)


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
    parser.add_argument("--micro-batch", type=int, help="rows at once, in place of the shape's")
    parser.add_argument("--profile", help="a contender, whose first shape is looked into")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    def shape_of(size: str) -> Shape:
        rows = arguments.micro_batch or GPU_SHAPES[size].micro_batch
        return dataclasses.replace(GPU_SHAPES[size], micro_batch=rows)

    if arguments.work:
        name, size = arguments.work
        figures = measure(name, shape_of(size), arguments.device, arguments.steps)
        print(json.dumps(figures))
        return
    if arguments.profile:
        first = shape_of(arguments.shapes.split(",")[0])
        print(profile(arguments.profile, first, arguments.device))
        return
    begun = time.perf_counter()
    figures: dict[str, dict[str, Any]] = {}
    for size in arguments.shapes.split(","):
        for name in arguments.only.split(","):
            if time.perf_counter() - begun > arguments.limit:
                continue
            command = [sys.executable, __file__, "--work", name, size]
            command += ["--device", arguments.device, "--steps", str(arguments.steps)]
            if arguments.micro_batch:
                command += ["--micro-batch", str(arguments.micro_batch)]
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
