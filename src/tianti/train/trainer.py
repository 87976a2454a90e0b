"""The training loop: one step, and what surrounds it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tianti import interruption
from tianti.allocator import keep_freed_memory
from tianti.errors import UserError
from tianti.files import read_json, write_json
from tianti.messages import tr
from tianti.model.transformer import Transformer
from tianti.objective.causal import Rows
from tianti.objective.linear_cross_entropy import IGNORED
from tianti.progress import Display, Task
from tianti.tokens.permutation import mix
from tianti.tokens.stream import Batch, Stream
from tianti.train.activations import checkpoint_activations
from tianti.train.average import WeightAverage
from tianti.train.budget import StepClock, steps_of_budget
from tianti.train.checkpoint import (
    Checkpoint,
    TrainState,
    checkpoint_path,
    forget_partial,
    load_last_good,
)
from tianti.train.config import TrainSettings
from tianti.train.guard import Verdict, judge
from tianti.train.integrity import IntegrityCheck
from tianti.train.log import NoLog, TrainLog
from tianti.train.loss import TrainLoss
from tianti.train.objective import Objective
from tianti.train.optimizer import Optimizers
from tianti.train.ranks import ALONE, Ranks
from tianti.train.regions import compile_layers
from tianti.train.routing import RoutingBalance
from tianti.train.rows import rows_of
from tianti.train.saving import BackgroundSaver
from tianti.train.schedule import Schedule
from tianti.train.stopping import note_validation
from tianti.units import format_count

MOST_BAD_STEPS, MOST_REWINDS = 10, 3
VALIDATION_SHARE = 0.012
PLAN = "steps.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
BEST = "best.json"


class _Abandoned(Exception):
    """A signal asked to stop amid a step or a validation, which is done anew on resume."""

    def __init__(self, number: int):
        self.number = number


@dataclass(frozen=True)
class TrainData:
    """What a trainer reads.

    Args:
        train: batches to learn from.
        validation: batches to be measured on.
        token_bytes: UTF-8 bytes each id stands for, 0 for special tokens, which are not measured;
            int64 `(vocabulary,)`. None where all labels are.
        most_validation: tokens of one validation, at most, as a share of those of the training.
    """

    train: Stream
    validation: Stream
    token_bytes: np.ndarray | None = None
    most_validation: float = VALIDATION_SHARE


class Trainer:
    """Trains one model into one folder, going on from the last good checkpoint there.

    Args:
        model: initialised network on its device.
        settings: how to train.
        data: what to train on.
        out: folder for checkpoints, log and the number of steps.
        display: shows progress.
        begin: gives the weights a better start, where there is no checkpoint to go on from.
        ranks: those that train together.
        objective: what it is trained for; when not given, to foretell each next token.
        begun: weights and buffers to begin with, where several ranks lay a network out that has no
            memory yet; drawn by the seed when not given.
    """

    def __init__(
        self,
        model: Transformer,
        settings: TrainSettings,
        data: TrainData,
        out: Path,
        display: Display,
        begin: Callable[[], None] | None = None,
        ranks: Ranks = ALONE,
        objective: Objective | None = None,
        begun: Mapping[str, Tensor] | None = None,
    ):
        keep_freed_memory()
        self.ranks = ranks
        self.model, self.settings, self.data = model, settings, data
        self.out, self.display, self._begin = out, display, begin
        checkpoint_activations(model, settings.activation_checkpointing)
        if settings.compile:
            compile_layers(model)
        self.objective = objective or TrainLoss(model, settings, ranks.vocabulary, data.token_bytes)
        self.parameters = ranks.lay_out(model, settings.seed, begun)
        self.optimizers = Optimizers(model, settings, self.parameters, ranks)
        self.routing = RoutingBalance(model, settings, ranks)
        self.tokens_per_step = settings.batch_rows * data.train.context
        self.state = TrainState(step=0, total_steps=0)
        self.saver = BackgroundSaver(out / CHECKPOINTS, settings.keep_checkpoints, ranks)
        every = settings.check_memory_every
        self.integrity = None if every is None else IntegrityCheck(self.parameters.values(), every)
        self.average: WeightAverage | None = None
        if settings.average or settings.average_tail:
            self.average = WeightAverage(self.parameters, settings.average, settings.average_tail)
        self.last_validation: dict[str, float] = {}
        self._verdict: Verdict | None = None
        self._ahead: tuple[tuple[int, float], Batch] | None = None

    def fit(self) -> TrainState:
        """Trains to the end of the budget.

        Raises:
            Interrupted: a signal asked to stop; everything done is saved.
            UserError: the loss is not finite again and again, or the disk is full.
        """
        self._resume()
        log = TrainLog(self.out / LOG, self.state.log_bytes) if self.ranks.first else NoLog()
        try:
            with (
                interruption.deferred(),
                self.display.task("train", self.state.total_steps or None, "steps") as task,
            ):
                task.start_at(self.state.step)
                self._run(log, task)
        except _Abandoned as abandoned:
            self.saver.wait()
            raise interruption.Interrupted(abandoned.number) from None
        finally:
            log.close()
        if self.settings.early_stopping:
            best = checkpoint_path(self.out / CHECKPOINTS, self.state.best_step)
            assert best is not None
            if self.ranks.first:
                write_json(self.out / BEST, {"checkpoint": best.name})
        return self.state

    def _resume(self) -> None:
        if self.ranks.first:
            forget_partial(self.out / CHECKPOINTS)
        loaded = self._load_last_good()
        if loaded and self.state.total_steps:
            self.display.say(
                tr(
                    "Going on from step {step} of {total}",
                    step=self.state.step,
                    total=self.state.total_steps,
                )
            )
            return
        if not loaded and self._begin is not None:
            began = time.perf_counter()
            self._begin()
            if self.average is not None:
                self.average.restart()
            # A budget of wall time pays for this too.
            self.state.train_seconds = time.perf_counter() - began
        planned = (self._planned_steps() or 0) if self.ranks.first else 0
        (self.state.total_steps,) = self.ranks.greatest(planned)

    def _load_last_good(self) -> bool:
        """Takes weights, optimizer and state from the newest checkpoint that is whole."""
        checkpoint = load_last_good(
            self.out / CHECKPOINTS,
            on_damage=lambda error: self.display.say(
                tr("Passing over a damaged checkpoint: {error}", error=error), "yellow"
            ),
            ranks=self.ranks,
        )
        if checkpoint is None:
            return False
        if self.integrity is not None:
            self.integrity.forget()
        self.state = checkpoint.state
        with torch.no_grad():
            for name, held in self.parameters.items():
                held.copy_(checkpoint.model[name])
        self.optimizers.load_state_tensors(checkpoint.optimizer)
        if self.average is not None:
            self.average.load(checkpoint.average)
        return True

    def _planned_steps(self) -> int | None:
        """Gives the number of steps where it is known: asked for, or measured before."""
        if (self.out / PLAN).is_file():
            return int(read_json(self.out / PLAN)["total_steps"])
        return steps_of_budget(
            self.settings.budget,
            tokens_per_step=self.tokens_per_step,
            epoch_tokens=self.data.train.epoch_tokens,
        )

    def _run(self, log: TrainLog, task: Task) -> None:
        last_save = begin = time.perf_counter()
        before = self.state.train_seconds
        clock = None
        if not self.state.total_steps:
            clock = StepClock(max(self.settings.budget.amount - before, 1.0))
        if self.state.step and (self._finished() or self._validation_due()):
            # A validation follows its checkpoint, so the log was cut back to before it.
            self._validate(log, task)
        while not self._finished():
            try:
                self.one_step(log, task)
            except _Abandoned:
                self._drop_gradients()
            if self.state.bad_in_a_row >= MOST_BAD_STEPS:
                self._go_back(log, self._verdict)
            now = time.perf_counter()
            self.state.train_seconds = before + now - begin
            measured = clock.after_step(self.state.step) if clock is not None else None
            total, due, number = self._agreed(measured, now - last_save >= self.settings.save_every)
            if clock is not None and total:
                self.state.total_steps, clock = total, None
                if self.ranks.first:
                    write_json(self.out / PLAN, {"total_steps": total})
            finished = self._finished()
            # Amid bad steps nothing is saved: training may have to go back to before them.
            wanted = (due or self._validation_due()) and not self.state.bad_in_a_row
            if wanted or finished or number:
                self._save(log)
                last_save = now
            if number and not finished:
                self.saver.wait()
                raise interruption.Interrupted(number)
            if finished or (self._validation_due() and not self.state.bad_in_a_row):
                self._validate(log, task)
        self.saver.wait()
        log.sync()

    def _agreed(self, total: int | None, due: bool) -> tuple[int, bool, int]:
        """Gives what all ranks go by: steps in all, whether to save, a signal to stop, or zeros.

        Clocks differ: the first rank's counts. A signal may reach one rank alone.
        """
        mine = (total or 0, int(due)) if self.ranks.first else (0, 0)
        steps, save, number = self.ranks.greatest(*mine, interruption.requested() or 0)
        return steps, bool(save), number

    def _heed_a_request(self) -> None:
        # Who asks with SIGTERM kills some seconds later: a long step must not stand in the way.
        # Several ranks end a step together, because one that leaves in its midst hangs the others.
        if self.ranks.alone and (number := interruption.requested()) is not None:
            raise _Abandoned(number)

    def _finished(self) -> bool:
        if self.state.stopped:
            return True
        return bool(self.state.total_steps) and self.state.step >= self.state.total_steps

    def _validation_due(self) -> bool:
        every = self.settings.validate_every or max(1, self.state.total_steps // 10)
        return bool(self.state.total_steps) and self.state.step % every == 0

    def _schedule(self) -> Schedule:
        settings = self.settings
        return Schedule(
            kind=settings.schedule,
            # While the steps are still being measured, training is in its warm-up or at its peak.
            total_steps=self.state.total_steps or 10**9,
            warmup_steps=settings.warmup_steps,
            decay_share=settings.decay_share,
            final=settings.final_learning_rate,
        )

    def one_step(self, log: TrainLog, task: Task) -> None:
        """Computes the gradient of one global batch and updates the weights."""
        self.ranks.step = step = self.state.step
        share = self._schedule().at(step)
        self.optimizers.set_learning_rate(self.settings.learning_rate * share)
        batch = self._batch(step)
        self.routing.before_step(self.tokens_per_step)
        if self.integrity is not None:
            self.integrity.before_step(step, lambda: self._gradients(batch))
        nats = self.ranks.total(self._gradients(batch))
        whole_norm = self.ranks.gradient_norm(self.parameters)
        # A GPU is still at work on what it was told: the one time a step waits for it comes after.
        self._batch(step + 1)
        loss, norm = torch.stack((nats, whole_norm.double())).tolist()
        self._verdict = verdict = judge(self.state, loss, norm)
        if verdict is None:
            # Most steps need no clipping, and then the gradients are not read once more.
            if norm > (longest := self.settings.clip_grad_norm):
                held = self.parameters.values()
                torch.nn.utils.clip_grads_with_norm_(held, longest, whole_norm)
            self.optimizers.step()
            self.state.bad_in_a_row = 0
        else:
            self._skip_bad_step(verdict)
        busiest = self.routing.after_step(kept=verdict is None)
        self._drop_gradients()
        self.state.step += 1
        if self.average is not None:
            self.average.update(self.state.step, self.state.total_steps)
        if self.integrity is not None:
            self.integrity.after_step(step)
        self.state.tokens += self.tokens_per_step
        log.write(
            step=self.state.step,
            tokens=self.state.tokens,
            loss=round(loss, 6) if math.isfinite(loss) else None,
            learning_rate=self.settings.learning_rate * share,
            grad_norm=round(norm, 6) if math.isfinite(norm) else None,
            **({} if busiest is None else {"busiest_expert": round(busiest, 3)}),
            **({"skipped": verdict} if verdict else {}),
        )
        facts = {"loss": f"{loss:.3f}", "tok/s": format_count(task.rate() * self.tokens_per_step)}
        task.update(self.state.step, self.state.total_steps or None, facts | self._shown())

    def _shown(self) -> dict[str, str]:
        """Gives what the progress bar says of the last validation."""
        steering, figures = self.objective.steering, self.last_validation
        return {steering.shown: f"{figures[steering.name]:.3f}"} if figures else {}

    def _drop_gradients(self) -> None:
        self.optimizers.zero_grad()
        self.ranks.drop_gradients()

    def _batch(self, step: int) -> Batch:
        # While the steps are still being measured, nothing is late yet.
        progress = step / self.state.total_steps if self.state.total_steps else 0.0
        key = (step + self.state.batch_offset, progress)
        if self._ahead is None or self._ahead[0] != key:
            place = {"rank": self.ranks.number, "world": self.ranks.count}
            self._ahead = key, self.data.train.batch(key[0], progress=progress, **place)
        return self._ahead[1]

    def _gradients(self, batch: Batch) -> Tensor:
        """Adds up the gradients of a batch's micro-batches; gives nats per token, float64."""
        if self.settings.dropout:
            # What is dropped is, like the data, a function of seed and step.
            key = mix(self.settings.seed) ^ self.state.step
            torch.manual_seed(mix(key ^ self.ranks.rank << 40) >> 1)
        rows = self.settings.micro_batch_rows
        parts = [self._rows(batch, start, rows) for start in range(0, len(batch.ids), rows)]
        nats = self.ranks.add_gradients(self.objective, parts, batch.weight, self._heed_a_request)
        self.ranks.collect_gradients()
        return nats / batch.weight

    def _rows(self, batch: Batch, start: int, count: int) -> Rows:
        rows = rows_of(batch, self.model.device, start, count)
        columns = self.ranks.columns(rows.ids_BT.shape[1])
        if columns is None:
            return rows
        ids, labels = rows.ids_BT[:, columns.here], rows.labels_BT[:, columns.here]
        return replace(rows, ids_BT=ids, labels_BT=labels, columns=columns)

    def _skip_bad_step(self, verdict: Verdict) -> None:
        self.state.skipped_steps += 1
        self.state.bad_in_a_row += 1
        what = {
            "not finite": tr("Step {step}: the loss is not finite, skipped", step=self.state.step),
            "spike": tr("Step {step}: loss or gradient leap up, skipped", step=self.state.step),
        }
        self.display.say(what[verdict], "yellow")

    def _go_back(self, log: TrainLog, verdict: Verdict | None) -> None:
        """Goes on from the last good checkpoint, past the batches that led here.

        Raises:
            UserError: that has been tried often enough, or there is no checkpoint.
        """
        last, rewinds, skipped = self.state.step, self.state.rewinds, self.state.skipped_steps
        self.saver.wait()
        if rewinds >= MOST_REWINDS or not self._load_last_good():
            if verdict == "spike":
                # The loss has come to another level, and stays there.
                self.state.losses, self.state.norms, self.state.bad_in_a_row = [], [], 0
                return
            raise UserError(
                tr("the loss was not finite {count} steps in a row", count=MOST_BAD_STEPS),
                where=f"train, step {last}",
                remedy=tr("Lower train.learning_rate"),
            )
        self.state.batch_offset += last - self.state.step
        self.state.rewinds, self.state.skipped_steps = rewinds + 1, skipped
        self.state.bad_in_a_row = 0
        log.cut(self.state.log_bytes)
        log.write(step=self.state.step, rewound_from=last, batch_offset=self.state.batch_offset)
        self.display.say(
            tr(
                "Going back from step {last} to step {step}, past these batches",
                last=last,
                step=self.state.step,
            ),
            "yellow",
        )

    def _save(self, log: TrainLog) -> None:
        if self.integrity is not None:
            self.integrity.check_weights(self.state.step)
        self.state.log_bytes = log.sync()
        self.saver.save(
            Checkpoint(
                self.state,
                self._weights(),
                self.optimizers.state_tensors(),
                {} if self.average is None else self.average.tensors,
            ),
            self.state.best_step if self.settings.early_stopping else None,
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.parameters.items()}

    def _validate(self, log: TrainLog, task: Task) -> None:
        self.model.eval()
        with contextlib.nullcontext() if self.average is None else self.average.in_place():
            self.last_validation = self.validation_figures()
            self.ranks.settle()
        self.model.train()
        cost = self.objective.steering.cost(self.last_validation)
        note_validation(self.state, cost, self.settings.early_stopping)
        if self.state.stopped:
            self.display.say(
                tr(
                    "No better validation for {count} times: stopped; the best was step {step}",
                    count=self.settings.early_stopping,
                    step=self.state.best_step,
                )
            )
        log.write(
            step=self.state.step,
            tokens=self.state.tokens,
            **{f"validation_{name}": round(v, 6) for name, v in self.last_validation.items()},
        )
        log.flush()
        task.update(self.state.step, facts=self._shown())

    @torch.no_grad()
    def validation_figures(self) -> dict[str, float]:
        """Gives the figures of the first validation batches.

        `validation_tokens` of them, less in a short training: a forward pass costs a third of a
        training step, so ten validations of `VALIDATION_SHARE` cost 4 % of the training.
        """
        sums = torch.zeros((), dtype=torch.float64)
        for batch in self._validation_batches():
            self._heed_a_request()
            rows = self._rows(batch, 0, len(batch.ids))
            found = self.ranks.evaluate(self.objective, rows)
            sums = sums + self.objective.tally(found, rows).cpu()
        return self.objective.figures(self.ranks.total(sums).numpy())

    def _validation_batches(self) -> Iterator[Batch]:
        """Gives this rank's part of the rows to measure on, the same however many share them.

        Who has none left while others do repeats one, with no label to count.
        """
        stream, number, count = self.data.validation, self.ranks.number, self.ranks.count
        available = stream.rows_per_epoch // stream.rows
        budget = self.data.most_validation * self.state.total_steps * self.tokens_per_step
        tokens = min(self.settings.validation_tokens, budget)
        wanted = math.ceil(tokens / (stream.rows * stream.context))
        stop = max(1, min(available, wanted)) * stream.rows
        if self.data.token_bytes is None:
            # Of few examples the last ones count too.
            stop = min(stream.rows_per_epoch, wanted * stream.rows)
        at_once = -(-stream.rows // count)
        for first in range(0, stop, at_once * count):
            numbers = first + number + count * np.arange(at_once)
            batch = stream.rows_numbered(numbers.clip(max=stop - 1).tolist())
            counted = np.broadcast_to((numbers < stop)[:, None], batch.labels.shape)
            if self.data.token_bytes is not None:
                # Special tokens stand for no bytes: neither their loss nor their bytes count.
                counted = counted & (self.data.token_bytes[batch.labels] > 0)
            yield replace(batch, labels=np.where(counted, batch.labels, IGNORED))
