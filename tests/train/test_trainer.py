from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest
import torch

from tests.conftest import tiny_config
from tests.train.test_optimizers import settings
from tests.train.training_data import TOKEN_BYTES, stream, write_splits
from tianti import interruption
from tianti.device import multiplies_bfloat16_fast, why_not_compiled
from tianti.errors import UserError
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.progress import SILENT
from tianti.train.budget import StepClock, steps_of_budget
from tianti.train.checkpoint import list_checkpoints, load_last_good
from tianti.train.log import read_log
from tianti.train.ranks import ALONE, Ranks
from tianti.train.stage import place
from tianti.train.trainer import CHECKPOINTS, LOG, TrainData, Trainer
from tianti.units import parse_budget

NOT_FINITE = torch.tensor(float("inf"), dtype=torch.float64)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("tokens"))


def trainer(splits, out, seed=0, device="cpu", shape=None, validation_rows=4, **changes) -> Trainer:
    values = settings(**changes)
    model = Transformer(tiny_config(context=32, **(shape or {})), dropout=values.dropout)
    initialize(model, seed)
    place(model, values, torch.device(device))
    out.mkdir(exist_ok=True)
    train = stream(splits, "train", values.batch_rows, values.seed)
    validation = stream(splits, "validation", validation_rows, values.seed)
    data = TrainData(train, validation, TOKEN_BYTES)
    return Trainer(model, values, data, out, SILENT)


def weights(made: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.model.named_parameters()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_learns_what_there_is_to_learn(splits, tmp_path, optimizer):
    made = trainer(splits, tmp_path, optimizer=optimizer, budget="60 steps")
    made.fit()
    losses = [row["loss"] for row in read_log(tmp_path / LOG) if "loss" in row]
    assert losses[0] == pytest.approx(math.log(97), abs=0.2)
    assert losses[-1] < 3.0
    assert made.last_validation["bits_per_byte"] < 3.0 / math.log(2)


@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_micro_batches_give_the_same_gradient(splits, tmp_path, rows):
    def gradient(micro_rows):
        made = trainer(
            splits, tmp_path / str(micro_rows), batch_rows=16, micro_batch_rows=micro_rows
        )
        made._gradients(made.data.train.batch(0))
        return torch.cat([p.grad.flatten() for p in made.model.parameters()])

    whole = gradient(16)
    assert (gradient(rows) - whole).norm() / whole.norm() < 1e-6


@pytest.mark.skipif(
    not multiplies_bfloat16_fast(torch.device("cpu")), reason="no instructions for it here"
)
def test_products_in_bfloat16_follow_those_in_float32(splits, tmp_path):
    made = {
        precision: trainer(splits, tmp_path / precision, precision=precision, budget="30 steps")
        for precision in ("float32", "bfloat16")
    }
    for one in made.values():
        one.fit()
        assert all(p.dtype == torch.float32 for p in one.model.parameters())
    losses = {
        precision: [row["loss"] for row in read_log(tmp_path / precision / LOG) if "loss" in row]
        for precision in made
    }
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)


def test_bfloat16_is_refused_where_there_are_no_instructions_for_it(monkeypatch):
    monkeypatch.setattr("tianti.train.stage.multiplies_bfloat16_fast", lambda device: False)
    model = Transformer(tiny_config())
    with pytest.raises(UserError, match=r"Set train\.precision=float32"):
        place(model, settings(precision="bfloat16"), torch.device("cpu"))
    place(model, settings(precision="float32"), torch.device("cpu"))


class _StopAt:
    """Asks to stop as a signal would, after a number of steps."""

    def __init__(self, made, steps):
        self.made, self.steps, self.inner = made, steps, made.one_step

    def __call__(self, log, task):
        self.inner(log, task)
        if self.made.state.step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


def break_off(made: Trainer, step: int) -> None:
    """Trains to before a step and ends as an exception does; what was saved is on the disk."""
    inner = made.one_step

    def until(log, task):
        if made.state.step == step:
            raise KeyboardInterrupt
        inner(log, task)

    made.one_step = until
    with pytest.raises(KeyboardInterrupt):
        made.fit()
    made.saver.wait()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("stop", [1, 7, 8, 19])
