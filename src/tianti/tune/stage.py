"""The train stage of a tuning, and its model stage."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tianti.device import choose_device
from tianti.exchange.huggingface import save_transformer
from tianti.exchange.peft import save_adapters
from tianti.files import read_json, write_json
from tianti.model.frozen import thaw
from tianti.model.lora import merge
from tianti.objective.classify import class_weights
from tianti.progress import SILENT, Display
from tianti.tokens.examples import Examples, ExampleStream
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.checkpoint import load_checkpoint
from tianti.train.ranks import ALONE, Ranks
from tianti.train.rows import rows_of
from tianti.train.stage import compiled_if_possible, place
from tianti.train.trainer import BEST, CHECKPOINTS, TrainData, Trainer
from tianti.tune.classifier import of_examples, of_words, states_of
from tianti.tune.config import COPY, GROUP, SHOWN, TASK, TuneConfig
from tianti.tune.derive import TuneStageConfig
from tianti.tune.encode import Encoder, counts_of
from tianti.tune.examples import Example, load_examples
from tianti.tune.form import Form
from tianti.tune.network import Network, build_network, refuse_other_weights, without_memory
from tianti.tune.objectives import objective_of
from tianti.tune.predictor import Predictor
from tianti.tune.preferring import PreferenceObjective
from tianti.tune.prepare import TRAIN, VALIDATION
from tianti.tune.shown import shown_tokens
from tianti.tune.thresholds import offsets_of
from tianti.tune.tokenizing import BESIDE, template_for

VALIDATION_ROWS = 16


def tune(
    config: TuneStageConfig,
    inputs: dict[str, Path],
    out: Path,
    display: Display = SILENT,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Tunes a network; goes on from the last good checkpoint in `out`.

    Args:
        config: network, settings, task.
        inputs: folders of `examples` and `tokenizer`.
        out: where checkpoints and the log go.
        display: shows progress.
        ranks: those that tune it together.

    Returns:
        `steps`, `tokens`, `epochs`, `train_seconds`, `tokens_per_second`, `skipped_steps`,
        `best_step`, `stopped_early`, `device`, `layout`, `compiled` as `tianti.train.stage.train`;
        `steered_by`, the figure that validation steered by, and `validation_…`, its best value;
        `parameters`, and `trained_parameters` of them; `cut`, examples that were too long;
        `unfit_entities`; `filled`, the share of places in rows that hold tokens.

    Raises:
        UserError: an example does not fit, or training fails in a way the user can mend.
        Interrupted: a signal asked to stop; everything done is saved.
    """
    device = choose_device(config.device)
    settings = compiled_if_possible(config.settings, device, display)
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    template = template_for(config.form.task, inputs["tokenizer"], tokenizer)
    encoder = Encoder(config.form, tokenizer, template)
    network = build_network(config, inputs["tokenizer"])
    model = network.model
    begun = None if ranks.alone else without_memory(model)
    if begun is not None:
        refuse_other_weights(begun, ranks)
    place(model, settings, device)
    train, validation = (load_examples(inputs["examples"] / n) for n in (TRAIN, VALIDATION))
    originals = [example for example in train if COPY not in example]
    counts = counts_of(originals, config.form.labels) if config.tune.task == "classify" else []
    weights = _class_weights(config.tune, counts)
    held, kept = encoder.examples(train, weights), encoder.examples(validation)
    encoder.tell_cut(display, len(train) + len(validation))
    if ranks.first:
        write_json(out / SHOWN, shown_tokens(held, config.form, tokenizer))
    shares = _shares(config.tune, train, config.form.labels, counts)
    make = partial(ExampleStream, context=config.form.row, pad=tokenizer.padding)
    objective = objective_of(model, settings, config.tune, config.form, counts)
    draw = partial(
        make,
        rows=settings.batch_rows,
        seed=settings.seed,
        shares=shares,
        families=_families(config.tune, train),
        noise=config.tune.noise,
    )

    def read(held: Examples, kept: Examples) -> TrainData:
        measured = make(kept, rows=VALIDATION_ROWS, seed=0)
        return TrainData(draw(held), measured, most_validation=float("inf"))

    begin = None
    if config.tune.classifier != "random":
        stream = make(held, rows=1, seed=0)
        begin = partial(_begin_classifier, config, network, tokenizer, stream, ranks)
    data = read(held, kept)
    trainer = Trainer(model, settings, data, out, display, begin, ranks, objective, begun)
    # Each rank has its part of it now.
    del begun
    if isinstance(objective, PreferenceObjective) and objective.needs_reference:
        # By the network as it is laid out, before anything is learnt or gone on with.
        known = (
            with_reference(objective, examples, make(examples, rows=1, seed=0), display, ranks)
            for examples in (held, kept)
        )
        trainer.data = data = read(*known)
    trainer.fit()
    # Where some are drawn more often than others it hangs on the draw.
    whole = shares is None and not config.tune.augment
    return _metrics(trainer, device) | {
        "cut": encoder.cut,
        "unfit_entities": encoder.unfit,
        "filled": float(held.lengths.sum() / data.train.epoch_tokens) if whole else None,
    }


