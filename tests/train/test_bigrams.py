"""The start from bigrams, against plain counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tests.conftest import tiny_config
from tests.train.test_trainer import (  # noqa: F401 - a fixture
    break_off,
    same,
    splits,
    trainer,
    weights,
)
from tianti.errors import UserError
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.recipe import Recipe
from tianti.scale.derive import Facts, derive
from tianti.tokens.shards import TokenSplit
from tianti.train import bigrams
from tianti.train.bigrams import DISCOUNT, count_bigrams, factors, start_from_bigrams

VOCABULARY = 97


@pytest.fixture(scope="module")
def split(splits):  # noqa: F811
    return TokenSplit.open(splits / "train")


def plain_table(split):
    ids = split.read(0, split.num_tokens).tolist()
    counts = np.zeros((VOCABULARY, VOCABULARY))
    for before, after in itertools.pairwise(ids):
        counts[before, after] += 1
    unigrams = counts.sum(0) / counts.sum() + 1e-8
    table = np.zeros_like(counts)
    for token, row in enumerate(counts):
        if not row.sum():
            table[token] = unigrams
            continue
        left = DISCOUNT * (row > 0).sum() / row.sum()
        table[token] = np.maximum(row - DISCOUNT, 0) / row.sum() + left * unigrams
    return table, unigrams


def test_counts_are_those_of_a_plain_loop(split):
    table, unigrams = plain_table(split)
    found = count_bigrams(split, VOCABULARY)
    np.testing.assert_allclose(found.unigrams, unigrams, atol=1e-7)
    some = torch.tensor([5, 96, 0, 5])
    np.testing.assert_allclose(found.rows(some), table[some], atol=1e-6)
    np.testing.assert_allclose(found.rows(some).sum(1), 1, atol=1e-4)


def test_slices_of_a_long_split_are_counted(split, monkeypatch):
    monkeypatch.setattr(bigrams, "MOST_TOKENS", 2000)
    monkeypatch.setattr(bigrams, "SLICES", 4)
    few, all_of_it = count_bigrams(split, VOCABULARY), plain_table(split)[1]
    assert np.abs(few.unigrams.numpy() - all_of_it).max() < 0.02


@pytest.mark.parametrize("dense_up_to", [0, 8192])
def test_factors_of_full_rank_give_the_table_back(split, monkeypatch, dense_up_to):
    monkeypatch.setattr(bigrams, "DENSE_UP_TO", dense_up_to)
    table, unigrams = plain_table(split)
    before, after = factors(count_bigrams(split, VOCABULARY), 128, seed=0)
    assert before.shape == after.shape == (VOCABULARY, 128)
    wanted = np.log(table / unigrams)
    np.testing.assert_allclose((before @ after.T).numpy(), wanted, atol=2e-2)


def started(split, seed=0, **changes):
    model = Transformer(tiny_config(context=32, tied_embeddings=False, **changes))
    initialize(model, seed)
    start_from_bigrams(model, split, seed)
    return model


@torch.no_grad()
def nats(model, split):
    ids = torch.from_numpy(split.read(0, 320)).view(10, 32)
    logits = model.logits(model(ids))[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()


def test_the_network_knows_the_bigrams_before_its_first_step(split):
    table, _ = plain_table(split)
    ids = split.read(0, 320).reshape(10, 32)
    known = -np.log(table[ids[:, :-1], ids[:, 1:]]).mean()
    assert nats(started(split, width=64), split) < known + 0.35
    random = Transformer(tiny_config(context=32))
    initialize(random, 0)
    assert nats(random, split) == pytest.approx(math.log(VOCABULARY), abs=0.2)


def test_the_start_is_a_function_of_the_seed(split):
    assert torch.equal(started(split).head.weight, started(split).head.weight)
    assert not torch.equal(started(split).head.weight, started(split, 1).head.weight)


def test_a_training_begins_once_and_goes_on_from_its_checkpoint(splits, split, tmp_path):  # noqa: F811
    begun = []

    def made(out, seed=0, **changes):
        training = trainer(splits, out, seed=seed, start="bigrams", average=0.9, **changes)

        def begin():
            begun.append(out.name)
            with torch.no_grad():
                training.model.embedding.weight.mul_(3.0)

        training._begin = begin
        return training

    straight = made(tmp_path / "straight")
    straight.fit()
    break_off(made(tmp_path / "stopped"), 8)
    second = made(tmp_path / "stopped", seed=9)
    second.fit()
    assert begun == ["straight", "stopped"]
    assert same(weights(straight), weights(second))
    assert same(straight.average.tensors, second.average.tensors)


def derived(*changes, flops=1e11):
    recipe = Recipe.parse("name: a\ncorpus: {sources: [{path: x}]}\n", changes)
    return derive(recipe, Facts(1e8, flops))


def test_short_trainings_start_from_bigrams_with_an_output_layer_of_their_own():
    short = derived("train.budget=5m")
    assert short.train.start == "bigrams"
    assert not short.model.tied_embeddings
    assert short.train.output_learning_rate == 0.1
    known = derived("train.budget=5m", "train.output_learning_rate=0.5")
    assert known.train.output_learning_rate == 0.5
    sized = derived("train.budget=5m", "model.size=3M")
    assert sized.model.num_parameters() == pytest.approx(3e6, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "flops"),
    [
        (["train.budget=20 steps"], 1e11),
        (["train.budget=2d"], 1e14),
        (["train.budget=5m", "model.tied_embeddings=true"], 1e11),
        (["train.budget=5m", "train.start=random"], 1e11),
    ],
)
def test_others_start_at_random(changes, flops):
    found = derived(*changes, flops=flops)
    assert found.train.start == "random"
    assert found.model.tied_embeddings
    assert found.train.output_learning_rate == 1.0


def test_short_budgets_get_smaller_batches_but_steps_that_are_asked_for_do_not():
    large = derived("model.size=12M", "train.budget=2000 steps")
    few = derived("model.size=12M", "train.budget=20 steps")
    assert few.train.batch_rows == large.train.batch_rows
    assert few.tokens == 20 * few.train.batch_rows * few.model.context
    short = derived("model.size=12M", "train.budget=200k tokens")
    assert short.train.batch_rows < large.train.batch_rows
    assert short.tokens / (short.train.batch_rows * short.model.context) >= 64


def test_bigrams_and_one_matrix_for_both_ends_are_refused():
    with pytest.raises(UserError, match="cannot be the embedding"):
        derived("train.start=bigrams", "model.tied_embeddings=true")
