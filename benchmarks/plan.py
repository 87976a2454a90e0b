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
from pathlib import Path
from typing import Any

from tianti.model.config import TransformerConfig
from tianti.scale.estimate import Degrees, Estimate, Work, estimate
from tianti.scale.hardware import load_table
from tianti.train.config import TrainConfig, TrainSettings

HERE = Path(__file__).parent
# depth, width, inner width, heads, key/value heads, head width, vocabulary, context, tied
MODELS = {
    "1.3b": (24, 2048, 5504, 16, 16, 128, 50_304, 2048, True),
    "8b": (32, 4096, 14_336, 32, 8, 128, 128_256, 8192, False),
    "70b": (80, 8192, 28_672, 64, 8, 128, 128_256, 8192, False),
    "405b": (126, 16_384, 53_248, 128, 8, 128, 128_256, 8192, False),
}


def model(name: str) -> TransformerConfig:
    """Gives a network by its name."""
    depth, width, inner, heads, kv_heads, head_dim, vocabulary, context, tied = MODELS[name]
    return TransformerConfig(
        vocab_size=vocabulary,
        width=width,
        depth=depth,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=inner,
        context=context,
        tied_embeddings=tied,
    )


def settings(rows: int, micro_rows: int, **changes: Any) -> TrainSettings:
    """Gives settings with AdamW."""
    given = TrainConfig(budget="1000 steps", optimizer="adamw").model_dump()
    known = {key: given[key] for key in TrainSettings.model_fields if given.get(key) is not None}
    values = {"learning_rate": 1e-3, "start": "random", "warmup_steps": 10, "seed": 0}
    values |= {"batch_rows": rows, "micro_batch_rows": micro_rows, "compile": True}
    return TrainSettings(**known | values | {"validate_every": 1000} | changes)


def foretold(row: dict[str, Any]) -> Estimate:
    """Gives what the planner says of a measurement."""
    degrees = Degrees(
        shard=row.get("shard", 1), tensor=row.get("tensor", 1), pipeline=row.get("pipeline", 1)
    )
    wanted = settings(row["rows"], row["micro"], float8=row.get("float8", False))
    mode = row.get("checkpointing", "off")
    work = Work(model(row["model"]), wanted, degrees, row["micro"], mode)
    return estimate(work, load_table()[row["device"]])


def gpu_table() -> str:
    """Gives published and measured throughput beside the estimate, as Markdown."""
    lines = [
        "| what | device | tokens/s a device, measured | foretold | off by | | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in json.loads((HERE / "measurements.json").read_text()):
        found = foretold(row)
        speed = found.tokens_per_second / found.work.degrees.devices
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


# depth, heads, width, inner width, vocabulary, context, rows, rows at once; and what else.
FITTED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((6, 6, 384, 1024, 4096, 256, 16, 16), {}),
    ((4, 4, 256, 704, 2048, 256, 8, 8), {}),
    ((3, 3, 192, 512, 8192, 128, 16, 16), {}),
    ((8, 8, 512, 1376, 8192, 512, 8, 4), {}),
    ((6, 6, 384, 1024, 4096, 256, 16, 8), {"compiled": False}),
    ((6, 6, 384, 1024, 4096, 256, 16, 16), {"checkpointing": "full"}),
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
    ((5, 5, 320, 864, 4096, 256, 16, 16), {"compiled": False}),
    ((8, 8, 512, 1376, 8192, 256, 16, 16), {"checkpointing": "full"}),
    ((8, 8, 512, 1376, 8192, 256, 16, 16), {"checkpointing": "selective"}),
    ((6, 6, 384, 1024, 8192, 512, 8, 8), {"optimizer": "muon"}),
]
USUAL = {"compiled": True, "checkpointing": "off", "optimizer": "adamw", "precision": "float32"}


def measured(sizes: tuple[int, ...], options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Trains a few steps in a process of its own."""
    names = ("depth", "heads", "width", "mlp_width", "vocabulary", "time", "batch", "micro_batch")
    given = USUAL | options | {"shape": dict(zip(names, sizes, strict=True))}
    given |= {"threads": os.cpu_count(), "seconds": seconds}
    command = [sys.executable, str(HERE / "plan_worker.py"), json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_estimate(sizes: tuple[int, ...], options: dict[str, Any]) -> Estimate:
    """Gives what the planner says of a training on this processor."""
    from tianti.scale.machine import this_processor

    depth, heads, width, inner, vocabulary, context, rows, micro = sizes
    shape = TransformerConfig(
        vocab_size=vocabulary,
        width=width,
        depth=depth,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        mlp_width=inner,
        context=context,
    )
    chosen = USUAL | options
    wanted = settings(rows, micro, optimizer=chosen["optimizer"], compile=chosen["compiled"])
    work = Work(shape, wanted, Degrees(), micro, chosen["checkpointing"])
    return estimate(work, this_processor())


def cpu_rows(seconds: float, raw: Path | None) -> list[dict[str, Any]]:
    """Measures all configurations of this processor."""
    rows = []
    for kind, cases in (("fitted", FITTED), ("not used", HELD_OUT)):
        for sizes, options in cases:
            foretold_here = cpu_estimate(sizes, options)
            found = measured(sizes, options, seconds)
            rows.append(
                {
                    "kind": kind,
                    "sizes": sizes,
                    "options": options,
                    **found,
                    "foretold_seconds": foretold_here.seconds.total,
                    "foretold_peak": foretold_here.memory.total,
                    "flops": foretold_here.device.bf16_tflops,
                    "bandwidth": foretold_here.device.memory_gbps,
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
