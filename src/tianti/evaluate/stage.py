"""The evaluate stage: the model on train, validation and test, and the baselines on the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tianti.corpus.table import read_texts
from tianti.device import choose_device
from tianti.evaluate.baselines import ByteTrigrams, xz_bits_per_byte
from tianti.evaluate.bits_per_byte import (
    DocumentScore,
    bits_per_byte,
    perplexity_per_token,
    score_documents,
)
from tianti.evaluate.config import EvaluateStageConfig
from tianti.exchange.huggingface import load_transformer
from tianti.files import atomic_open
from tianti.progress import SILENT, Display
from tianti.tokens.shards import TokenSplit


def evaluate_model(
    config: EvaluateStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Measures a model on the three splits of its run.

    The test split is opened here for the first time and once.

    Args:
        config: what to measure and where.
        inputs: folders of `corpus`, `tokens` and `model`.
        out: where `test.jsonl`, `validation.jsonl` and `train.jsonl` go, one line a document.
        display: shows progress.

    Returns:
        For each split `bits_per_byte` and `perplexity`; for the test also `xz` and
        `byte_trigrams`; each `{"value", "low", "high", "n"}`.
    """
    settings = config.settings
    model = load_transformer(inputs["model"], choose_device(config.device))
    results: dict[str, Any] = {}
    for name, limit in (
        ("train", settings.train_bytes),
        ("validation", settings.validation_bytes),
        ("test", settings.test_bytes),
    ):
        split = TokenSplit.open(inputs["tokens"] / name, verify=True)
        numbers = _within(split.document_bytes, limit)
        tokens = int(sum(split.document_lengths[n] - 1 for n in numbers))
        with display.task(f"evaluate {name}", tokens, "tokens") as task:
            scores = score_documents(
                model,
                ((split.document(n), int(split.document_bytes[n])) for n in numbers),
                begin=split.index["end_of_text"],
                stride=settings.stride,
                on_progress=task.advance,
            )
        _write_items(out / f"{name}.jsonl", numbers, scores)
        results[name] = {
            "bits_per_byte": bits_per_byte(scores).as_dict(),
            "perplexity": perplexity_per_token(scores).as_dict(),
        }
        if name == "test" and settings.baselines:
            results[name] |= _baselines(inputs["corpus"], numbers, display)
    return results


def _baselines(corpus: Path, numbers: list[int], display: Display) -> dict[str, Any]:
    """Gives the baselines on the same test documents, the 3-grams learnt from all training text."""
    chosen = set(numbers)
    texts = [t for n, t in enumerate(read_texts(corpus / "test.parquet")) if n in chosen]
    trigrams = ByteTrigrams()
    with display.task("baselines", unit="docs") as task:
        for text in read_texts(corpus / "train.parquet"):
            trigrams.learn(text)
            task.advance()
        return {
            "xz_bits_per_byte": xz_bits_per_byte(texts).as_dict(),
            "byte_trigram_bits_per_byte": trigrams.bits_per_byte(texts).as_dict(),
        }


def _within(sizes: np.ndarray, limit: int) -> list[int]:
    """Gives document numbers, spread evenly over a split, of about `limit` bytes in all."""
    total = int(sizes.sum())
    if total <= limit:
        return list(range(len(sizes)))
    count = max(1, int(len(sizes) * limit / total))
    return sorted({int(n) for n in np.linspace(0, len(sizes) - 1, count)})


def _write_items(path: Path, numbers: list[int], scores: list[DocumentScore]) -> None:
    def lines() -> Iterator[str]:
        for number, score in zip(numbers, scores, strict=True):
            yield (
                json.dumps(
                    {
                        "document": number,
                        "bits_per_byte": score.bits_per_byte,
                        "nats": score.nats,
                        "tokens": score.tokens,
                        "bytes": score.bytes,
                    }
                )
                + "\n"
            )

    with atomic_open(path, "w") as file:
        file.writelines(lines())
