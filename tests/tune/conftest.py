"""Tiny tasks, English and Chinese, that a tiny network learns in seconds."""

from __future__ import annotations

import json
import random

import pytest

from tianti.api import run
from tianti.progress import SILENT
from tianti.recipe import Recipe
from tianti.runs.tuning import tuning_config

GOOD, BAD = ["good", "great", "很好", "精彩"], ["bad", "awful", "很差", "糟糕"]
NOUNS = ["film", "book", "meal", "电影", "书", "饭菜"]
TINY = {"width": 32, "depth": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}


def reviews(count, seed=0):
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        good = number % 3 != 0
        words = [draw.choice(NOUNS), draw.choice(GOOD if good else BAD), draw.choice(NOUNS)]
        rows.append({"text": " ".join(words), "label": "pos" if good else "neg"})
    return rows


def entities(count, seed=0):
    draw = random.Random(seed)
    people = ["Anna", "Bo Li", "王小明", "李雷"]
    places = ["Paris", "北京", "上海"]
    rows = []
    for _ in range(count):
        name, place = draw.choice(people), draw.choice(places)
        text = f"{name} lives in {place} 。"
        at = text.index(place, len(name))
        rows.append(
            {
                "text": text,
                "entities": [
                    {"start": 0, "end": len(name), "type": "person"},
                    {"start": at, "end": at + len(place), "type": "place"},
                ],
            }
        )
    return rows


def numbers(count, seed=0):
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        times = draw.randint(0, 3)
        rows.append({"text": "plain " + "very " * times + "word", "label": 1000.0 + 100 * times})
    return rows


def several(count, seed=0):
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        labels = [label for label in ("red", "blue", "绿") if draw.random() < 0.5]
        rows.append({"text": "colours: " + " ".join(labels), "label": labels})
    return rows


def pairs(count, seed=0):
    draw = random.Random(seed)
    words = {"one": "eins", "two": "zwei", "three": "drei", "红": "rot"}
    rows = []
    for _ in range(count):
        chosen = [draw.choice(list(words)) for _ in range(draw.randint(1, 3))]
        rows.append({"source": " ".join(chosen), "target": " ".join(words[w] for w in chosen)})
    return rows


def preferred(count, seed=0):
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        question = f"what is {draw.choice(NOUNS)}?"
        rows.append({"prompt": question, "chosen": "something nice", "rejected": "no idea"})
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def recipe(task, folder, rows, *, steps=80, base=None, train=None, model=None, **tune):
    """A recipe of a task, whose three files are written into a folder."""
    files = {
        name: write(folder / f"{name}.jsonl", rows(count, seed))
        for name, count, seed in (("train", 90, 0), ("validation", 30, 1), ("test", 30, 2))
    }
    return Recipe.model_validate(
        {
            "name": task,
            "base": base,
            "device": "cpu",
            "tokenizer": {"vocab_size": 400},
            "model": model or TINY,
            "train": {
                "budget": f"{steps} steps",
                "validate_every": max(1, steps // 4),
                "dropout": 0,
            }
            | {"batch_tokens": 256}
            | (train or {}),
            "tune": {"task": task, **files, "context": 64} | tune,
        }
    )


def carried_out(task, folder, rows, **changes):
    return run(recipe(task, folder, rows, **changes), folder / "run", display=SILENT)


def config_of(made, folder, until="tokenizer"):
    """Gives what the train stage is called with, after the stages before it."""
    done = run(made, folder / "run", display=SILENT, until=until)
    metrics = {name: done.results[name] for name in ("examples", "tokenizer")}
    call, _ = tuning_config("train", made, folder / "run", metrics)
    return call, {name: folder / "run" / name for name in ("examples", "tokenizer")}


@pytest.fixture(scope="session")
def classified(tmp_path_factory):
    """A finished run that tells good from bad."""
    folder = tmp_path_factory.mktemp("classified")
    return run(recipe("classify", folder, reviews), folder / "run", display=SILENT)


@pytest.fixture(scope="session")
def translated(tmp_path_factory):
    """A finished run that translates words."""
    folder = tmp_path_factory.mktemp("translated")
    made = recipe("translate", folder, pairs, steps=240, train={"learning_rate": 0.02})
    return run(made, folder / "run", display=SILENT)
