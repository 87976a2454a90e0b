"""The examples stage of a tuning, and the one of its test: read, checked and split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from tianti.corpus.augment.copies import changed_copies
from tianti.corpus.config import Augmentation
from tianti.files import read_json, write_json
from tianti.generate.rewrite import REWRITER
from tianti.messages import tr
from tianti.progress import SILENT, Display
from tianti.tune.config import COPY, ExamplesStageConfig, TuneConfig
from tianti.tune.encode import counts_of
from tianti.tune.examples import (
    Example,
    load_examples,
    read_examples,
    text_of,
    write_examples,
)
from tianti.tune.split import check_labels, few_of_each, labels_of, parted

LABELS, TRAIN, VALIDATION, TEST = "labels.json", "train.jsonl", "validation.jsonl", "test.jsonl"


def prepare_examples(
    config: ExamplesStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Reads, checks and splits examples to learn from and to steer by.

    Args:
        config: files and task.
        inputs: none.
        out: where to: `train.jsonl`, `validation.jsonl`, and `test.jsonl` where the test is a share
            of the first.
        display: shows progress.

    Returns:
        For `train` and `validation` `examples`, `bytes`, `longest_bytes` and, of classes, `labels`,
        of the first `copies` too, if there are changed ones, which the others do not count;
        `labels`, the classes in order.

    Raises:
        UserError: an example is wrong, with file and line.
    """
    splits, found = read_splits(config.tune, config.seed, display)
    if config.tune.augment:
        copies = _copies(splits["train"], config.tune.augment)
        splits["train"] += copies
        found["train"]["copies"] = len(copies)
    for name, examples in splits.items():
        write_examples(out / f"{name}.jsonl", examples)
    write_json(out / LABELS, found["labels"])
    return found


def read_splits(
    tune: TuneConfig, seed: int, display: Display = SILENT
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """Gives the examples of each split, and what is to be said of them; see `prepare_examples`."""
    with display.task("examples", 2, "files") as task:
        splits = {"train": read_examples(tune.train, tune)}
        task.advance(1)
        if isinstance(tune.validation, str | list):
            splits["validation"] = read_examples(tune.validation, tune)
        task.advance(1)
    # All classes that there are, before some examples are taken away.
    labels = labels_of(splits["train"], tune)
    for examples in splits.values():
        check_labels(examples, labels, tune)
    for name, share in (("test", tune.test), ("validation", tune.validation)):
        if isinstance(share, float):
            splits["train"], splits[name] = parted(splits["train"], share, tune, seed)
    if tune.examples_per_class:
        splits["train"] = few_of_each(splits["train"], labels, tune.examples_per_class, seed)
    found: dict[str, Any] = {"labels": labels}
    for name in ("train", "validation"):
        found[name] = _described(splits[name], labels, tune)
    return splits, found


def _copies(examples: list[Example], steps: list[Augmentation]) -> list[Example]:
    """Gives changed copies of examples, which stand at the same place as those."""
    made = changed_copies([example["text"] for example in examples], steps, REWRITER)
    return [examples[number] | {"text": text, COPY: kind} for number, kind, text in made]


def prepare_test(
    config: ExamplesStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Reads and checks the examples that judge, which what is learnt knows nothing of.

    Args:
        config: files and task.
        inputs: folder of `examples`.
        out: where to: `test.jsonl`, if there is a test.
        display: shows progress.

    Returns:
        `examples`, `bytes`, `longest_bytes` and, of classes, `labels`; `repeated`, those whose text
        is among that of training too.

    Raises:
        UserError: an example is wrong, with file and line.
    """
    tune, folder = config.tune, inputs["examples"]
    if tune.test is None:
        return {"examples": 0}
    labels = read_json(folder / LABELS)
    if isinstance(tune.test, float):
        examples = load_examples(folder / TEST)
    else:
        examples = read_examples(tune.test, tune)
        check_labels(examples, labels, tune)
    write_examples(out / TEST, examples)
    seen = {text_of(example) for example in load_examples(folder / TRAIN)}
    repeated = sum(text_of(example) in seen for example in examples)
    if repeated:
        display.say(
            tr(
                "{count} of {all} test examples are among those of training too",
                count=repeated,
                all=len(examples),
            ),
            "yellow",
        )
    return _described(examples, labels, tune) | {"repeated": repeated}


def _described(examples: list[Example], labels: list[str], tune: TuneConfig) -> dict[str, Any]:
    sizes = [len(text_of(example).encode("utf-8", "replace")) for example in examples]
    found: dict[str, Any] = {
        "examples": len(examples),
        "bytes": sum(sizes),
        "longest_bytes": max(sizes),
    }
    if tune.task == "classify":
        found["labels"] = dict(zip(labels, counts_of(examples, labels), strict=True))
    if tune.task == "regress":
        numbers = [example["label"] for example in examples]
        found |= {"mean": mean(numbers), "deviation": pstdev(numbers) or 1.0}
    if tune.task == "tag":
        kinds = Counter(kind for example in examples for *_, kind in example["entities"])
        found["labels"] = {label: kinds[label] for label in labels}
    return found
