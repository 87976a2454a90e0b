"""What is derived of a tuning is what is said, and what is trained with."""

from __future__ import annotations

import json

import pytest

from tests.tune.conftest import recipe, reviews
from tianti.errors import UserError
from tianti.model.settings import ModelConfig
from tianti.runs.device_plan import plan_for_devices
from tianti.runs.plan import plan
from tianti.runs.terminal import say_plan
from tianti.train.config import TrainConfig
from tianti.tune.config import TuneConfig
from tianti.tune.derive import derive_tuning

EXAMPLES = {
    "labels": ["a", "b"],
    "train": {"bytes": 40_000, "examples": 400},
    "validation": {"bytes": 4_000, "examples": 40},
}
TOKENIZER = {"vocab_size": 300, "tokens": 12_000, "longest": 70}


def derived(train=None, base=None, **tune):
    return derive_tuning(
        TuneConfig(**({"task": "classify", "train": "x"} | tune)),
        base,
        ModelConfig(size=300_000),
        TrainConfig(**(train or {})),
        5,
        EXAMPLES,
        TOKENIZER,
    )


def test_what_is_said_is_what_is_trained_with(classified):
    for tune in ({}, {"method": "lora"}, {"method": "lora", "r_drop": 1.0}, {"method": "head"}):
        found = derived(base=classified.path / "model", context=64, **tune)
        said = {setting: value for setting, value, _ in found.reasons}
        assert float(said["train.dropout"]) == found.train.dropout
        assert float(said["train.learning_rate"]) == found.train.learning_rate
        assert said["train.optimizer"] == found.train.optimizer == "adamw"
        assert said["train.budget"] == str(found.train.budget)


def test_two_passes_differ_beside_adapters_too(classified):
    base = classified.path / "model"
    assert derived(base=base, context=64, method="lora").train.dropout == 0
    assert derived(base=base, context=64, method="lora", r_drop=1.0).train.dropout > 0


def test_what_is_asked_for_is_taken():
    asked = {
        "optimizer": "adamw",
        "learning_rate": 0.123,
        "dropout": 0.4,
        "batch_tokens": 512,
        "budget": "7 steps",
        "warmup_steps": 3,
        "decay_share": 0.25,
        "early_stopping": 2,
        "validate_every": 4,
        "validation_tokens": 999,
        "micro_batch_rows": 2,
        "output_learning_rate": 0.5,
        "label_smoothing": 0.05,
        "average": 0.9,
        "weight_decay": 0.02,
        "compile": "on",
        "precision": "float32",
    }
    settings = derived(asked).train
    for name, value in asked.items():
        if name not in ("batch_tokens", "budget", "compile"):
            assert getattr(settings, name) == value, name
    assert str(settings.budget) == "7 steps"
    assert (settings.batch_rows, settings.compile, settings.seed) == (4, True, 5)


def test_nothing_asked_for_gives_the_rules_of_the_docs():
    found = derived()
    settings = found.train
    assert (found.form.context, settings.batch_rows) == (128, 6)
    assert (settings.optimizer, settings.early_stopping, settings.compile) == ("muon", 8, False)
    assert settings.decay_share == 0.9
    # 200 steps at least, some 20 validations.
    steps = settings.budget.amount * 12_000 / (settings.batch_rows * 128)
    assert 200 <= steps < 220
    assert steps / settings.validate_every == pytest.approx(20, rel=0.2)


def test_a_plan_foretells_without_doing(tmp_path, capsys):
    made = recipe("classify", tmp_path, reviews, steps=40, examples_per_class=8)
    planned = plan(made, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert {status for _, status in planned.stages} == {"to do"}
    assert planned.estimated
    assert planned.tokens == 40 * 256
    assert planned.examples["train"] | {"bytes": 0, "longest_bytes": 0} == {
        "examples": 16,
        "bytes": 0,
        "longest_bytes": 0,
        "labels": {"neg": 8, "pos": 8},
    }
    values = json.loads(json.dumps(planned.as_dict()))
    assert values["model"]["parameters"] == planned.derivation.model.num_parameters()
    assert values["memory"]["total"] > 0
    say_plan(planned, tmp_path / "recipe.yaml")
    said = capsys.readouterr().out
    assert "training examples        16" in said
    assert "train.learning_rate" in said


def test_a_plan_knows_what_is_done_and_counted(classified):
    from tianti.recipe import Recipe

    made = Recipe.load(classified.path / "recipe.yaml")
    planned = plan(made, classified.path)
    assert {status for _, status in planned.stages} == {"up to date"}
    assert not planned.estimated
    shape = planned.derivation.model
    assert shape.num_parameters() == classified.results["train"]["parameters"]


def test_devices_elsewhere_are_not_planned_for(tmp_path):
    with pytest.raises(UserError, match="for this machine alone"):
        plan_for_devices(recipe("classify", tmp_path, reviews), "8xH100-80GB")
