"""Losses of packed examples beside what transformers finds for each example by itself."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tune.conftest import entities, numbers, pairs, preferred, recipe, reviews, several
from tianti.api import run
from tianti.exchange.huggingface import save_transformer
from tianti.progress import SILENT
from tianti.runs.tuning import tuning_config
from tianti.tokens.examples import IGNORED, ExampleStream
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.rows import rows_of
from tianti.tune.encode import Encoder, counts_of
from tianti.tune.examples import load_examples
from tianti.tune.network import build_network
from tianti.tune.objectives import objective_of
from tianti.tune.stage import _said_of, with_reference
from tianti.tune.tags import likeliest, spans_of
from tianti.tune.tokenizing import template_for

transformers = pytest.importorskip("transformers")


class Prepared:
    """A task up to where training begins, its network disturbed, and the same in transformers."""

    def __init__(self, task, folder, rows, **changes):
        made = recipe(task, folder, rows, **changes)
        done = run(made, folder / "run", display=SILENT, until="tokenizer")
        metrics = {name: done.results[name] for name in ("examples", "tokenizer")}
        self.call, _ = tuning_config("train", made, folder / "run", metrics)
        self.tokenizer = Tokenizer.load(folder / "run" / "tokenizer")
        template = template_for(task, folder / "run" / "tokenizer", self.tokenizer)
        self.examples = load_examples(folder / "run" / "examples" / "validation.jsonl")[:12]
        self.held = Encoder(self.call.form, self.tokenizer, template).examples(self.examples)
        self.network = build_network(self.call).model
        torch.manual_seed(4)
        with torch.no_grad():
            for weight in self.network.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
        self.folder = folder / "model"
        end = self.tokenizer.end_of_text
        named = _said_of(self.call.form)
        save_transformer(self.network, self.folder, eos_token_id=end, pad_token_id=end, more=named)

    def objective(self):
        labels = self.call.form.labels
        counts = counts_of(self.examples, labels) if self.call.tune.task == "classify" else []
        call = self.call
        return objective_of(self.network, call.settings, call.tune, call.form, counts)

    def stream(self, held=None):
        context = self.call.form.row
        return ExampleStream(
            held or self.held, context=context, rows=1, seed=0, pad=self.tokenizer.padding
        )

    def total(self, objective, held=None):
        stream = self.stream(held)
        rows = [stream.rows_numbered([n]) for n in range(stream.rows_per_epoch)]
        return sum(objective(rows_of(row, torch.device("cpu"))).total.item() for row in rows)

    def texts(self):
        """Gives tokens and labels of each text by itself."""
        ends = [0, *self.held.text_ends.tolist()]
        for start, end in itertools.pairwise(ends):
            ids, labels = self.held.ids[start:end], self.held.labels[start:end]
            yield torch.from_numpy(ids)[None], torch.from_numpy(labels)[None]


@torch.no_grad()
def test_a_class(tmp_path):
    prepared = Prepared("classify", tmp_path, reviews)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(prepared.folder)
    expected = sum(
        theirs(ids, labels=labels[:, -1]).loss.item() for ids, labels in prepared.texts()
    )
    assert prepared.total(prepared.objective()) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_tags(tmp_path):
    prepared = Prepared("tag", tmp_path, entities)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(prepared.folder).eval()
    expected = sum(
        theirs(ids, labels=labels).loss.item() * int((labels != IGNORED).sum())
        for ids, labels in prepared.texts()
    )
    assert prepared.total(prepared.objective()) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_validation_of_tags_goes_by_those_that_fit_each_other(tmp_path):
    prepared = Prepared("tag", tmp_path, entities)
    tags = prepared.call.form.tags
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(prepared.folder).eval()
    right = told = true = otherwise = 0
    for ids, labels in prepared.texts():
        there = labels[0] != IGNORED
        scores = theirs(ids).logits[0, there].log_softmax(-1)
        offsets = [(n, n + 1) for n in range(int(there.sum()))]
        path = likeliest(scores.double().numpy(), tags)
        otherwise += path != scores.argmax(-1).tolist()
        said = set(spans_of([tags[n] for n in path], offsets))
        wanted = set(spans_of([tags[n] for n in labels[0, there].tolist()], offsets))
        right, told, true = right + len(said & wanted), told + len(said), true + len(wanted)
    assert otherwise
    objective, stream = prepared.objective(), prepared.stream()
    sums = torch.zeros((), dtype=torch.float64)
    for number in range(stream.rows_per_epoch):
        rows = rows_of(stream.rows_numbered([number]), torch.device("cpu"))
        sums = sums + objective.tally(objective(rows), rows)
    f1 = objective.figures(sums.numpy())["span_f1"]
    assert f1 == pytest.approx(2 * right / (told + true))


@torch.no_grad()
@pytest.mark.parametrize(("task", "rows"), [("regress", numbers), ("classify", several)])
def test_numbers_and_several_classes(tmp_path, task, rows):
    many = {"several": True} if rows is several else {}
    prepared = Prepared(task, tmp_path, rows, **many)
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(prepared.folder)
    expected = 0.0
    for number, (ids, _) in enumerate(prepared.texts()):
        scores, target = auto(ids).logits[0], torch.from_numpy(prepared.held.targets[number])
        if many:
            expected += F.binary_cross_entropy_with_logits(scores, target, reduction="sum").item()
        else:
            expected += F.mse_loss(scores, target).item()
    assert prepared.total(prepared.objective()) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_text_that_is_written(translated, tmp_path):
    prepared = Prepared("translate", tmp_path, pairs, base=str(translated.path))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(prepared.folder)
    expected = 0.0
    for ids, labels in prepared.texts():
        logits = theirs(ids).logits[0]
        expected += F.cross_entropy(logits, labels[0], reduction="sum").item()
    assert prepared.total(prepared.objective()) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_preferences_and_what_they_are_measured_against(translated, tmp_path):
    prepared = Prepared(
        "prefer", tmp_path, preferred, base=str(translated.path), context=32, template="plain"
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(prepared.folder)
    log_probs = []
    for ids, labels in prepared.texts():
        logits = theirs(ids).logits[0]
        log_probs.append(-F.cross_entropy(logits, labels[0], reduction="sum").item())
    objective = prepared.objective()
    found = with_reference(objective, prepared.held, prepared.stream(), SILENT)
    expected = np.array(log_probs).reshape(-1, 2)
    np.testing.assert_allclose(found.targets, expected, rtol=1e-4)
    # With another reference than itself.
    shifted = found.targets + np.array([[-0.5, 0.7]], dtype=np.float32)
    better, worse = (expected - shifted).T
    loss = -np.log(1 / (1 + np.exp(-0.1 * (better - worse)))).sum()
    total = prepared.total(objective, replace(found, targets=shifted))
    assert total == pytest.approx(loss, rel=1e-4)
