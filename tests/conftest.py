"""What tests share: tiny text, tiny networks, one tiny finished run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TIANTI_LANG", "en")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import numpy as np
import pytest
import torch

from tianti.model.config import TransformerConfig
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.tokens.tokenizer import Tokenizer

torch.set_num_threads(1)
# Kernels are compiled when they are first called; no test is about time.
hypothesis.settings.register_profile("tianti", deadline=None)
hypothesis.settings.load_profile("tianti")

CHINESE = [
    f"第{n}章。春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少？今天是第{n * 7}天，天气很好。"
    for n in range(60)
]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIANTI_LANG", "en")


@pytest.fixture(scope="session")
def english_texts() -> list[str]:
    """Real English: the topics of Python's own documentation."""
    from pydoc_data.topics import topics

    return [topics[name].strip() for name in sorted(topics)]


@pytest.fixture(scope="session")
def texts(english_texts: list[str]) -> list[str]:
    """English and Chinese."""
    return english_texts[:40] + CHINESE


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return Tokenizer.train(texts, 500)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A folder of text files, English and Chinese."""
    folder = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text, "utf-8")
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command in this process; gives exit code, standard output and standard error."""
    from tianti import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tianti", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def tiny_config(**changes: object) -> TransformerConfig:
    """A network of a few thousand weights."""
    values: dict = {
        "vocab_size": 97,
        "width": 32,
        "depth": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "mlp_width": 48,
        "context": 64,
    }
    return TransformerConfig(**(values | changes))


def random_model(seed: int = 0, **changes: object) -> Transformer:
    """A tiny network in which every weight, those that start at zero too, is random."""
    model = Transformer(tiny_config(**changes))
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def tiny_recipe(text_folder: Path, **overrides: object) -> str:
    """A recipe of some seconds."""
    return f"""
name: tiny
corpus:
  sources:
    - path: {text_folder}
tokenizer:
  vocab_size: 400
model:
  depth: 1
  width: 32
  head_dim: 16
  context: 64
train:
  budget: 24 steps
  batch_tokens: 512
  validation_tokens: 1024
  validate_every: 8
  warmup_steps: 4
generate:
  samples: 2
  sampling: {{max_tokens: 12}}
"""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """One finished tiny run, to be read, never written."""
    from tianti.recipe import Recipe
    from tianti.runs.runner import carry_out

    folder = tmp_path_factory.mktemp("finished") / "run"
    carry_out(Recipe.parse(tiny_recipe(text_folder)), folder)
    return folder
