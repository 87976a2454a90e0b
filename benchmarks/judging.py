"""Likelihoods of tasks beside lm-evaluation-harness: `python benchmarks/judging.py`.

One model directory, the same questions, in turn (A B A B …) in one process: lm-eval's own class
over transformers at several batch sizes, and ours. Only the asking is timed: reading tasks and
rendering templates are not. The data lies where TIANTI_DATA says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
from time_to_loss import prepared
from train_peers import SHAPES, Shape
from train_speed import our_config

from tianti.evaluate.models.base import Request
from tianti.evaluate.models.network import Network
from tianti.evaluate.tasks.load import load_task
from tianti.exchange.huggingface import load_transformer, save_transformer
from tianti.judge.evaluation import prepare
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

CONTEXT = 1_024
# What a laptop trains in some minutes; train_speed's shapes are larger.
SMALL = Shape(4, 4, 192, 512, 4_096, CONTEXT, 16)
TASKS: dict[str, dict[str, Any]] = {
    "blimp": {"limit": 1_005},
    "piqa_valid": {"limit": 100},
    "lambada": {"limit": 100},
    "xcopa_zh": {"limit": 100},
    "c3": {"limit": 40},
    "clinc150": {"limit": 10},
    "sst2, 4 fixed examples": {"limit": 200, "few_shot.k": 4, "few_shot.choose": "first"},
}


def random_model(size: str, folder: Path) -> Path:
    """Gives a directory of a random network with a tokenizer of English books."""
    run = prepared("en_books", "12m", folder)
    place = folder / f"random-{size}"
    if not place.is_dir():
        # Their class refuses answers that the context does not hold.
        shape = our_config(replace(SHAPES.get(size, SMALL), time=CONTEXT))
        model = Transformer(shape)
        initialize(model, 0)
        tokenizer = Tokenizer.load(run / "tokenizer")
        end = tokenizer.end_of_text
        save_transformer(model, place, eos_token_id=end, pad_token_id=end)
        tokenizer.save(place, context=shape.context)
    return place


def questions(name: str, changes: dict[str, Any]) -> list[Request]:
    """Gives what a task asks."""
    data = Path(os.environ.get("TIANTI_DATA", "../shared/data"))
    made = prepare(*load_task(name, changes), data)
    asked = [made.question(number) for number in range(len(made.rows))]
    return [
        Request(question.prefix + question.before(number), option)
        for question in asked
        for number, option in enumerate(question.options)
    ]


def measure(folder: Path, tasks: list[str], sizes: list[int], rounds: int) -> list[list[str]]:
    """Gives a row of the table for each task."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def theirs(size: int) -> Any:
        return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=size)

    peers = {size: theirs(size) for size in sizes}
    # Their class puts nothing before a context.
    network = Network(folder, load_transformer(folder).eval(), Tokenizer.load(folder), begin=False)
    rows = []
    for name in tasks:
        requests = questions(name.split(",")[0], TASKS[name])
        instances = [
            Instance("loglikelihood", {}, (request.context, request.continuation), 0)
            for request in requests
        ]
        taken: dict[object, list[float]] = {}
        nats: dict[object, list[float]] = {}
        for _ in range(rounds):
            for size, peer in peers.items():
                began = time.perf_counter()
                found = peer.loglikelihood(instances, disable_tqdm=True)
                taken.setdefault(size, []).append(time.perf_counter() - began)
                nats[size] = [-log for log, _ in found]
            began = time.perf_counter()
            nats["tianti"] = [one.nats for one in network.likelihoods(requests)]
            taken.setdefault("tianti", []).append(time.perf_counter() - began)
        best = min(peers, key=lambda size: statistics.median(taken[size]))
        ratios = [a / b for a, b in zip(taken[best], taken["tianti"], strict=True)]
        gap = max(abs(a - b) for a, b in zip(nats[best], nats["tianti"], strict=True))
        rows.append(
            [name, f"{len(requests):,}"]
            + [f"{statistics.median(times):.1f}" for times in taken.values()]
            + [f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"]
            + [f"{gap:.0e}"]
        )
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows


BLIMP = """task: local_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {path}}}}}
output_type: multiple_choice
validation_split: train
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{{{[good, bad]}}}}"
target_delimiter: ""
num_fewshot: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def _write_pairs(place: Path, each: int) -> tuple[list[str], Path]:
    """Writes `each` pairs of every paradigm as tasks of lm-eval, and all of them as one of ours.

    Returns:
        The names of the paradigms, and our task.
    """
    made = prepare(*load_task("blimp", {}), Path(os.environ["TIANTI_DATA"]))
    chosen: dict[str, list[str]] = {}
    for row in made.rows:
        if len(lines := chosen.setdefault(str(row["uid"]), [])) < each:
            lines.append(json.dumps(dict(row)) + "\n")
    for name, lines in chosen.items():
        path = place / f"{name}.jsonl"
        path.write_text("".join(lines))
        (place / f"{name}.yaml").write_text(BLIMP.format(name=name, path=path))
    (place / "all.jsonl").write_text("".join(line for lines in chosen.values() for line in lines))
    task = place / "pairs.yml"
    task.write_text("name: pairs\nkind: minimal_pair\nlanguage: en\ndata: all.jsonl\ngroup: uid\n")
    return list(chosen), task


def whole_blimp(folder: Path, sizes: list[int], rounds: int, each: int) -> list[str]:
    """Gives the row of BLiMP from its files to its figures, `each` pairs of all 67 paradigms.

    lm-eval gets its own settings of the task, over local files of the same pairs.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from tianti.api import evaluate
    from tianti.progress import SILENT

    with tempfile.TemporaryDirectory() as place:
        paradigms, task = _write_pairs(Path(place), each)
        manager = TaskManager(include_path=place)
        peers = {
            size: HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=size)
            for size in sizes
        }
        names = [f"local_{name}" for name in paradigms]
        network = Network(
            folder, load_transformer(folder).eval(), Tokenizer.load(folder), begin=False
        )
        taken: dict[object, list[float]] = {}
        for number in range(rounds):
            for size, peer in peers.items():
                began = time.perf_counter()
                theirs = simple_evaluate(model=peer, tasks=names, task_manager=manager)["results"]
                taken.setdefault(size, []).append(time.perf_counter() - began)
            began = time.perf_counter()
            ours = evaluate(network, [str(task)], out=Path(place) / str(number), display=SILENT)
            taken.setdefault("tianti", []).append(time.perf_counter() - began)
        apart = max(
            abs(theirs[f"local_{name}"]["acc,none"] - metric["value"])
            for name, metric in ours["pairs"]["groups"].items()
        )
    best = min(peers, key=lambda size: statistics.median(taken[size]))
    ratios = [a / b for a, b in zip(taken[best], taken["tianti"], strict=True)]
    return [
        "blimp, files to figures",
        f"{2 * each * len(paradigms):,}",
        *[f"{statistics.median(times):.1f}" for times in taken.values()],
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
        f"accuracies {apart:.0e}",
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a directory; else a random one is made")
    parser.add_argument(
        "--shape", default="12m", choices=["small", *SHAPES], help="of the random one"
    )
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16, 64])
    parser.add_argument("--pairs", type=int, default=15, help="of each paradigm of BLiMP")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/judging"))
    given = parser.parse_args()
    torch.set_num_threads(2)
    folder = given.model or random_model(given.shape, given.folder)
    rows = measure(folder, given.tasks, given.batches, given.rounds)
    rows.append(whole_blimp(folder, given.batches, given.rounds, given.pairs))
    head = ["task", "requests", *[f"lm-eval, batch {size}, s" for size in given.batches]]
    head += ["tianti, s", "best lm-eval ÷ tianti", "largest gap in nats"]
    print(f"Random weights, shape {given.shape}, float32, 2 threads:\n")
    print("\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]))


if __name__ == "__main__":
    main()
