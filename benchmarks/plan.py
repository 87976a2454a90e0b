"""What the planner foretells beside what was measured: `python benchmarks/plan.py`.

On GPUs the figures are of `measurements.json`: the fitted ones are what the shares in
`tianti/scale/estimate.py` come from, the others were never used. `--measure` trains on this
processor, one process for each configuration, and compares step time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train_peers import Shape
from train_speed import our_config, our_settings

from tianti.model.config import TransformerConfig
from tianti.scale.estimate import Estimate, estimate
from tianti.scale.hardware import load_table
from tianti.scale.layout import Layout
from tianti.scale.machine import this_processor
from tianti.scale.work import Work

HERE = Path(__file__).parent


def llama(depth: int, width: int, inner: int, heads: int) -> TransformerConfig:
    """Gives a network of Llama 3's shape."""
    return TransformerConfig(
        vocab_size=128_256,
        width=width,
        depth=depth,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        mlp_width=inner,
        context=8192,
        tied_embeddings=False,
    )


MODELS = {
    "1.3b": our_config(Shape(24, 16, 2048, 5504, 50_304, 2048, 64)),
    "8b": llama(32, 4096, 14_336, 32),
    "70b": llama(80, 8192, 28_672, 64),
    "405b": llama(126, 16_384, 53_248, 128),
}


def foretold(row: dict[str, Any]) -> Estimate:
    """Gives what the planner says of a measurement."""
    layout = Layout(
        shard=row.get("shard", 1),
        tensor=row.get("tensor", 1),
        pipeline=row.get("pipeline", 1),
        stages=row.get("stages", 1),
    )
    model = MODELS[row["model"]]
    settings = our_settings(
        Shape(0, 0, 0, 0, 0, model.context, row["rows"], row["micro"]),
        optimizer="adamw",
        float8=row.get("float8", False),
        activation_checkpointing=row.get("checkpointing", "off"),
    )
    return estimate(Work(model, settings, layout), load_table()[row["device"]])


def gpu_table() -> str:
    """Gives published and measured throughput beside the estimate, as Markdown."""
    lines = [
        "| what | device | tokens/s a device, measured | foretold | off by | | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in json.loads((HERE / "measurements.json").read_text()):
        found = foretold(row)
        speed = found.tokens_per_second / found.work.layout.devices
        flops = found.work.shape.flops_per_token()
        measured = row.get("tokens_per_second") or row["tflops"] * 1e12 / flops
        cells = [
            row["what"],
            row["device"],
            f"{measured:,.0f}",
            f"{speed:,.0f}",
            f"{speed / measured - 1:+.0%}",
            "fitted" if row.get("fitted") else "not used",
            row["source"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# Depth, heads, width, inner width, vocabulary, tokens, rows, rows at once; and settings.
FITTED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((6, 6, 384, 1024, 4096, 256, 16, 16), {}),
    ((4, 4, 256, 704, 2048, 256, 8, 8), {}),
    ((3, 3, 192, 512, 8192, 128, 16, 16), {}),
    ((8, 8, 512, 1376, 8192, 512, 8, 4), {}),
    ((6, 6, 384, 1024, 4096, 256, 16, 8), {"compile": False}),
    ((6, 6, 384, 1024, 4096, 256, 16, 16), {"activation_checkpointing": "full"}),
]
HELD_OUT: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 2, 128, 352, 2048, 256, 8, 8), {}),
    ((5, 5, 320, 864, 4096, 256, 16, 16), {}),
    ((10, 6, 384, 1024, 8192, 256, 8, 8), {}),
    ((8, 8, 512, 1376, 16_384, 256, 16, 8), {}),
    ((12, 12, 768, 2048, 4096, 512, 4, 4), {}),
    ((6, 6, 384, 1024, 32_768, 512, 8, 8), {}),
    ((4, 8, 512, 2048, 4096, 1024, 4, 2), {}),
    ((6, 6, 384, 1024, 4096, 256, 32, 8), {}),
    ((5, 5, 320, 864, 4096, 256, 16, 16), {"compile": False}),
    ((8, 8, 512, 1376, 8192, 256, 16, 16), {"activation_checkpointing": "full"}),
    ((8, 8, 512, 1376, 8192, 256, 16, 16), {"activation_checkpointing": "selective"}),
    ((6, 6, 384, 1024, 8192, 512, 8, 8), {"optimizer": "muon"}),
]
# Neither time nor memory has seen these.
FRESH: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((7, 7, 448, 1184, 8192, 256, 12, 12), {}),
    ((9, 6, 384, 1024, 16_384, 512, 4, 4), {}),
    ((3, 10, 640, 1728, 4096, 256, 16, 8), {}),
    ((6, 8, 512, 1376, 32_768, 256, 8, 8), {"optimizer": "muon"}),
    ((12, 8, 512, 1376, 4096, 256, 16, 16), {"activation_checkpointing": "full"}),
    ((6, 6, 384, 1024, 8192, 256, 16, 16), {"activation_checkpointing": "selective"}),
]
KINDS = (
    ("time and memory fitted", FITTED),
    ("memory fitted", HELD_OUT),
    ("not used", FRESH),
)


def measured(shape: Shape, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Trains a few steps in a process of its own."""
    given = {"shape": asdict(shape), "options": options}
    given |= {"threads": os.cpu_count(), "seconds": seconds}
    command = [sys.executable, str(HERE / "plan_worker.py"), json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_rows(seconds: float, raw: Path | None) -> list[dict[str, Any]]:
    """Measures all configurations of this processor."""
    rows = []
    for kind, cases in KINDS:
        for sizes, changes in cases:
            shape, options = Shape(*sizes), {"optimizer": "adamw"} | changes
            work = Work(our_config(shape), our_settings(shape, **options))
            found = estimate(work, this_processor(work.shape))
            rows.append(
                {
                    "kind": kind,
                    "sizes": sizes,
                    "options": changes,
                    **measured(shape, options, seconds),
                    "foretold_seconds": found.seconds.total,
                    "foretold_peak": found.memory.total,
                    "flops": found.device.bf16_tflops,
                    "bandwidth": found.device.memory_gbps,
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
            if raw is not None:
                raw.write_text(json.dumps(rows, indent=1))
    return rows


def cpu_table(rows: list[dict[str, Any]]) -> str:
    """Gives the figures of this processor as Markdown."""
    lines = [
        "| layers × width, inner, vocabulary, rows × tokens (at once) | | step, s | foretold"
        " | off by | peak, MB | foretold | off by | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        depth, _, width, inner, vocabulary, context, batch, micro = row["sizes"]
        cells = [
            f"{depth} × {width}, {inner}, {vocabulary:,}, {batch} × {context} ({micro})",
            ", ".join(f"{key} {value}" for key, value in row["options"].items()),
            f"{row['seconds']:.3f}",
            f"{row['foretold_seconds']:.3f}",
            f"{row['foretold_seconds'] / row['seconds'] - 1:+.0%}",
            f"{row['peak'] / 1e6:,.0f}",
            f"{row['foretold_peak'] / 1e6:,.0f}",
            f"{row['foretold_peak'] / row['peak'] - 1:+.0%}",
            row["kind"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="train on this processor too")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each configuration")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(gpu_table())
    if arguments.measure:
        print("\n" + cpu_table(cpu_rows(arguments.seconds, arguments.json)))


if __name__ == "__main__":
    main()
