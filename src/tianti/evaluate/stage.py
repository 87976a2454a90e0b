"""The evaluate stage: the model on train, validation and test, and the baselines on the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tianti.corpus.table import document_bytes, read_texts
from tianti.device import choose_device
from tianti.evaluate.baselines import ByteTrigrams, xz_bits_per_byte
from tianti.evaluate.bits_per_byte import (
    DocumentScore,
    bits_per_byte,
    perplexity_per_token,
    score_documents,
)
from tianti.evaluate.config import EvaluateStageConfig
from tianti.evaluate.excerpt import excerpt, excerpt_bytes
from tianti.exchange.huggingface import load_transformer
from tianti.files import atomic_open
from tianti.progress import SILENT, Display
from tianti.tokens.tokenizer import Tokenizer


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
        For each split `bits_per_byte` and `perplexity`; for the test also `xz_bits_per_byte` and
        `byte_trigram_bits_per_byte`; each `{"value", "low", "high", "n"}`.
    """
    settings = config.settings
    model = load_transformer(inputs["model"], choose_device(config.device))
    tokenizer = Tokenizer.load(inputs["model"])
    results: dict[str, Any] = {}
    for name, limit in (
        ("train", settings.train_bytes),
        ("validation", settings.validation_bytes),
        ("test", settings.test_bytes),
    ):
        texts = _texts(inputs["corpus"] / name, limit)
        encoded = [tokenizer.encode_array(text) for text in texts.values()]
        with display.task(f"evaluate {name}", sum(map(len, encoded)), "tokens") as task:
            scores = score_documents(
                model,
                (
                    (np.array(ids, dtype=np.int64), len(text.encode("utf-8")))
                    for ids, text in zip(encoded, texts.values(), strict=True)
                ),
                begin=tokenizer.end_of_text,
                stride=settings.stride,
                on_progress=task.advance,
            )
        _write_items(out / f"{name}.jsonl", list(texts), scores)
        results[name] = {
            "bits_per_byte": bits_per_byte(scores).as_dict(),
            "perplexity": perplexity_per_token(scores).as_dict(),
        }
        if name == "test" and settings.baselines:
            results[name] |= _baselines(inputs["corpus"], list(texts.values()), display)
    return results


def _texts(path: Path, limit: int) -> dict[int, str]:
    """Gives what is measured of a split: text by number of document."""
    # Of the documents, not of the tokens: balanced, these hold some documents twice.
    wanted = excerpt_bytes(document_bytes(path), limit)
    return {
        number: excerpt(text, wanted[number])
        for number, text in enumerate(read_texts(path))
        if number in wanted
    }


def _baselines(corpus: Path, texts: list[str], display: Display) -> dict[str, Any]:
    """Gives the baselines on the same test text, the 3-grams learnt from all training text."""
    trigrams = ByteTrigrams()
    with display.task("baselines", unit="docs") as task:
        for text in read_texts(corpus / "train"):
            trigrams.learn(text)
            task.advance()
        return {
            "xz_bits_per_byte": xz_bits_per_byte(texts).as_dict(),
            "byte_trigram_bits_per_byte": trigrams.bits_per_byte(texts).as_dict(),
        }


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
