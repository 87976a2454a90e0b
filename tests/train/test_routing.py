"""Training a mixture of experts: balanced, exact over micro-batches, and impossible to lose."""

from __future__ import annotations

import pytest
import torch

from tests.model.test_experts import BOTH, SIGMOID, SOFTMAX
from tests.train.test_trainer import break_off, same, trainer
from tests.train.training_data import write_splits
from tianti.train.checkpoint import load_last_good
from tianti.train.log import read_log
from tianti.train.stage import network_of
from tianti.train.trainer import CHECKPOINTS, LOG


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("tokens"))


def moved(made):
    """Weights, and what routing is balanced by."""
    return {name: tensor.detach().clone() for name, tensor in made.parameters.items()}


@BOTH
@pytest.mark.parametrize("rows", [1, 3])
def test_micro_batches_give_the_same_gradient(splits, tmp_path, changes, rows):
    def gradient(micro_rows):
        made = trainer(
            splits,
            tmp_path / str(micro_rows),
            shape=changes,
            batch_rows=16,
            micro_batch_rows=micro_rows,
            balance_loss=1.0,
        )
        # Experts that are not equally busy, so that the balance loss has something to pull at.
        for experts in made.model.mixtures().values():
            experts.load.copy_(torch.linspace(0, 1 / 3, 6))
        made.routing.before_step(made.tokens_per_step)
        made._gradients(made.data.train.batch(0))
        counts = [experts.counts.tolist() for experts in made.model.mixtures().values()]
        return torch.cat([p.grad.flatten() for p in made.model.parameters()]), counts

    (whole, all_counts), (parts, counts) = gradient(16), gradient(rows)
    assert (parts - whole).norm() / whole.norm() < 1e-6
    assert counts == all_counts


@BOTH
def test_a_training_that_was_cut_off_goes_on_bitwise(splits, tmp_path, changes):
    straight = trainer(splits, tmp_path / "straight", shape=changes)
    straight.fit()
    break_off(trainer(splits, tmp_path / "cut", shape=changes, save_every=1e-9), 11)
    again = trainer(splits, tmp_path / "cut", seed=9, shape=changes)
    again.fit()
    assert same(moved(straight), moved(again))
    assert read_log(tmp_path / "straight" / LOG)[-3:] == read_log(tmp_path / "cut" / LOG)[-3:]
    checkpoint = load_last_good(tmp_path / "cut" / CHECKPOINTS, pytest.fail)
    kept = network_of(checkpoint, again.model.config).routing_state()
    assert same(kept, again.model.routing_state())


@BOTH
def test_layers_that_are_computed_again_train_alike(splits, tmp_path, changes):
    plain = trainer(splits, tmp_path / "plain", shape=changes, budget="4 steps")
    full = trainer(
        splits,
        tmp_path / "full",
        shape=changes,
        budget="4 steps",
        activation_checkpointing="full",
    )
    for made in (plain, full):
        made.fit()
    for name, tensor in moved(plain).items():
        torch.testing.assert_close(moved(full)[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "balanced", "unbalanced"),
    [
        (SOFTMAX, {"balance_loss": 0.1}, {"balance_loss": 0.0}),
        (SIGMOID, {"balance_rate": 0.02, "balance_loss": 0.0}, {"balance_rate": 0.0}),
    ],
    ids=["loss", "bias"],
)
def test_balancing_keeps_experts_busy(splits, tmp_path, changes, balanced, unbalanced):
    busiest = []
    for name, balance in (("with", balanced), ("without", unbalanced | {"balance_loss": 0.0})):
        made = trainer(splits, tmp_path / name, shape=changes, budget="60 steps", **balance)
        made.fit()
        rows = [row for row in read_log(tmp_path / name / LOG) if "busiest_expert" in row]
        assert len(rows) == 60
        busiest.append(sum(row["busiest_expert"] for row in rows[-10:]) / 10)
        assert [sum(layer) for layer in made.routing.loads()] == pytest.approx(
            [1.0] * len(made.model.mixtures()), abs=1e-3
        )
    assert busiest[0] < busiest[1]


def test_a_skipped_step_moves_no_bias(splits, tmp_path):
    made = trainer(splits, tmp_path, shape=SIGMOID)
    before = moved(made)
    for experts in made.model.mixtures().values():
        experts.counts.copy_(torch.arange(6))
    made.routing.after_step(kept=False)
    assert same(before, moved(made))
    assert not any(experts.counts.any() for experts in made.model.mixtures().values())
