"""What networks are tuned for, besides foretelling the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tianti.device import autocast
from tianti.model.transformer import Transformer
from tianti.objective.causal import CausalLoss, Rows, loss_of_stream
from tianti.objective.classify import (
    ClassLoss,
    class_loss,
    class_weights,
    distance,
    log_priors,
    multi_label_loss,
    regression_loss,
)
from tianti.objective.contrast import class_contrast
from tianti.objective.linear_cross_entropy import IGNORED
from tianti.train.config import TrainSettings
from tianti.train.loss import TrainLoss
from tianti.train.objective import Objective
from tianti.tune.aligning import AlignObjective
from tianti.tune.config import TuneConfig
from tianti.tune.form import Form
from tianti.tune.preferring import PreferenceObjective, RewardObjective
from tianti.tune.steering import STEERINGS, steering_of
from tianti.tune.tags import likeliest, spans_of


@dataclass(frozen=True)
class Told:
    """What is found of some rows.

    Args:
        total: what is descended.
        nats: plain cross-entropy by the classes' weights, or of numbers the squared error.
        scores_NC: of what is supervised.
        places: of it in the rows, flat, int64.
    """

    total: Tensor
    nats: Tensor
    scores_NC: Tensor
    places: Tensor


class ClassObjective:
    """Classes, tags or numbers; see `tianti.train.objective.Objective`.

    Args:
        model: the network.
        settings: of training.
        tune: what is done about unbalanced classes.
        form: of the examples.
        counts: training examples of each class.
    """

    def __init__(
        self,
        model: Transformer,
        settings: TrainSettings,
        tune: TuneConfig,
        form: Form,
        counts: Sequence[int],
    ):
        self.model, self._precision, self._form = model, settings.precision, form
        self.steering = steering_of(tune)
        self._smoothing, self._focus = settings.label_smoothing, tune.focus
        self._r_drop, self._contrast = tune.r_drop, tune.contrast
        self._weights = self._priors = None
        if tune.class_weights != "none":
            self._weights = class_weights(counts, tune.class_weights)
        if tune.adjusted:
            self._priors = float(tune.adjusted) * log_priors(counts)

    def __call__(self, rows: Rows) -> Told:
        """Gives the summed loss of some rows."""
        places = (rows.labels_BT.flatten() != IGNORED).nonzero().squeeze(1)
        states_NW, scores_NC = self._scores(rows, places)
        found, nats = self._loss(scores_NC, rows, places)
        total = found.total
        if self._r_drop and self.model.training:
            _, others_NC = self._scores(rows, places)
            total = (total + self._loss(others_NC, rows, places)[0].total) / 2
            total = total + self._r_drop * distance(scores_NC, others_NC)
        if self._contrast and self.model.training:
            labels = rows.labels_BT.flatten()[places]
            total = total + self._contrast * class_contrast(states_NW, labels)
        return Told(total, nats.detach(), scores_NC.detach(), places)

    def _scores(self, rows: Rows, places: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(rows.ids_BT.device, self._precision):
            hidden_BTW = self.model(rows.ids_BT, segments_BT=rows.segments_BT)
            states_NW = hidden_BTW.flatten(0, 1)[places]
            return states_NW, self.model.logits(states_NW)

    def _loss(self, scores: Tensor, rows: Rows, places: Tensor) -> tuple[ClassLoss, Tensor]:
        labels = rows.labels_BT.flatten()[places]
        self._move(scores.device)
        if self._form.task == "regress":
            found = regression_loss(scores[:, 0], self._targets(rows, places)[:, 0])
            return found, found.total
        if self._form.several:
            found = multi_label_loss(scores, self._targets(rows, places))
            return found, found.total / len(self._form.labels)
        found = class_loss(
            scores,
            labels,
            weights_C=self._weights,
            focus=self._focus,
            log_priors_C=self._priors,
            label_smoothing=self._smoothing,
        )
        # Of the weight that a step is divided by, so that it reads as a mean in any batch.
        return found, class_loss(scores.detach(), labels, weights_C=self._weights).total

    def _move(self, device: torch.device) -> None:
        # A network that is laid out later is nowhere when its objective is made.
        if self._weights is not None:
            self._weights = self._weights.to(device)
        if self._priors is not None:
            self._priors = self._priors.to(device)

    @staticmethod
    def _targets(rows: Rows, places: Tensor) -> Tensor:
        assert rows.units_BT is not None
        assert rows.targets is not None
        return rows.targets[rows.units_BT.flatten()[places]]

    def tally(self, found: Told, rows: Rows) -> Tensor:
        """Gives the loss, the number of labels, and what each figure is counted from."""
        nats = found.nats
        if self._weights is not None:
            # Validation counts every example alike.
            labels = rows.labels_BT.flatten()[found.places]
            nats = class_loss(found.scores_NC, labels).total
        common = [nats.item(), float(len(found.places))]
        return torch.tensor([*common, *self._counts(found, rows).tolist()], dtype=torch.float64)

    def _counts(self, found: Told, rows: Rows) -> np.ndarray:
        scores = found.scores_NC.float().cpu().numpy()
        if self._form.task == "regress":
            return np.zeros(0)
        if self._form.several:
            right = self._targets(rows, found.places).cpu().numpy() > 0
            said = scores > 0
            return np.concatenate([(said & right).sum(0), said.sum(0), right.sum(0)])
        labels = rows.labels_BT.flatten()[found.places].cpu().numpy()
        if self._form.task == "tag":
            log_probs = found.scores_NC.float().log_softmax(1).cpu().double().numpy()
            return self._spans(log_probs, labels, rows, found.places)
        said = scores.argmax(1) if len(scores) else np.zeros(0, np.int64)
        count = len(self._form.labels)
        return np.concatenate(
            [np.bincount(part, minlength=count) for part in (labels[said == labels], said, labels)]
        )

    def _spans(
        self, log_probs: np.ndarray, labels: np.ndarray, rows: Rows, places: Tensor
    ) -> np.ndarray:
        """Gives entities that are right, that are told, and that there are, by kind."""
        tags, kinds = self._form.tags, {k: n for n, k in enumerate(self._form.labels)}
        assert rows.segments_BT is not None
        # Each text by itself: its tokens stand at places of their own.
        texts = rows.segments_BT + torch.arange(len(rows.ids_BT), device=places.device)[:, None] * (
            rows.ids_BT.shape[1] + 1
        )
        number = texts.flatten()[places].cpu().numpy()
        counts = np.zeros((3, len(kinds)))
        for text in np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1):
            offsets = [(int(i), int(i) + 1) for i in text]
            told, true = (
                set(spans_of([tags[t] for t in what], offsets))
                for what in (likeliest(log_probs[text], tags), labels[text])
            )
            for row, spans in enumerate((told & true, told, true)):
                for *_, kind in spans:
                    counts[row, kinds[kind]] += 1
        return counts.flatten()

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives loss, and accuracy and macro-F1, or F1 of entities."""
        nats, labels, *rest = sums.tolist()
        figures = {"loss": nats / max(labels, 1)}
        if not rest:
            return figures
        right, told, true = np.array(rest).reshape(3, -1)
        there = (told + true) > 0
        each = 2 * right[there] / (told + true)[there]
        micro = 2 * right.sum() / max((told + true).sum(), 1)
        if self._form.task == "tag":
            return figures | {"span_f1": float(micro)}
        macro = {"macro_f1": float(each.mean() if len(each) else 0)}
        if self._form.several:
            return figures | {"micro_f1": float(micro)} | macro
        return figures | {"accuracy": float(right.sum() / max(labels, 1))} | macro


