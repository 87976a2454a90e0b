"""The tokenizer stage (training text → tokenizer) and the tokens stage (documents → shards)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tianti.corpus.table import count_documents, read_texts, text_bytes
from tianti.progress import SILENT, Display, Task
from tianti.tokens.config import TokenizerStageConfig
from tianti.tokens.shards import write_shards
from tianti.tokens.tokenizer import Tokenizer

_ENCODE_AT_ONCE = 256


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
    config: None, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes every split of the corpus as token shards.

    Args:
        config: nothing to choose.
        inputs: folders of `corpus` and `tokenizer`.
        out: where to; one folder a split.
        display: shows progress.

    Returns:
        For each split `documents`, `tokens` and `bytes`.
    """
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    totals = {}
    for split in ("train", "validation", "test"):
        path = inputs["corpus"] / split
        with display.task(f"tokens {split}", count_documents(path), "docs") as task:
            totals[split] = write_shards(
                out / split,
                _encoded(tokenizer, read_texts(path), task),
                vocab_size=tokenizer.vocab_size,
                end_of_text=tokenizer.end_of_text,
            )
    return totals


def _encoded(
    tokenizer: Tokenizer, texts: Iterable[str], task: Task
) -> Iterator[tuple[list[int], int]]:
    texts = iter(texts)
    while group := list(islice(texts, _ENCODE_AT_ONCE)):
        encoded = tokenizer.encode_batch(group)
        for ids, text in zip(encoded, group, strict=True):
            yield ids, len(text.encode("utf-8"))
        task.advance(len(group))


def _evenly(path: Path, max_bytes: int) -> Iterator[str]:
    """Gives texts spread evenly over a table, about `max_bytes` of them."""
    share = min(1.0, max_bytes / max(text_bytes(path), 1))
    credit = 0.0
    for text in read_texts(path):
        credit += share
        if credit >= 1.0 - 1e-9:
            credit -= 1.0
            yield text
