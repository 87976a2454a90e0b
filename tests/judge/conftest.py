"""A tiny model directory with a tokenizer, and a small task of each kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import CHINESE, random_model
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.network import Network
from tianti.exchange.huggingface import load_transformer, save_transformer
from tianti.tokens.tokenizer import Tokenizer

# Some with a context, some without, one twice, one too long; English and Chinese.
REQUESTS = [
    Request("The statement", " is executed"),
    Request("The statement is ", "executed"),
    Request("", "春眠不觉晓，处处闻啼鸟。"),
    Request("夜来风雨声，", "花落知多少？"),
    Request("", "a"),
    Request("The statement", " is executed"),
    Request("word " * 200, "and the end"),
]


def save_model(
    folder: Path, tokenizer: Tokenizer, seed: int, context: int = 128, **changes: object
) -> Path:
    """Writes a random network with a tokenizer as a model directory."""
    model = random_model(seed, vocab_size=tokenizer.vocab_size, context=context, **changes)
    end = tokenizer.end_of_text
    save_transformer(model, folder, eos_token_id=end, pad_token_id=end)
    tokenizer.save(folder, context=context)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tokenizer) -> Path:
    return save_model(tmp_path_factory.mktemp("judged") / "one" / "model", tokenizer, 0)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory, tokenizer) -> Path:
    return save_model(
        tmp_path_factory.mktemp("judged") / "two" / "model", tokenizer, 5, tied_embeddings=False
    )


@pytest.fixture(scope="session")
def network(model_folder) -> Network:
    return network_of(model_folder)


def network_of(folder: Path, **settings: bool) -> Network:
    return Network(folder, load_transformer(folder).eval(), Tokenizer.load(folder), **settings)


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


@pytest.fixture
def tasks(tmp_path, english_texts) -> Path:
    """A folder with a task of each kind, English and Chinese."""
    words = [text.split() for text in english_texts]
    sentences = [" ".join(w[5:17]) for w in words if len(w) > 40]
    rows = [
        {
            "text": sentence,
            "good": sentence,
            "bad": " ".join(reversed(sentence.split())),
            "choices": [sentence.split()[-1], "banana", "天气"],
            "answer": n % 3,
            "label": ["a", "b"][n % 2],
            "group": f"g{n % 3}",
            "zh": CHINESE[n % len(CHINESE)],
        }
        for n, sentence in enumerate(sentences[:24])
    ]
    write_rows(tmp_path / "test.jsonl", rows)
    shots = [row | {"text": row["zh"] + row["text"], "label": "a"} for row in rows]
    write_rows(tmp_path / "train.jsonl", shots)
    common = "language: en\ndata: test.jsonl\n"
    files = {
        "pairs": "kind: minimal_pair\ngroup: group\n",
        "choice": 'kind: choice\ncontext: "{{ text }}"\nfew_shot: {k: 0, data: train.jsonl}\n',
        "classes": 'kind: classify\ncontext: "{{ zh }}"\nlabels: {a: 好, b: bad}\n',
        "cloze": "kind: cloze\ncontext: \"{{ text.rsplit(' ', 1)[0] }}\"\n"
        "target: \" {{ text.rsplit(' ', 1)[1] }}\"\n",
        "texts": 'kind: perplexity\ntext: "{{ zh }}"\n',
        "free": 'kind: generate\nprompt: "{{ text }}"\nreferences: ["{{ zh }}"]\nmax_tokens: 5\n'
        "limit: 6\nmetrics: [rouge, bleu, chrf, exact_match, f1, distinct, repetition,"
        " compression_ratio]\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n{common}{text}", "utf-8")
    return tmp_path
