"""Early stopping, the best weights, and averaged ones."""

from __future__ import annotations

import torch

from tests.train.test_trainer import (  # noqa: F401 - a fixture
    break_off,
    same,
    splits,
    trainer,
    weights,
)
from tianti.files import read_json
from tianti.train.average import WeightAverage
from tianti.train.checkpoint import TrainState, list_checkpoints, load_checkpoint
from tianti.train.stopping import note_validation
from tianti.train.trainer import BEST, CHECKPOINTS


def test_patience_counts_validations_since_the_best():
    state = TrainState(0, 100)
    for step, value in enumerate([3.0, 2.0, 2.0, 2.5, 1.9, 1.9, 1.95, 1.9], 1):
        state.step = step
        note_validation(state, value, patience=3)
    assert (state.best_step, state.best_validation, state.stopped) == (5, 1.9, True)


def test_a_tail_is_averaged_evenly_and_survives_a_stop(splits, tmp_path):  # noqa: F811
    changes = {"budget": "20 steps", "average_tail": 0.25, "validate_every": 4}
    seen = []
    straight = trainer(splits, tmp_path / "straight", **changes)
    inner = straight.one_step

    def noted(log, task):
        inner(log, task)
        seen.append(weights(straight))

    straight.one_step = noted
    straight.fit()
    for name, tensor in straight.average.tensors.items():
        mean = torch.stack([step[name] for step in seen[15:]]).mean(dim=0)
        torch.testing.assert_close(tensor, mean, rtol=1e-5, atol=1e-7)
    for stop in (8, 15, 16, 18):
        out = tmp_path / f"stopped-{stop}"
        break_off(trainer(splits, out, save_every=1e-9, **changes), stop)
        second = trainer(splits, out, seed=9, **changes)
        second.fit()
        assert same(second.average.tensors, straight.average.tensors)
        assert second.last_validation == straight.last_validation


def test_training_stops_and_keeps_the_checkpoint_of_the_best(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="100 steps", validate_every=5, early_stopping=4)
    values = iter([3.0, 2.9, 2.5, *[2.6] * 20])
    made.validation_figures = lambda: {"bits_per_byte": next(values)}
    state = made.fit()
    assert (state.step, state.best_step) == (35, 15)
    best = read_json(tmp_path / BEST)["checkpoint"]
    assert load_checkpoint(tmp_path / CHECKPOINTS / best).state.step == 15
    steps = [int(path.name[5:]) for path in list_checkpoints(tmp_path / CHECKPOINTS)]
    assert steps == [35, 30, 15]


def test_stopping_is_the_same_after_an_interruption(splits, tmp_path):  # noqa: F811
    def scripted(made):
        made.validation_figures = lambda: {"bits_per_byte": 5.0 - min(made.state.step, 20) / 10}
        return made

    changes = {"budget": "100 steps", "validate_every": 5, "early_stopping": 3, "average": 0.9}
    straight = scripted(trainer(splits, tmp_path / "straight", **changes))
    straight.fit()
    for stop in (7, 20, 27, 35):
        out = tmp_path / f"stopped-{stop}"
        first = scripted(trainer(splits, out, **changes))
        if stop < 35:
            break_off(first, stop)
        else:
            first.fit()
        again = scripted(trainer(splits, out, seed=9, **changes))
        state = again.fit()
        assert (state.step, state.best_step, state.stopped) == (35, 20, True)
        assert same(weights(straight), weights(again))
        assert same(straight.average.tensors, again.average.tensors)


def test_the_average_is_that_of_a_loop_and_is_what_is_validated():
    layer = torch.nn.Linear(3, 2)
    average = WeightAverage(dict(layer.named_parameters()), 0.9)
    by_hand = layer.weight.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            layer.weight += torch.randn(2, 3)
        average.update(step, 0)
        decay = min(0.9, step / (step + 10))
        by_hand = decay * by_hand + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(average.tensors["weight"], by_hand)
    raw = layer.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(layer.weight.detach(), by_hand)
    assert torch.equal(layer.weight, raw)
    torch.testing.assert_close(average.tensors["weight"], by_hand)
