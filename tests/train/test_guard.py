"""Steps that must not touch the weights, and going back from where none can be taken."""

from __future__ import annotations

import json

import pytest
import torch

from tests.train.test_trainer import same, splits, trainer, weights  # noqa: F401 - a fixture
from tianti.errors import UserError
from tianti.train.checkpoint import TrainState
from tianti.train.guard import LEAST, WINDOW, judge
from tianti.train.log import read_log
from tianti.train.trainer import LOG


def steady(state, count=LEAST):
    for number in range(count):
        assert judge(state, 3.0 + 0.01 * (number % 5), 1.0 + 0.02 * (number % 3)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_finite_is_told_and_never_remembered(value, place):
    state = TrainState(0, 10)
    pair = [1.0, 1.0]
    pair[place] = value
    assert judge(state, *pair) == "not finite"
    assert (state.losses, state.norms) == ([], [])


def test_a_leap_is_a_spike_once_there_is_something_to_compare_with():
    state = TrainState(0, 10)
    assert judge(state, 50.0, 1.0) is None
    state = TrainState(0, 10)
    steady(state)
    assert judge(state, 4.0, 1.0) == judge(state, 3.0, 9.0) == "spike"
    assert judge(state, 3.1, 1.05) is None
    assert judge(state, 0.1, 0.1) is None, "falling is no spike"


def test_the_window_forgets_and_survives_json():
    state = TrainState(0, 10)
    steady(state, 3 * WINDOW)
    assert len(state.losses) == len(state.norms) == WINDOW
    assert json.loads(json.dumps(state.losses)) == state.losses


def bad_between(made, first, last, value=float("nan")):
    """Spoils the gradient of some batches, whatever step they come at."""
    inner = made.data.train.batch
    seen = []

    def batch(index, **place):
        seen.append(index)
        return inner(index, **place)

    gradients = made._gradients

    def spoiled(given):
        loss = gradients(given)
        return torch.full_like(loss, value) if first <= seen[-1] < last else loss

    made.data.train.batch, made._gradients = batch, spoiled
    return seen


def test_training_goes_back_past_batches_that_cannot_be_learned_from(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="60 steps", validate_every=5, average=0.9)
    seen = bad_between(made, 12, 40)
    state = made.fit()
    rows = read_log(tmp_path / LOG)
    back = [row for row in rows if "rewound_from" in row]
    assert [row["rewound_from"] for row in back] == [22, 20]
    assert state.rewinds == 2
    assert state.batch_offset == 12 + 10
    # One more is read ahead.
    assert seen[-1] == 60 + state.batch_offset
    assert state.step == 60
    assert all(torch.isfinite(value).all() for value in weights(made).values())
    assert all(torch.isfinite(value).all() for value in made.average.tensors.values())


def test_batches_that_stay_bad_end_with_a_remedy(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="90 steps", validate_every=5)
    bad_between(made, 12, 10**6)
    with pytest.raises(UserError, match="learning_rate"):
        made.fit()
    assert made.state.rewinds == 3


def test_a_new_level_of_the_loss_is_taken_in_the_end(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="260 steps", validate_every=20)
    bad_between(made, 100, 10**6, value=40.0)
    state = made.fit()
    assert state.step == 260
    assert state.losses[-1] == 40.0


def test_a_skipped_step_leaves_weights_and_moments(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="80 steps", validate_every=100)
    bad_between(made, 70, 71, value=1e6)
    before = {}
    step = made.optimizers.step

    def watched():
        before.update(weights(made))
        step()

    made.optimizers.step = watched
    state = made.fit()
    (row,) = [row for row in read_log(tmp_path / LOG) if row.get("skipped")]
    assert (row["step"], row["skipped"]) == (71, "spike")
    assert state.skipped_steps == 1
    assert not same(before, weights(made))


def test_going_back_is_no_change_of_the_weights_by_themselves(splits, tmp_path):  # noqa: F811
    changes = {"budget": "60 steps", "validate_every": 5, "check_memory_every": 1}
    made = trainer(splits, tmp_path, **changes)
    bad_between(made, 12, 13 + 20, value=float("inf"))
    assert made.fit().rewinds > 0


def test_leaps_without_a_checkpoint_are_a_new_level(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="120 steps", validate_every=200)
    bad_between(made, 70, 10**6, value=40.0)
    state = made.fit()
    assert (state.step, state.rewinds, state.losses[-1]) == (120, 0, 40.0)


def test_going_back_keeps_the_validation_and_the_best_has_a_checkpoint(splits, tmp_path):  # noqa: F811
    made = trainer(splits, tmp_path, budget="60 steps", validate_every=5, early_stopping=50)
    bad_between(made, 10, 35)
    # The best would be amid the bad steps, if any were validated there.
    made.validation_figures = lambda: {"bits_per_byte": 1.0 if made.state.bad_in_a_row else 5.0}
    state = made.fit()
    assert state.rewinds > 0
    assert (tmp_path / "checkpoints" / f"step-{state.best_step:08d}").is_dir()
    rows = read_log(tmp_path / LOG)
    steps = [row["step"] for row in rows if "validation_bits_per_byte" in row]
    # Step 15 came amid bad steps, whose weights were validated before.
    assert steps == [5, 10, *range(20, 61, 5)]
