"""The generate stage: the samples that a run ends with."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from tianti.corpus.table import read_texts
from tianti.device import choose_device
from tianti.exchange.huggingface import load_transformer
from tianti.files import atomic_open
from tianti.generate.config import GenerateStageConfig
from tianti.generate.engine import generate_text
from tianti.progress import SILENT, Display
from tianti.tokens.tokenizer import Tokenizer

PROMPT_CHARS = 60


def generate_samples(
    config: GenerateStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes `samples.jsonl`: prompt, text and why it ended.

    Args:
        config: prompts and how to draw.
        inputs: folders of `corpus` and `model`.
        out: where to.
        display: shows progress.

    Returns:
        `samples`: how many.
    """
    settings = config.settings
    model = load_transformer(inputs["model"], choose_device(config.device))
    tokenizer = Tokenizer.load(inputs["model"])
    prompts = settings.prompts
    if prompts is None:
        heads = default_prompts(inputs["corpus"] / "validation", settings.samples)
        most = model.config.context // 2
        # A character that the cut goes through is left out.
        prompts = [
            tokenizer.decode_bytes(tokenizer.encode(head)[:most]).decode("utf-8", "ignore")
            for head in heads
        ]
    with (
        display.task("generate", len(prompts), "samples") as task,
        atomic_open(out / "samples.jsonl", "w") as file,
    ):
        for number, prompt in enumerate(prompts):
            sampling = settings.sampling.model_copy(
                update={"seed": settings.sampling.seed + number}
            )
            made = generate_text(model, tokenizer, prompt, sampling)
            record = {"prompt": prompt, "text": made.text, "reason": made.reason}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            task.advance()
    return {"samples": len(prompts)}


def default_prompts(documents: Path, count: int) -> list[str]:
    """Gives the beginnings of the first documents of a table, cut at a word."""
    prompts = []
    for text in islice(read_texts(documents), count):
        head = text[:PROMPT_CHARS]
        cut = max(head.rfind(" "), head.rfind("\n"))
        prompts.append(head[:cut] if cut > PROMPT_CHARS // 2 else head)
    return prompts