@torch.no_grad()
def _begin_classifier(
    config: TuneStageConfig,
    network: Network,
    tokenizer: Tokenizer,
    examples: ExampleStream,
    ranks: Ranks,
) -> None:
    """Fills the classifier with what it begins with; see `tianti.tune.classifier`."""
    assert network.model.classifier is not None
    labels, words = config.form.labels, config.tune.words
    if network.writes is not None:
        assert words is not None
        found = of_words(network.writes, tokenizer, words, labels)
    else:
        found = of_examples(*states_of(network.model, examples), len(labels))
        ranks.settle()
    ranks.fill(network.model, "classifier.weight", found)


def _metrics(trainer: Trainer, device: torch.device) -> dict[str, Any]:
    """Gives what came of a training; see `tune`."""
    state, steering, model = trainer.state, trainer.objective.steering, trainer.model
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "epochs": state.tokens / trainer.data.train.epoch_tokens,
        "train_seconds": state.train_seconds,
        "tokens_per_second": state.tokens / max(state.train_seconds, 1e-9),
        "skipped_steps": state.skipped_steps,
        "best_step": state.best_step,
        "stopped_early": state.stopped,
        "steered_by": steering.name,
        f"validation_{steering.name}": steering.value(state.best_validation),
        "parameters": model.config.num_parameters(),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "device": str(device),
        "layout": dict(trainer.ranks.degrees),
        "compiled": trainer.settings.compile,
    }


def _class_weights(tune: TuneConfig, counts: Sequence[int]) -> list[float] | None:
    if tune.class_weights == "none":
        return None
    return class_weights(counts, tune.class_weights).tolist()


def _shares(
    tune: TuneConfig, examples: list[Example], labels: Sequence[str], counts: Sequence[int]
) -> np.ndarray | None:
    """Gives how often each example is drawn in an epoch, so that an epoch stays as long."""
    if (tune.sampling, tune.group_sampling) == ("natural", "natural"):
        return None
    power = {"natural": 0.0, "root": 0.5, "balanced": 1.0}
    originals = [example for example in examples if COPY not in example]
    shares = np.ones(len(examples))
    if tune.sampling != "natural":
        of_label = dict(zip(labels, counts, strict=True))
        counted = np.array([of_label[example["label"]] for example in examples])
        shares *= counted ** -power[tune.sampling]
    if tune.group_sampling != "natural":
        of_group = Counter(example[GROUP] for example in originals)
        shares *= np.array([of_group[e[GROUP]] ** -power[tune.group_sampling] for e in examples])
    # Of an example and its copies one is drawn: they count once.
    once = np.array([COPY not in example for example in examples])
    return shares * len(originals) / shares[once].sum()


def _families(tune: TuneConfig, examples: list[Example]) -> np.ndarray | None:
    """Gives a number for each example that its changed copies have too; None without any."""
    if not tune.augment:
        return None
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(e.get("place"), len(numbers)) for e in examples])


