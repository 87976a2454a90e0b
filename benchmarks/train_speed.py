"""Whole training steps a second, beside peers on the same machine: `python train_speed.py`.

    NANOGPT=… NANOCHAT=… LITGPT=… python benchmarks/train_speed.py --shape 12m --rounds 3

Every contender is a process of its own that compiles once and then waits; they run in turn, round
after round, so that what else the machine does falls on all of them. Float32, as many threads as
cores. The peak is that of the best matrix product, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from train_peers import CONTENDERS, SHAPES, Shape

PEAK_SIZES = (1024, 1536, 2048)


def our_config(shape: Shape) -> Any:
    """Gives the network of a shape."""
    from tianti.model.config import TransformerConfig

    return TransformerConfig(
        vocab_size=shape.vocabulary,
        width=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        num_kv_heads=shape.heads,
        head_dim=shape.width // shape.heads,
        mlp_width=shape.mlp_width,
        context=shape.time,
    )


def random_stream(shape: Shape, folder: Path) -> Any:
    """Gives batches of random tokens, written below a folder."""
    import numpy as np

    from tianti.tokens.shards import TokenSplit, write_shards
    from tianti.tokens.stream import BatchStream

    random = np.random.default_rng(0)
    # Few are in a row of two documents, so that attention is all but what a peer's is.
    ids = random.integers(0, shape.vocabulary, (25, 64 * shape.time), dtype=np.int64)
    documents = [(row, 4 * len(row)) for row in ids]
    write_shards(folder / "train", documents, vocab_size=shape.vocabulary, end_of_text=0)
    split = TokenSplit.open(folder / "train")
    return BatchStream(split, context=shape.time, rows=shape.batch, seed=0)


def our_settings(shape: Shape, **changes: Any) -> Any:
    """Gives the trainer's settings for a shape: what a recipe has where it says nothing."""
    from tianti.train.config import TrainConfig, TrainSettings

    given = TrainConfig(budget="1000000 steps").model_dump()
    known = {
        name: given[name] for name in TrainSettings.model_fields if given.get(name) is not None
    }
    return TrainSettings(
        **known
        | {
            "start": "random",
            "learning_rate": 1e-3,
            "batch_rows": shape.batch,
            "micro_batch_rows": shape.micro_batch or shape.batch,
            "warmup_steps": 10,
            "validate_every": 10**9,
            "compile": True,
            "seed": 0,
        }
        | changes
    )


def our_step(
    shape: Shape, optimizer: str, device: str = "cpu", config: Any = None, **changes: Any
) -> Any:
    """Gives a step of tianti's trainer as it is, its data and log included.

    Args:
        shape: network and batch.
        optimizer: `muon` or `adamw`.
        device: that trains.
        config: another network than the shape's, such as one with experts.
        **changes: of the trainer's settings.
    """
    import numpy as np
    import torch

    from tianti.model.initialization import initialize
    from tianti.model.transformer import Transformer
    from tianti.progress import SILENT
    from tianti.train.log import TrainLog
    from tianti.train.stage import place
    from tianti.train.trainer import TrainData, Trainer

    folder = Path(tempfile.mkdtemp(prefix="train-speed-"))
    stream = random_stream(shape, folder)
    settings = our_settings(shape, optimizer=optimizer, **changes)
    model = Transformer(config or our_config(shape))
    if device == "cpu":
        initialize(model, 0)
    else:
        _fill(model.to(device))
    place(model, settings, torch.device(device))
    trainer = Trainer(
        model, settings, TrainData(stream, stream, np.ones(shape.vocabulary)), folder, SILENT
    )
    trainer.state.total_steps = 10**6
    log = TrainLog(folder / "log.jsonl", 0)
    task = SILENT.task("train").__enter__()

    return lambda ids, labels: trainer.one_step(log, task)