def test_stopping_and_going_on_is_bitwise_the_undisturbed_run(splits, tmp_path, optimizer, stop):
    straight = trainer(splits, tmp_path / "straight", optimizer=optimizer)
    straight.fit()
    first = trainer(splits, tmp_path / "stopped", optimizer=optimizer)
    first.one_step = _StopAt(first, stop)
    with interruption.signals_handled(), pytest.raises(interruption.Interrupted) as caught:
        first.fit()
    assert caught.value.exit_code == 143
    # Another seed for the weights: all of them must come from the checkpoint.
    second = trainer(splits, tmp_path / "stopped", seed=9, optimizer=optimizer)
    second.fit()
    assert same(weights(straight), weights(second))
    logs = [read_log(tmp_path / name / LOG) for name in ("straight", "stopped")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("call", [1, 2, 11, 12, 32])
def test_a_request_to_stop_ends_a_long_step_after_the_rows_at_work(splits, tmp_path, call):
    straight = trainer(splits, tmp_path / "straight", micro_batch_rows=1, validate_every=3)
    straight.fit()
    first = trainer(splits, tmp_path / "stopped", micro_batch_rows=1, validate_every=3)
    inner, calls = first.objective, []

    class Counted:
        steering, tally, figures = inner.steering, inner.tally, inner.figures

        def __call__(self, rows):
            calls.append(first.state.step)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return inner(rows)

    first.objective = Counted()
    with interruption.signals_handled(), pytest.raises(interruption.Interrupted):
        first.fit()
    assert len(calls) == call, "nothing more was computed"
    saved = load_last_good(tmp_path / "stopped" / CHECKPOINTS, pytest.fail)
    rows = first.settings.batch_rows
    # The last rows of a step end it; what comes before them is done anew.
    assert saved.state.step == calls[-1] + (call % rows == 0 and call <= 3 * rows)
    second = trainer(splits, tmp_path / "stopped", seed=9, micro_batch_rows=1, validate_every=3)
    second.fit()
    assert same(weights(straight), weights(second))
    logs = [read_log(tmp_path / name / LOG) for name in ("straight", "stopped")]
    assert logs[0] == logs[1]


def test_a_stop_while_the_steps_of_a_wall_budget_are_measured_loses_nothing(splits, tmp_path):
    first = trainer(splits, tmp_path, budget="60s")
    first.one_step = _StopAt(first, 2)
    with interruption.signals_handled(), pytest.raises(interruption.Interrupted):
        first.fit()
    second = trainer(splits, tmp_path, seed=9, budget="2s")
    steps = []
    inner = second.one_step

    def noted(log, task):
        steps.append(second.state.step)
        inner(log, task)

    second.one_step = noted
    second.fit()
    assert steps[0] == 2
    assert [r["step"] for r in read_log(tmp_path / LOG) if "loss" in r][:3] == [1, 2, 3]


def test_what_is_dropped_is_a_function_of_seed_and_step(splits, tmp_path):
    straight = trainer(splits, tmp_path / "straight", dropout=0.2)
    straight.fit()
    plain = trainer(splits, tmp_path / "plain")
    plain.fit()
    assert not same(weights(straight), weights(plain))
    first = trainer(splits, tmp_path / "stopped", dropout=0.2)
    first.one_step = _StopAt(first, 7)
    with interruption.signals_handled(), pytest.raises(interruption.Interrupted):
        first.fit()
    torch.manual_seed(5)
    second = trainer(splits, tmp_path / "stopped", seed=9, dropout=0.2)
    second.fit()
    assert same(weights(straight), weights(second))
    one, two = straight.validation_figures(), straight.validation_figures()
    assert straight.model.training
    assert one != two, "outside of a validation dropout is on"
    assert straight.last_validation == second.last_validation


def test_a_finished_training_does_nothing_more(splits, tmp_path):
    made = trainer(splits, tmp_path)
    made.fit()
    again = trainer(splits, tmp_path, seed=9)
    state = again.fit()
    assert state.step == 20
    assert same(weights(made), weights(again))
    assert read_log(tmp_path / LOG)[-1]["step"] == 20


def test_a_damaged_last_checkpoint_costs_only_what_it_held(splits, tmp_path):
    straight = trainer(splits, tmp_path / "straight")
    straight.fit()
    made = trainer(splits, tmp_path / "broken")
    made.fit()
    newest = list_checkpoints(tmp_path / "broken" / CHECKPOINTS)[0]
    (newest / "model.safetensors").write_bytes(b"junk")
    again = trainer(splits, tmp_path / "broken", seed=9)
    again.fit()
    assert same(weights(straight), weights(again))


def test_saving_often_and_validating_often_changes_nothing(splits, tmp_path):
    one = trainer(splits, tmp_path / "one")
    two = trainer(splits, tmp_path / "two", save_every=1e-9, validate_every=1)
    one.fit()
    two.fit()
    assert same(weights(one), weights(two))
    checks = [
        row["step"] for row in read_log(tmp_path / "two" / LOG) if "validation_bits_per_byte" in row
    ]
    assert checks == list(range(1, 21))


def test_a_step_that_is_not_finite_is_skipped_before_it_touches_the_weights(splits, tmp_path):
    made = trainer(splits, tmp_path)
    inner, before = made._gradients, {}

    def poisoned(batch):
        loss = inner(batch)
        if made.state.step == 5:
            before.update(weights(made))
            next(made.model.parameters()).grad[0, 0] = float("nan")
        if made.state.step == 6:
            assert same(before, weights(made))
        return loss

    made._gradients = poisoned
    state = made.fit()
    assert state.skipped_steps == 1
    assert all(torch.isfinite(value).all() for value in weights(made).values())
    assert all(torch.isfinite(v).all() for v in made.optimizers.state_tensors().values())


def test_a_loss_that_stays_infinite_stops_with_a_remedy(splits, tmp_path):
    made = trainer(splits, tmp_path)
    made._gradients = lambda batch: NOT_FINITE
    with pytest.raises(UserError, match=r"10 steps in a row.*learning_rate"):
        made.fit()


def test_bad_steps_among_good_ones_do_not_stop_training(splits, tmp_path):
    made = trainer(splits, tmp_path, budget="24 steps")
    inner = made._gradients
    made._gradients = lambda batch: inner(batch) if made.state.step % 2 else NOT_FINITE
    state = made.fit()
    assert (state.step, state.skipped_steps) == (24, 12)


def test_the_validation_is_the_plain_sum_over_its_rows(splits, tmp_path):
    made = trainer(splits, tmp_path, validation_tokens=4 * 32 * 2, budget="2000 steps")
    made.state.total_steps = 2000
    nats = count = 0.0
    for index in range(2):
        batch = made.data.validation.batch(index)
        hidden = made.model(
            torch.from_numpy(batch.ids), segments_BT=torch.from_numpy(batch.segments)
        )
        chances = made.model.logits(hidden).log_softmax(-1)
        for row, column in zip(*np.nonzero(batch.labels != 96), strict=True):
            nats -= chances[row, column, batch.labels[row, column]].item()
            count += 1
    assert made.validation_figures()["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / count, rel=1e-5
    )


class OneOf(Ranks):
    """One of several ranks, which hears nothing of the others."""

    def __init__(self, number, count):
        self.number, self.count = number, count


@pytest.mark.parametrize("count", [2, 3, 5, 40])
@pytest.mark.parametrize("rows", [4, 1000])
def test_any_number_of_ranks_measures_on_the_same_rows(splits, tmp_path, count, rows):
    made = trainer(splits, tmp_path, validation_rows=rows, validation_tokens=300)

    def rows_of(ranks):
        made.ranks = ranks
        batches = list(made._validation_batches())
        counted = [batch.labels[(batch.labels != -100).any(1)] for batch in batches]
        return len(batches), sorted(row.tolist() for part in counted for row in part)

    made.state.total_steps = 1000
    _, alone = rows_of(ALONE)
    assert len(alone) == max(rows, 12)
    parts = [rows_of(OneOf(number, count)) for number in range(count)]
    # All make as many passes, or they would wait for each other.
    assert len({passes for passes, _ in parts}) == 1
    assert sorted(row for _, part in parts for row in part) == alone


def test_a_budget_of_time_becomes_steps_that_stay(splits, tmp_path, monkeypatch):
    made = trainer(splits, tmp_path, budget="1s")
    total = made.fit().total_steps
    assert total > 10
    assert load_last_good(tmp_path / CHECKPOINTS, pytest.fail).state.total_steps == total
    again = trainer(splits, tmp_path, seed=9, budget="1s")
    assert again.fit().total_steps == total
    steps = [row["step"] for row in read_log(tmp_path / LOG) if "loss" in row]
    assert steps == list(range(1, total + 1))


@pytest.mark.parametrize(
    ("budget", "steps"),
    [("2000 steps", 2000), ("1M tokens", 977), ("2 epochs", 98), ("1 tokens", 1), ("10m", None)],
)
def test_budgets_become_steps(budget, steps):
    made = steps_of_budget(parse_budget(budget), tokens_per_step=1024, epoch_tokens=50_000)
    assert made == steps


def test_the_clock_measures_after_warming_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = StepClock(100.0)
    total, step = None, 0
    while total is None:
        now[0] += 5.0 if step < 3 else 0.5
        step += 1
        total = clock.after_step(step)
    assert step == 15
    assert total == 15 + int((100 - 21) * 0.95 / 0.5)


@pytest.mark.slow
def test_compiled_training_follows_eager_training(splits, tmp_path):
    if why_not_compiled(torch.device("cpu")):
        pytest.skip("nothing compiles here")
    logs = []
    for name, compiled in (("eager", False), ("compiled", True)):
        made = trainer(splits, tmp_path / name, compile=compiled, budget="6 steps")
        made.fit()
        logs.append([row["loss"] for row in read_log(tmp_path / name / LOG) if "loss" in row])
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)


def test_without_a_compiler_training_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert why_not_compiled(torch.device("cpu")) == "no C++ compiler found"


def test_what_a_killed_save_left_is_removed_when_training_goes_on(splits, tmp_path):
    left = tmp_path / CHECKPOINTS / ".step-00000007.partial"
    left.mkdir(parents=True)
    (left / "state.json.tmp").write_text("{")
    trainer(splits, tmp_path).fit()
    assert not left.exists()
