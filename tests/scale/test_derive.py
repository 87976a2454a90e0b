from __future__ import annotations

import pytest
import torch

from tests.conftest import tiny_config
from tests.train.test_optimizers import settings
from tianti.recipe import Recipe
from tianti.scale.cost import training_cost
from tianti.scale.derive import Facts, derive, facts_of, throughput, tokens_per_weight
from tianti.scale.machine import matmul_flops

FACTS = Facts(train_bytes=3e7, matmul_flops=2e11)


def derived(facts=FACTS, *overrides, vocab_size=None):
    text = "name: a\ncorpus: {sources: [{path: x}]}"
    return derive(Recipe.parse(text, overrides), facts, vocab_size)


def test_every_setting_has_a_reason():
    made = derived()
    assert {setting for setting, _, _ in made.reasons} >= {
        "model.size",
        "tokenizer.vocab_size",
        "model.context",
        "model",
        "train.batch_tokens",
        "train.learning_rate",
        "train.warmup_steps",
        "train.compile",
    }
    assert all(reason for _, _, reason in made.reasons)


@pytest.mark.parametrize(
    ("device", "gain", "precision"),
    [
        ("cpu", None, "float32"),
        ("cpu", 2.0, "float32"),
        ("cuda", 1.0, "bfloat16"),
        ("cuda", None, "bfloat16"),
        # A card without instructions for it.
        ("cuda", 0.0, "float32"),
    ],
)
def test_products_are_in_bfloat16_on_a_gpu_that_has_it(device, gain, precision):
    facts = Facts(3e7, 2e11, device, bfloat16_gain=gain)
    assert derived(facts).train.precision == precision
    assert derived(facts, "train.precision=bfloat16").train.precision == "bfloat16"


def test_the_speed_is_that_of_the_precision_that_is_asked_for():
    machine = {"device": "cpu", "matmul_flops": 2e11, "bfloat16_flops": 4e11}
    text = "name: a\ncorpus: {sources: [{path: x}]}"
    for asked, speed in ((), 2e11), (("train.precision=bfloat16",), 4e11):
        found = facts_of(Recipe.parse(text, asked), 3e7, machine)
        assert (found.matmul_flops, found.bfloat16_gain) == (speed, 2.0)


def test_a_longer_time_makes_a_larger_model():
    sizes = [
        derived(FACTS, f"train.budget={budget}").model.num_parameters()
        for budget in ("1m", "10m", "2h", "1d", "30d")
    ]
    assert sizes == sorted(set(sizes))


def test_what_is_asked_for_stands_and_says_so():
    made = derived(FACTS, "train.learning_rate=0.5", "train.batch_tokens=1024", "model.context=128")
    assert made.train.learning_rate == 0.5
    assert made.train.batch_rows == 8
    assert made.model.context == 128
    assert ("train.learning_rate", "0.5", "set in the recipe") in made.reasons


def test_a_little_noise_in_the_speed_changes_no_size():
    one = derived(Facts(3e7, 2.000e11)).model
    assert derived(Facts(3e7, 2.004e11)).model == one


@pytest.mark.parametrize("budget", ["500M tokens", "20000 steps", "3 epochs", "1h"])
def test_tokens_and_time_follow_from_each_other(budget):
    made = derived(FACTS, f"train.budget={budget}")
    speed = throughput(FACTS, made.model)
    assert made.tokens == pytest.approx(made.train_seconds * speed)


def test_tokens_for_each_weight_follow_published_and_measured_points():
    assert tokens_per_weight(1e19) == pytest.approx(20)
    assert tokens_per_weight(1e24) == 20
    assert 0.3 < tokens_per_weight(1e13) < 0.5


def test_depth_alone_is_a_dial():
    made = derived(FACTS, "model.depth=4")
    assert (made.model.depth, made.model.width) == (4, 256)


def test_the_finished_tokenizer_decides_the_vocabulary():
    assert derived(FACTS, vocab_size=777).model.vocab_size == 777


@pytest.mark.parametrize(("budget", "compiled"), [("2m", False), ("1h", True)])
def test_compiling_must_pay(budget, compiled):
    assert derived(FACTS, f"train.budget={budget}").train.compile is compiled
    assert derived(FACTS, f"train.budget={budget}", "train.compile=off").train.compile is False


def test_costs_count_what_there_is():
    shape = tiny_config(num_kv_heads=4)
    cost = training_cost(shape, settings(optimizer="adamw"), tokens=1000, corpus_tokens=50)
    weights = 4 * shape.num_parameters()
    memory = cost.memory
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, weights, 2 * weights)
    assert cost.checkpoint_disk == 3 * 3 * weights + weights
    assert cost.flops == 1000 * shape.flops_per_token()
    assert cost.tokens_disk == 100
    muon = training_cost(shape, settings(), tokens=1000, corpus_tokens=50)
    hidden = 4 * shape.matrix_parameters()
    assert muon.memory.optimizer == 2 * weights - hidden
    assert muon.memory.total < memory.total


def test_the_loss_is_not_what_limits():
    small, large = (
        training_cost(tiny_config(vocab_size=size, context=4096), settings(), 0, 0).memory
        for size in (4096, 262_144)
    )
    rows = settings().micro_batch_rows * 4096
    assert large.logits - small.logits < 4 * rows * 262_144 / 10
    assert small.activations == large.activations


def test_checkpointing_keeps_less():
    shape = tiny_config(depth=12)
    off, selective, full = (
        training_cost(shape, settings(activation_checkpointing=mode), 0, 0).memory.activations
        for mode in ("off", "selective", "full")
    )
    assert full < selective < off
    assert full < off / 5


def test_the_machine_is_measured():
    assert 1e8 < matmul_flops("cpu", torch.float32) < 1e15
