"""Instruction tuning with adapters beside TRL and PEFT: `python benchmarks/tune_peers.py`.

The same random Qwen3, the same conversations, the same LoRA on all products of the layers, packed
rows; tokens that are not padding in a second, medians of steps, A B A B. Needs TRL
(`pip install trl datasets`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROWS, CONTEXT, RANK, STEPS = 4, 512, 16, 12


def conversations(data: Path, count: int) -> list[list[dict[str, str]]]:
    """Gives English and Chinese instructions with their answers."""
    from tianti.evaluate.tasks.rows import read_rows

    rows = read_rows(str(data / "alpaca_en_zh" / "train.jsonl.zst"))[:count]
    return [
        [
            {"role": "user", "content": f"{row[f'{lang}_instruction']}\n{row[f'{lang}_input']}"},
            {"role": "assistant", "content": row[f"{lang}_output"]},
        ]
        for number, row in enumerate(rows)
        for lang in (("en", "zh")[number % 2],)
        if row[f"{lang}_output"]
    ]


def write_base(folder: Path, chats: list[list[dict[str, str]]]) -> None:
    """Writes a random network with a tokenizer that learnt from the conversations."""
    from tianti.exchange.huggingface import save_transformer
    from tianti.model.initialization import initialize
    from tianti.model.size import shape_of
    from tianti.model.transformer import Transformer
    from tianti.tokens.tokenizer import Tokenizer

    texts = [message["content"] for chat in chats for message in chat]
    tokenizer = Tokenizer.train(texts, 8192)
    shape = shape_of(384, 6, vocab_size=tokenizer.vocab_size, context=CONTEXT, tied=True)
    model = Transformer(shape)
    initialize(model, 0)
    end = tokenizer.end_of_text
    save_transformer(model, folder, eos_token_id=end, pad_token_id=end)
    tokenizer.save(folder, context=CONTEXT)


def ours(base: Path, chats: list[list[dict[str, str]]], folder: Path, full: bool) -> float:
    """Gives tokens a second of a tuning by its recipe."""
    from tianti.progress import SILENT
    from tianti.recipe import Recipe
    from tianti.runs.runner import carry_out
    from tianti.train.trainer import Trainer

    file = folder / "chats.jsonl"
    lines = (json.dumps({"messages": chat}, ensure_ascii=False) for chat in chats)
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    recipe = Recipe.model_validate(
        {
            "name": "speed",
            "base": str(base),
            "tune": {
                "task": "instruct",
                "train": str(file),
                "validation": 0.02,
                "context": CONTEXT,
                "method": "full" if full else "lora",
                "lora": {"rank": RANK, "alpha": 2 * RANK},
            },
            "train": {
                "budget": f"{STEPS} steps",
                "batch_tokens": ROWS * CONTEXT,
                "validate_every": STEPS,
                "dropout": 0,
            },
        }
    )
    rates: list[float] = []
    inner = Trainer.one_step

    def timed(self: Trainer, *arguments: Any) -> None:
        batch = self._batch(self.state.step)
        began = time.perf_counter()
        inner(self, *arguments)
        pad = batch.segments == batch.segments.max(axis=1, keepdims=True)
        rates.append((~pad).sum() / (time.perf_counter() - began))

    Trainer.one_step = timed  # type: ignore[method-assign]
    try:
        carry_out(recipe, folder / "run", until="train", display=SILENT)
    finally:
        Trainer.one_step = inner  # type: ignore[method-assign]
    return median(rates[2:])


def theirs(base: Path, chats: list[list[dict[str, str]]], folder: Path, full: bool) -> float:
    """Gives tokens a second of TRL's SFTTrainer."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rates: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            rates.append(self.tokens / (time.perf_counter() - self.began))

    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(base)
    # Its own template has no marks of what an assistant says.
    from tianti.tokens.chat import BUILT_IN

    tokenizer.chat_template = (BUILT_IN / "chatml.jinja").read_text("utf-8")
    settings = SFTConfig(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=1,
        max_length=CONTEXT,
        packing=True,
        assistant_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list([{"messages": chat} for chat in chats]),
        processing_class=tokenizer,
        peft_config=None if full else adapter,
        callbacks=[clock],
    )
    collate = trainer.data_collator

    def counted(rows: Any) -> Any:
        batch = collate(rows)
        mask = batch.get("attention_mask")
        clock.tokens = int(mask.sum()) if mask is not None else batch["input_ids"].numel()
        return batch

    trainer.data_collator = counted
    trainer.train()
    return median(rates[2:])


def main() -> None:
    """Measures both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    chats = conversations(options.data, 500)
    print("| what is learnt | tianti, tokens/s | TRL with PEFT, tokens/s | ratio |")
    print("|---|---|---|---|")
    for full in (False, True):
        found: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(options.rounds):
            for name, measure in (("ours", ours), ("theirs", theirs)):
                with tempfile.TemporaryDirectory() as folder:
                    base = Path(folder) / "base"
                    base.mkdir()
                    write_base(base, chats)
                    found[name].append(measure(base, chats, Path(folder), full))
        a, b = (median(found[name]) for name in ("ours", "theirs"))
        kind = "all weights" if full else f"LoRA of rank {RANK}"
        spread = " ".join(f"{x:,.0f}/{y:,.0f}" for x, y in zip(*found.values(), strict=True))
        print(f"| {kind} | {a:,.0f} | {b:,.0f} | {a / b:.2f} ({spread}) |", flush=True)


if __name__ == "__main__":
    main()