class WritingObjective(TrainLoss):
    """Text that is to be written: the loss of its tokens alone."""

    steering = STEERINGS["loss"]

    def __init__(self, model: Transformer, settings: TrainSettings):
        super().__init__(model, settings)
        # As many tokens as are wanted: of another number in each batch, which compiled code is not.
        self.options.pop("chunk", None)

    def __call__(self, rows: Rows) -> CausalLoss:
        """Gives the summed loss; tokens that are not wanted cost no product of the output layer."""
        with autocast(rows.ids_BT.device, self._precision):
            hidden_BTW = self.model(rows.ids_BT, segments_BT=rows.segments_BT)
            labels = rows.labels_BT.flatten()
            places = (labels != IGNORED).nonzero().squeeze(1)
            return loss_of_stream(
                hidden_BTW.flatten(0, 1)[None, places],
                self.model.output_weight,
                labels[None, places],
                softcap=self.model.config.logit_softcap,
                **self.options,
            )

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives the loss of a token, in nats."""
        nats, tokens = sums.tolist()
        return {"loss": nats / max(tokens, 1)}


def objective_of(
    model: Transformer,
    settings: TrainSettings,
    tune: TuneConfig,
    form: Form,
    counts: Sequence[int],
) -> Objective:
    """Gives the objective of a task; see the classes of this module."""
    if form.task == "reward":
        return RewardObjective(model, settings, tune)
    if form.classes:
        return ClassObjective(model, settings, tune, form, counts)
    if form.task == "prefer":
        return PreferenceObjective(model, settings, tune)
    if form.task == "align":
        return AlignObjective(model, settings)
    return WritingObjective(model, settings)
