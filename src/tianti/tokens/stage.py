"""The tokenizer stage (training text → tokenizer) and the tokens stage (documents → shards)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tianti.corpus.config import BalanceConfig
from tianti.corpus.engine import WORTH_WORKERS
from tianti.corpus.split import LATE, SPLITS
from tianti.corpus.table import count_documents, parts, read_batches, read_texts, text_bytes
from tianti.files import read_json, write_json
from tianti.progress import SILENT, Display, Task
from tianti.tokens.balance import balance
from tianti.tokens.config import TokenizerStageConfig, TokensStageConfig
from tianti.tokens.encode import FUNCTION, is_done, part_task, remove_marks
from tianti.tokens.rarity import document_rarity, rarity_table, token_counts
from tianti.tokens.shards import INDEX, TokenSplit, conclude_split, write_shards
from tianti.tokens.tokenizer import Tokenizer

_BALANCE = "balance.json"


def train_tokenizer(
    config: TokenizerStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Learns a tokenizer from training text alone and writes `tokenizer.json`.

    Args:
        config: vocabulary wanted and how much text to learn from.
        inputs: folder of `corpus`.
        out: where to.
        display: shows progress.

    Returns:
        `vocab_size`: entries, special tokens included; `training_bytes`: text learnt from.
    """
    path = inputs["corpus"] / "train"
    seen = 0

    def texts(task: Task) -> Iterator[str]:
        nonlocal seen
        for text in _evenly(path, config.training_bytes):
            seen += len(text.encode("utf-8"))
            task.update(seen)
            yield text

    with display.task("tokenizer", unit="B") as task:
        tokenizer = Tokenizer.train(texts(task), config.vocab_size)
    tokenizer.save(out)
    return {"vocab_size": tokenizer.vocab_size, "training_bytes": seen}


def build_tokens(
    config: TokensStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes every split of the corpus as token shards, the training split balanced.

    Args:
        config: how the training split is balanced, and where the work is done.
        inputs: folders of `corpus` and `tokenizer`.
        out: where to; one folder a split. Shards that are whole there are kept.
        display: shows progress.

    Returns:
        For each split `documents`, `tokens` and `bytes`; and `balance` where that was asked for.
    """
    metrics: dict[str, Any] = {}
    for split in (*SPLITS, LATE):
        path = inputs["corpus"] / split
        if split == LATE and not path.is_dir():
            continue
        if split == "train" and config.balance.wanted:
            metrics |= _balanced_split(path, inputs["tokenizer"], out, config, display)
        else:
            metrics[split] = _encoded_split(path, inputs["tokenizer"], out / split, config, display)
    return metrics


def _balanced_split(
    path: Path, tokenizer: Path, out: Path, config: TokensStageConfig, display: Display
) -> dict[str, Any]:
    """Encodes the training split and writes it balanced; killed at any moment, it goes on."""
    done = out / _BALANCE
    if not done.is_file():
        plain, made = out / ".unbalanced", out / ".balanced"
        _encoded_split(path, tokenizer, plain, config, display)
        shutil.rmtree(made, ignore_errors=True)
        totals, found = _balanced(config.balance, path, Tokenizer.load(tokenizer), plain, made)
        shutil.rmtree(out / "train", ignore_errors=True)
        made.rename(out / "train")
        write_json(done, {"train": totals, "balance": found})
    shutil.rmtree(out / ".unbalanced", ignore_errors=True)
    return read_json(done)


def _encoded_split(
    path: Path, tokenizer: Path, folder: Path, config: TokensStageConfig, display: Display
) -> dict[str, int]:
    """Encodes the parts of a split that are not encoded yet."""
    from tianti.corpus.engine import run_tasks

    if (folder / INDEX).is_file():
        index = TokenSplit.open(folder).index
        return {name: index[name] for name in ("documents", "tokens", "bytes")}
    tasks = [part_task(part, tokenizer, folder, number) for number, part in enumerate(parts(path))]
    left = [task for task in tasks if not is_done(task)]
    small = text_bytes(path) < WORTH_WORKERS and config.workers is None
    with display.task(f"tokens {folder.name}", count_documents(path), "docs") as task:
        run_tasks(
            FUNCTION,
            left,
            runner=config.engine,
            workers=1 if small else config.workers or os.cpu_count() or 1,
            on_result=lambda totals: task.advance(totals["documents"]),
        )
    made = Tokenizer.load(tokenizer)
    totals = conclude_split(folder, vocab_size=made.vocab_size, end_of_text=made.end_of_text)
    remove_marks(folder)
    return totals


def _balanced(
    config: BalanceConfig, corpus: Path, tokenizer: Tokenizer, plain: Path, folder: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Writes the training split anew, each document as often as it is to come."""
    split = TokenSplit.open(plain)
    lengths = split.document_lengths
    column = {"source": "source", "language": "language", "label": "label"}[config.by]
    kinds = [
        kind or "–" for batch in read_batches(corpus, [column]) for kind in batch[0].to_pylist()
    ]
    rarity = document_rarity(split, tokenizer, config.rare.by) if config.rare else None
    decided = balance(config, kinds, lengths, rarity)
    totals = write_shards(
        folder,
        _repeated(split, decided.repeats),
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
    )
    before, after = token_counts(split), token_counts(split, decided.repeats)
    return totals, {
        "by": config.by,
        "kinds": decided.kinds,
        "rare": rarity_table(before, after, tokenizer),
    }


def _repeated(split: TokenSplit, repeats: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Gives documents as often as they come, the copies of one far from each other."""
    sizes = split.document_bytes
    for turn in range(int(repeats.max(initial=0))):
        for number in np.flatnonzero(repeats > turn).tolist():
            yield split.document(number), int(sizes[number])


def _evenly(path: Path, max_bytes: int) -> Iterator[str]:
    """Gives texts spread evenly over a table, about `max_bytes` of them."""
    share = min(1.0, max_bytes / max(text_bytes(path), 1))
    credit = 0.0
    for text in read_texts(path):
        credit += share
        if credit >= 1.0 - 1e-9:
            credit -= 1.0
            yield text