@torch.no_grad()
def with_reference(
    objective: PreferenceObjective,
    examples: Examples,
    stream: ExampleStream,
    display: Display,
    ranks: Ranks = ALONE,
) -> Examples:
    """Gives pairs with the log-probabilities of both answers by the network as it is now; several
    ranks compute some each."""
    device, count = objective.model.device, stream.rows_per_epoch
    found = np.zeros((len(examples), 2), dtype=np.float32)
    objective.model.eval()
    with display.task("reference", count, "rows") as task:
        for first in range(0, count, ranks.count):
            # Who has none left while others do computes one for nothing.
            number = first + ranks.number
            row = min(number, count - 1)
            answers, _ = objective.answers(rows_of(stream.rows_numbered([row]), device))
            if number < count:
                found[stream.members(row)] = answers.log_probs.view(-1, 2).float().cpu().numpy()
            task.advance(min(ranks.count, count - first))
    ranks.settle()
    objective.model.train()
    found = ranks.total_of_all(torch.from_numpy(found)).numpy()
    # Whether an answer is good, if that is known, is the last of them.
    told = () if examples.targets is None else (examples.targets,)
    return replace(examples, targets=np.concatenate([found, *told], axis=1))


def write_tuned(
    config: TuneStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes the tuned network as a Hugging Face directory; adapters beside it as PEFT has them.

    Args:
        config: network, settings, task.
        inputs: folders of `examples`, `tokenizer` and `train`.
        out: where to.
        display: shows progress.
    """
    best = read_json(inputs["train"] / BEST)["checkpoint"]
    checkpoint = load_checkpoint(inputs["train"] / CHECKPOINTS / best)
    network = build_network(config, inputs["tokenizer"])
    network.load(checkpoint.average or checkpoint.model)
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    if network.adapted:
        save_adapters(network.model, out / "adapter", str(config.base))
    thaw(network.model)
    model = merge(network.model) if network.adapted else network.model
    for path in inputs["tokenizer"].iterdir():
        if path.name in ("tokenizer.json", *BESIDE):
            shutil.copyfile(path, out / path.name)
    ends = tokenizer.ends
    save_transformer(
        model,
        out,
        eos_token_id=ends[0],
        pad_token_id=tokenizer.padding,
        more=_said_of(config.form),
        ends=ends,
    )
    reading = {
        "columns": config.tune.columns,
        "max_tokens": config.tune.max_tokens,
        "beams": config.tune.searched,
    }
    write_json(out / TASK, asdict(config.form) | reading)
    if config.tune.thresholds == "validation":
        examples = load_examples(inputs["examples"] / VALIDATION)
        offsets = _offsets(out, examples, choose_device(config.device), display)
        write_json(out / TASK, asdict(replace(config.form, offsets=offsets)) | reading)
    return {"parameters": model.config.num_parameters(), "step": checkpoint.state.step}


def _offsets(
    folder: Path, examples: list[Example], device: torch.device, display: Display
) -> tuple[float, ...]:
    """Gives what is added to the classes' scores, by examples that nothing was learnt from."""
    predictor = Predictor(folder, device)
    with display.task("thresholds", len(examples), "examples") as task:
        scores = predictor.scores(examples, task.advance).numpy()
    labels, several = predictor.form.labels, predictor.form.several
    right = np.array(
        [
            [(label in e["label"]) if several else label == e["label"] for label in labels]
            for e in examples
        ]
    )
    return tuple(offsets_of(scores, right, several))


def _said_of(form: Form) -> dict[str, Any]:
    """Gives what `config.json` says of classes."""
    if not form.classes:
        return {}
    names = {"tag": form.tags, "classify": form.labels}.get(form.task, ("value",))
    said: dict[str, Any] = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    if form.task == "regress":
        return said | {"problem_type": "regression"}
    if form.task == "classify":
        kind = "multi" if form.several else "single"
        return said | {"problem_type": f"{kind}_label_classification"}
    return said
