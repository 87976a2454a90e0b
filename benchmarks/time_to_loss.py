"""How long tianti takes to a peer's final loss: `python time_to_loss.py --data en_books`.

    NANOGPT=… NANOCHAT=… python benchmarks/time_to_loss.py --data en_books --seconds 1200

One text, one tokenizer, one shape. A peer trains for so many seconds with its own network,
optimizer and schedule, at the best of three rates; then tianti trains with the settings its recipe
derives, for a share of that time. Time is counted from the start of the process: imports and
compilation are in it. How many steps fit is fixed by the first ones, as a schedule needs it; so
`seconds` of a run are those steps at the median pace, plus its start, and do not depend on what
else the machine did in the middle. Bits per byte are those of the same validation rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGUN = time.perf_counter()

import learning_peers  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from train_peers import SHAPES  # noqa: E402

from tianti.files import read_json  # noqa: E402
from tianti.tokens.shards import TokenSplit  # noqa: E402

CALIBRATION = (3, 12)
VALIDATION_BATCHES = 32
RECIPE = """name: {data}
corpus:
  sources:
    - {{path: "{folder}/{data}/train.jsonl.zst", split: train}}
    - {{path: "{folder}/{data}/valid.jsonl.zst", split: validation}}
tokenizer: {{vocab_size: 4096}}
model: {{depth: {depth}, width: {width}, context: {time}}}
"""


def prepared(data: str, size: str, folder: Path) -> Path:
    """Gives a run with the tokens of a data set, made where it is not there."""
    shape = SHAPES[size]
    run, recipe = folder / f"{data}-{size}", folder / f"{data}-{size}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    source = os.environ.get("TIANTI_DATA", "../shared/data")
    recipe.write_text(
        RECIPE.format(
            data=data, folder=source, depth=shape.depth, width=shape.width, time=shape.time
        )
    )
    command = [sys.executable, "-m", "tianti", "run", str(recipe), "--until", "tokens"]
    subprocess.run([*command, "--out", str(run)], check=True, stdout=sys.stderr)
    return run


@torch.no_grad()
def bits_per_byte(
    run: Path, context: int, token_nats: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> float:
    """Gives the bits per byte of the first validation rows.

    Args:
        run: a run with tokens.
        context: tokens of a row.
        token_nats: `(ids, labels, segments)` gives the loss of each token, flat.
    """
    from tianti.tokens.stream import BatchStream
    from tianti.tokens.tokenizer import Tokenizer
    from tianti.train.stage import VALIDATION_ROWS, token_bytes

    split = TokenSplit.open(run / "tokens" / "validation")
    sizes = torch.from_numpy(token_bytes(Tokenizer.load(run / "tokenizer")))
    stream = BatchStream(split, context=context, rows=VALIDATION_ROWS, seed=0)
    nats = num_bytes = 0.0
    for index in range(VALIDATION_BATCHES):
        batch = stream.batch(index)
        labels = torch.from_numpy(batch.labels)
        counted = sizes[labels].flatten()
        each = token_nats(torch.from_numpy(batch.ids), labels, torch.from_numpy(batch.segments))
        # Special tokens stand for no bytes: neither their loss nor their bytes count.
        nats += each[counted > 0].sum().item()
        num_bytes += counted.sum().item()
    return nats / math.log(2) / num_bytes


def peer_run(name: str, value: float, size: str, run: Path, seconds: float) -> Any:
    """Trains a peer for so many seconds."""
    import torch

    from tianti.tokens.shards import TokenSplit

    shape = SHAPES[size]
    torch.manual_seed(0)
    learner = getattr(learning_peers, name)(shape, value)
    split = TokenSplit.open(run / "tokens" / "train")
    tokens = torch.from_numpy(split.read(0, split.num_tokens))
    chosen = torch.Generator().manual_seed(0)
    total, number, durations = 10**9, 0, []
    while number < total:
        # Rows from anywhere, as both scripts draw them in effect.
        starts = torch.randint(len(tokens) - shape.time - 1, (shape.batch,), generator=chosen)
        rows = torch.stack([tokens[at : at + shape.time + 1] for at in starts.tolist()])
        begun = time.perf_counter()
        learner.step(number, total, rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        durations.append(time.perf_counter() - begun)
        number += 1
        if number == sum(CALIBRATION):
            pace = statistics.median(durations[CALIBRATION[0] :])
            start = time.perf_counter() - BEGUN
            total = number + int((seconds - start) / pace)
            print(f"{name} {value}: {total} steps of {pace:.2f} s", file=sys.stderr)
        if number % 100 == 0:
            print(f"{number} of {total}", file=sys.stderr)
    loss = bits_per_byte(
        run, shape.time, lambda ids, labels, segments: learner.token_nats(ids, labels)
    )
    return {
        "steps": total,
        "pace": pace,
        "seconds": start + (total - sum(CALIBRATION)) * pace,
        "wall_seconds": time.perf_counter() - BEGUN,
        "bits_per_byte": loss,
    }


def our_run(run: Path, seconds: float, seed: int, changes: list[str]) -> Any:
    """Has the command train for so many seconds with what a recipe derives."""
    from tianti.exchange.huggingface import load_transformer

    copy = Path(tempfile.mkdtemp(prefix="time-to-loss-", dir=run.parent)) / run.name
    # Hard links: what is prepared is neither changed nor copied.
    shutil.copytree(run, copy, copy_function=os.link)
    recipe = run.parent / f"{run.name}.yaml"
    settings = [f"train.budget={seconds:g}s", f"seed={seed}", *changes]
    command = [sys.executable, "-m", "tianti", "run", str(recipe), "--out", str(copy)]
    begun = time.perf_counter()
    subprocess.run([*command, "--until", "model", *settings], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - begun
    metrics = read_json(copy / "results.json")["train"]
    model = load_transformer(copy / "model")

    def token_nats(ids: Tensor, labels: Tensor, segments: Tensor) -> Tensor:
        logits = model.logits(model(ids, segments_BT=segments))
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")

    loss = bits_per_byte(run, model.config.context, token_nats)
    shutil.rmtree(copy.parent)
    return {
        "steps": metrics["steps"],
        "tokens": metrics["tokens"],
        "seconds": wall,
        "bits_per_byte": loss,
    }


RATES = {"nanogpt": (3e-3, 1e-3, 6e-4), "nanochat": (0.3, 0.09, 1.0)}


def peer_process(name: str, value: float, arguments: argparse.Namespace, run: Path) -> Any:
    """Trains a peer in a process of its own, so that its start counts."""
    command = [sys.executable, __file__, "--work", name, "--value", str(value), "--run", str(run)]
    command += ["--shape", arguments.shape, "--seconds", str(arguments.seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(figures: dict[str, Any], data: str, size: str) -> str:
    """Gives the figures of one text and shape as Markdown."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for key, row in figures.items():
        of, shape, name, value, *seed_and_changes = key.split(" ")
        if (of, shape) == (data, size):
            if name == "tianti":
                # Runs with other settings are not further seeds of the same.
                name = ", ".join([name, f"{value} of the time", *seed_and_changes[1:]])
            rows.setdefault(name, []).append(row)
    lines = [
        f"`{data}`, {size} weights:",
        "",
        "| | seconds | steps | bits per byte (least–most) |",
        "|---|---|---|---|",
    ]
    for name, runs in rows.items():
        if not name.startswith("tianti"):
            runs = [min(runs, key=lambda run: run["bits_per_byte"])]
        losses = sorted(run["bits_per_byte"] for run in runs)
        seconds = statistics.median(run["seconds"] for run in runs)
        steps = statistics.median(run["steps"] for run in runs)
        spread = f" ({losses[0]:.4f}–{losses[-1]:.4f}, {len(losses)} seeds)" if losses[1:] else ""
        loss = f"{statistics.median(losses):.4f}{spread}"
        lines.append(f"| {name} | {seconds:,.0f} | {steps:,.0f} | {loss} |")
    return "\n".join(lines)