def _fill(model: Any) -> None:
    """Gives random weights where the model is: drawn on a CPU, a billion of them take long."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(0.0, 0.02)


def matmul_peak(seconds: float) -> float:
    """Gives the most float32 operations a second of square products, by any library at hand."""
    import torch

    from tianti.model.products import matmul_transposed

    best = 0.0
    for size in PEAK_SIZES:
        one, other = torch.randn(size, size), torch.randn(size, size)
        out = torch.empty(size, size)
        until = time.perf_counter() + seconds / len(PEAK_SIZES)
        while (begun := time.perf_counter()) < until:
            torch.mm(one, other, out=out)
            between = time.perf_counter()
            matmul_transposed(one, other)
            quicker = min(between - begun, time.perf_counter() - between)
            best = max(best, 2 * size**3 / quicker)
    return best


def work(name: str, shape: Shape, threads: int) -> None:
    """Answers `run SECONDS` lines: trains as long, and says how fast that was."""
    import torch

    # Peers print; only answers go where they are awaited.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    begun = time.perf_counter()
    if name == "peak":
        step = None
    elif name.startswith("tianti"):
        optimizer = "adamw" if "adamw" in name else "muon"
        precision = "bfloat16" if "bfloat16" in name else "auto"
        step = our_step(shape, optimizer, compile="eager" not in name, precision=precision)
    else:
        step = CONTENDERS[name](shape)
    data = torch.randint(0, shape.vocabulary, (shape.batch, shape.time + 1))
    ids, labels = data[:, :-1].contiguous(), data[:, 1:].contiguous()
    if step is not None:
        for _ in range(3):
            step(ids, labels)
    answers.write(json.dumps({"cold_seconds": time.perf_counter() - begun}) + "\n")
    for line in sys.stdin:
        seconds = float(line.split()[1])
        if step is None:
            answers.write(json.dumps({"flops": matmul_peak(seconds)}) + "\n")
            continue
        step(ids, labels)
        times: list[float] = []
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until or len(times) < 3:
            step(ids, labels)
            times.append(time.perf_counter() - begun)
        answer = {
            "seconds": statistics.median(times),
            "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        answers.write(json.dumps(answer) + "\n")


class Contender:
    """A process that trains when it is told to."""

    def __init__(self, name: str, shape: str, threads: int):
        command = [sys.executable, __file__, "--work", name, "--shape", shape]
        self.name = name
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cold_seconds = self._answer()["cold_seconds"]
        self.rounds: list[dict[str, float]] = []

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}")
        return json.loads(line)

    def run(self, seconds: float) -> None:
        """Has it train for some seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"run {seconds}\n")
        self._process.stdin.flush()
        self.rounds.append(self._answer())

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def measure(names: list[str], size: str, rounds: int, seconds: float, threads: int) -> Any:
    """Runs the contenders in turn; gives all figures."""
    shape = SHAPES[size]
    contenders = []
    for name in ["peak", *names]:
        print(f"starting {name}", file=sys.stderr)
        contenders.append(Contender(name, size, threads))
    for number in range(rounds):
        for contender in contenders:
            contender.run(seconds)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    for contender in contenders:
        contender.stop()
    peak = statistics.median(run["flops"] for run in contenders[0].rounds)
    rows = {}
    for contender in contenders[1:]:
        speeds = [shape.batch * shape.time / run["seconds"] for run in contender.rounds]
        speed = statistics.median(speeds)
        rows[contender.name] = {
            "tokens_per_second": round(speed),
            "least": round(min(speeds)),
            "most": round(max(speeds)),
            "share_of_peak": round(speed * shape.flops_per_token / peak, 3),
            "peak_rss_mb": round(max(run["rss"] for run in contender.rounds) / 1e6),
            "cold_seconds": round(contender.cold_seconds, 1),
        }
    return {
        "machine": {"cores": os.cpu_count(), "machine": platform.machine(), "threads": threads},
        "shape": size,
        "peak_gflops": round(peak / 1e9, 1),
        "contenders": rows,
    }


def table(figures: dict[str, Any]) -> str:
    """Gives the figures as Markdown."""
    rows = figures["contenders"]
    peers = [row["tokens_per_second"] for name, row in rows.items() if "tianti" not in name]
    best = max(peers, default=0)
    lines = [
        f"{figures['shape']} weights, peak of matrix products {figures['peak_gflops']} GFLOP/s:",
        "",
        "| | tokens/s (least–most) | share of the peak | ÷ best peer | peak RSS | cold start |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ratio = f"{row['tokens_per_second'] / best:.2f}" if best else ""
        speed = f"{row['tokens_per_second']:,} ({row['least']:,}–{row['most']:,})"
        memory, cold = f"{row['peak_rss_mb']:,} MB", f"{row['cold_seconds']} s"
        lines.append(
            f"| {name} | {speed} | {row['share_of_peak']:.1%} | {ratio} | {memory} | {cold} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="12m")
    parser.add_argument("--only", help="contenders, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, SHAPES[arguments.shape], arguments.threads)
        return
    there = {"nanogpt": "NANOGPT", "nanochat": "NANOCHAT", "litgpt": "LITGPT"}
    names = ["tianti", "tianti-adamw"]
    names += [name for name in CONTENDERS if os.environ.get(there.get(name.split("-")[0], "HOME"))]
    names = arguments.only.split(",") if arguments.only else names
    figures = measure(
        names, arguments.shape, arguments.rounds, arguments.seconds, arguments.threads
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    print(table(figures))


if __name__ == "__main__":
    main()
