"""Preferences, single answers that are good or bad, and rewards."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.tune.conftest import carried_out, config_of, preferred, recipe, write
from tests.tune.test_bad_input import refused
from tianti.api import predict
from tianti.files import read_json
from tianti.progress import SILENT
from tianti.runs.tuning import tuning_config
from tianti.tokens.chat import BUILT_IN
from tianti.tokens.examples import ExampleStream
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.rows import rows_of
from tianti.tune.encode import Encoder, _answer_to_another
from tianti.tune.examples import load_examples, read_examples
from tianti.tune.network import build_network
from tianti.tune.objectives import objective_of
from tianti.tune.stage import with_reference
from tianti.tune.tokenizing import template_for

transformers = pytest.importorskip("transformers")


def rated(count, seed=0):
    """Answers that stand alone, two good ones to a bad one."""
    return [
        {
            "prompt": row["prompt"],
            "completion": row["rejected" if number % 3 == 2 else "chosen"],
            "label": number % 3 != 2,
        }
        for number, row in enumerate(preferred(count, seed))
    ]


@pytest.mark.parametrize("rows", [preferred, rated], ids=["pairs", "single"])
def test_single_answers_are_learnt(translated, tmp_path, rows):
    found = carried_out(
        "prefer",
        tmp_path,
        rows,
        base=str(translated.path),
        preference="kto",
        context=32,
        template="plain",
        steps=16,
        train={"learning_rate": 0.0003},
    )
    examples = found.results["examples"]["train"]["examples"]
    assert examples == (180 if rows is preferred else 90)
    log = [json.loads(x) for x in (found.path / "train" / "log.jsonl").read_text().splitlines()]
    # Nothing has been learnt yet: each answer is as it was, and half of its worth is lost.
    assert next(row for row in log if "loss" in row)["loss"] == pytest.approx(0.5, abs=1e-4)
    checks = [row for row in log if "validation_margin" in row]
    assert checks[-1]["validation_margin"] > 0.05
    assert checks[-1]["validation_loss"] < 0.5
    good = 30 if rows is preferred else 20
    assert found.results["evaluate"]["figures"]["rouge1"]["n"] == good


@torch.no_grad()
def test_the_loss_of_single_answers_is_as_counted_by_hand(translated, tmp_path):
    made = recipe(
        *("prefer", tmp_path, rated),
        base=str(translated.path),
        preference="kto",
        context=32,
        template="plain",
    )
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    template = template_for("prefer", folders["tokenizer"], tokenizer)
    rows = load_examples(folders["examples"] / "train.jsonl")[:7]
    held = Encoder(call.form, tokenizer, template).examples(rows)
    model = build_network(call).model
    objective = objective_of(model, call.settings, call.tune, call.form, [])
    stream = ExampleStream(held, context=call.form.row, rows=1, seed=0, pad=tokenizer.padding)
    known = with_reference(objective, held, stream, SILENT)
    assert known.targets[:, 2].tolist() == [float(row["good"]) for row in rows]
    # Another reference than itself, so that there is something to count.
    draw = np.random.default_rng(0)
    known.targets[:, :2] += draw.normal(size=(7, 2)).astype(np.float32)
    before = held.__class__(**(held.__dict__ | {"targets": known.targets}))
    stream = ExampleStream(before, context=call.form.row, rows=8, seed=0, pad=tokenizer.padding)
    numbers = range(stream.rows_per_epoch)
    found = objective(rows_of(stream.rows_numbered(list(numbers)), model.device))
    now = with_reference(objective, held, stream, SILENT).targets
    ratio, apart = (now[:, :2] - known.targets[:, :2]).T
    away = max(apart.mean(), 0)
    side = np.where(known.targets[:, 2] > 0, 1, -1)
    wanted = (1 - 1 / (1 + np.exp(-0.1 * side * (ratio - away)))).sum()
    assert found.total.item() == pytest.approx(wanted, rel=1e-4)


def test_rewards_are_learnt_judged_and_as_transformers_has_them(translated, tmp_path):
    found = carried_out(
        "reward",
        tmp_path,
        preferred,
        base=str(translated.path),
        context=32,
        template="plain",
        steps=24,
        train={"learning_rate": 0.003},
    )
    assert found.results["train"]["validation_accuracy"] == 1.0
    assert found.results["evaluate"]["figures"]["accuracy"]["value"] == 1.0
    folder = found.path / "model"
    assert read_json(folder / "config.json")["architectures"] == ["Qwen3ForSequenceClassification"]
    rows = [
        {"prompt": "what is film?", "completion": "something nice"},
        {"prompt": "what is film?", "completion": "no idea"},
    ]
    told = [row["value"] for row in predict(found.path, write(tmp_path / "more.jsonl", rows))]
    assert told[0] > told[1]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (folder / "chat_template.jinja").read_text() == (BUILT_IN / "plain.jinja").read_text()
    for row, value in zip(rows, told, strict=True):
        messages = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            theirs = model(input_ids=ids["input_ids"]).logits[0, 0].item()
        said = read_json(folder / "tokenizer_config.json")["chat_template"]
        assert said == tokenizer.chat_template
        assert theirs == pytest.approx(value, abs=1e-4)


def test_answers_that_are_neither_good_nor_bad_are_named(tmp_path):
    bad = {"prompt": "x", "completion": "y", "label": "maybe"}
    refused("prefer", tmp_path, [*rated(2), bad], 3, "good \\(true\\)", preference="kto")


def test_single_answers_are_no_pairs(tmp_path):
    refused("prefer", tmp_path, rated(2), 1, "a pair is wanted")


def test_tables_say_whether_an_answer_is_good(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion,label,system\nx,y,True,Be kind.\nx,z,0,Be kind.\n")
    made = recipe("prefer", tmp_path, preferred, preference="kto")
    found = read_examples(str(path), made.tune)
    assert [row["good"] for row in found] == [True, False]
    assert [message["role"] for message in found[0]["prompt"]] == ["system", "user"]


def test_the_divergence_is_of_answers_to_other_prompts():
    asked = [[{"role": "user", "content": text}] for text in "aabb"]
    rows = [{"prompt": p, "completion": str(n)} for n, p in enumerate(asked)]
    assert [_answer_to_another(rows, n) for n in range(4)] == ["2", "2", "0", "0"]
    assert _answer_to_another(rows[:2], 0) == "1"


def test_other_objectives_make_other_examples(tmp_path):
    found = []
    for preference in ("dpo", "ipo", "kto"):
        made = recipe("prefer", tmp_path, preferred, preference=preference)
        found.append([tuning_config(n, made, tmp_path, {})[1] for n in ("examples", "test")])
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


def test_of_pairs_both_answers_are_learnt_from(tmp_path):
    made = recipe("prefer", tmp_path, preferred, preference="kto")
    found = read_examples(made.tune.train, made.tune)
    assert [row["good"] for row in found[:4]] == [True, False, True, False]
    assert "chosen" not in found[0]
    assert found[0]["place"] == found[1]["place"]