def main() -> None:
    """Measures what was asked for; what is in the JSON already is not measured again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="en_books")
    parser.add_argument("--shape", default="12m")
    parser.add_argument("--seconds", type=float, default=1200.0, help="that a peer trains")
    parser.add_argument("--only", help="contenders, with commas")
    parser.add_argument("--shares", default="0.25,0.5", help="of that time, for tianti")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/time-to-loss"))
    parser.add_argument("--json", type=Path, default=Path("time_to_loss.json"))
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--value", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("changes", nargs="*", help="settings of tianti's recipe, a.b=c")
    given = parser.parse_args()
    if given.work:
        print(json.dumps(peer_run(given.work, given.value, given.shape, given.run, given.seconds)))
        return
    run = prepared(given.data, given.shape, given.folder)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    figures = json.loads(given.json.read_text()) if given.json.is_file() else {}
    names = given.only.split(",") if given.only else [*RATES, "tianti"]
    wanted = [(name, rate) for name in names if name != "tianti" for rate in RATES[name]]
    for name, rate in wanted:
        key = f"{given.data} {given.shape} {name} {rate}"
        if key not in figures:
            figures[key] = peer_process(name, rate, given, run)
            given.json.write_text(json.dumps(figures, indent=1))
        print(key, figures[key], file=sys.stderr, flush=True)
    shares = [float(share) for share in given.shares.split(",")] if "tianti" in names else []
    for share in shares:
        for seed in range(given.seeds):
            key = " ".join(
                [given.data, given.shape, "tianti", str(share), str(seed), *given.changes]
            )
            if key not in figures:
                figures[key] = our_run(run, share * given.seconds, seed, given.changes)
                given.json.write_text(json.dumps(figures, indent=1))
            print(key, figures[key], file=sys.stderr, flush=True)
    print(table(figures, given.data, given.shape))


if __name__ == "__main__":
    main()
