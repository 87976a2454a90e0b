"""The stages of a tuning: examples, tokenizer, train, model."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, pre_tokenizers, processors

from tianti.device import choose_device, why_not_compiled
from tianti.errors import UserError
from tianti.exchange.huggingface import save_transformer
from tianti.exchange.peft import save_adapters
from tianti.files import read_json, write_json, write_text
from tianti.messages import tr
from tianti.model.lora import merge
from tianti.progress import SILENT, Display
from tianti.tokens.chat import ChatTemplate
from tianti.tokens.examples import Examples, ExampleStream
from tianti.tokens.tokenizer import END_OF_TEXT, HAN, Tokenizer
from tianti.train.checkpoint import load_checkpoint
from tianti.train.rows import rows_of
from tianti.train.stage import place
from tianti.train.trainer import BEST, CHECKPOINTS, TrainData, Trainer
from tianti.tune.config import (
    SHOWN,
    TOLD,
    ExamplesStageConfig,
    TuneConfig,
    TunedTokenizerConfig,
)
from tianti.tune.derive import TuneStageConfig
from tianti.tune.encode import Encoder, Form, counts_of
from tianti.tune.examples import Example, load_examples, read_examples, write_examples
from tianti.tune.network import build_network
from tianti.tune.objectives import PreferenceObjective, objective_of
from tianti.tune.shown import shown_tokens
from tianti.tune.split import check_labels, few_of_each, labels_of, parted

SPLITS = ("train", "validation", "test")
LABELS, TASK = "labels.json", "task.json"
VALIDATION_ROWS = 16
# What tokenizers of other families say besides `tokenizer.json`.
_BESIDE = (
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json"),
    *("added_tokens.json", "merges.txt", "tokenizer.model"),
)


def prepare_examples(
    config: ExamplesStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Reads, checks and splits examples.

    Args:
        config: files and task.
        inputs: none.
        out: where to: `train.jsonl`, `validation.jsonl` and, if there is one, `test.jsonl`.
        display: shows progress.

    Returns:
        For each split `examples`, `bytes` and, of classes, `labels`; `labels`, the classes in
        order; `repeated`, test examples whose text is among those of training too.

    Raises:
        UserError: an example is wrong, with file and line.
    """
    splits, found = read_splits(config.tune, config.seed, display)
    for name, examples in splits.items():
        write_examples(out / f"{name}.jsonl", examples)
    write_json(out / LABELS, found["labels"])
    if "test" in splits:
        seen = {_text_of(example) for example in splits["train"]}
        found["repeated"] = sum(_text_of(example) in seen for example in splits["test"])
        if found["repeated"]:
            display.say(
                tr(
                    "{count} of {all} test examples are among those of training too",
                    count=found["repeated"],
                    all=len(splits["test"]),
                ),
                "yellow",
            )
    return found


def read_splits(
    tune: TuneConfig, seed: int, display: Display = SILENT
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """Gives the examples of each split, and what is to be said of them; see `prepare_examples`."""
    with display.task("examples", 3, "files") as task:
        splits = {"train": read_examples(tune.train, tune)}
        for name, where in (("validation", tune.validation), ("test", tune.test)):
            task.advance(1)
            if isinstance(where, str | list):
                splits[name] = read_examples(where, tune)
    for name, where in (("test", tune.test), ("validation", tune.validation)):
        if isinstance(where, float):
            splits["train"], splits[name] = parted(splits["train"], where, tune, seed)
    labels = labels_of(splits["train"], tune)
    for examples in splits.values():
        check_labels(examples, labels, tune)
    if tune.examples_per_class:
        splits["train"] = few_of_each(splits["train"], labels, tune.examples_per_class, seed)
    found: dict[str, Any] = {"labels": labels}
    for name, examples in splits.items():
        found[name] = _described(examples, labels, tune)
    return splits, found


def _described(examples: list[Example], labels: list[str], tune: TuneConfig) -> dict[str, Any]:
    sizes = [len(_text_of(example).encode("utf-8", "replace")) for example in examples]
    found: dict[str, Any] = {
        "examples": len(examples),
        "bytes": sum(sizes),
        "longest_bytes": max(sizes),
    }
    if tune.task == "classify":
        found["labels"] = dict(zip(labels, counts_of(examples, labels), strict=True))
    if tune.task == "tag":
        kinds = Counter(kind for example in examples for *_, kind in example["entities"])
        found["labels"] = {label: kinds[label] for label in labels}
    return found


def _text_of(example: Example) -> str:
    if "text" in example:
        return "\n".join((example["text"], example.get("pair", "")))
    said = [*example.get("messages", ()), *example.get("prompt", ())]
    parts = [message["content"] for message in said]
    return "\n".join([*parts, *(example[n] for n in ("chosen", "rejected") if n in example)])


def prepare_tokenizer(
    config: TunedTokenizerConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Takes the base's tokenizer, or learns one from the training examples.

    Args:
        config: base, or entries wanted.
        inputs: folder of `examples`.
        out: where to.
        display: shows progress.

    Returns:
        `vocab_size`; `tokens` of the training examples and `longest` of one.

    Raises:
        UserError: the tokenizer cannot do what the task needs.
    """
    examples = load_examples(inputs["examples"] / "train.jsonl")
    tune, base = config.tune, config.base
    if base is None:
        with display.task("tokenizer", len(examples), "examples") as task:
            tokenizer = Tokenizer.train(
                (_counted(text, task) for text in map(_text_of, examples)),
                config.vocab_size,
                han_alone=tune.task == "tag",
            )
        tokenizer.save(out)
    else:
        tokenizer = Tokenizer.load(base)
        for name in ("tokenizer.json", *_BESIDE):
            if (base / name).is_file():
                shutil.copyfile(base / name, out / name)
    if tune.task in TOLD and tokenizer.inner.post_processor is None and tokenizer.is_own:
        _mark_ends(tokenizer, tune.task)
        write_text(out / "tokenizer.json", tokenizer.inner.to_str(pretty=False))
    template = choose_template(tune, base, tokenizer)
    if template is not None:
        write_text(out / "chat_template.jinja", template.source)
    labels = tuple(read_json(inputs["examples"] / LABELS))
    form = Form(tune.task, 10**6, labels, tune.several)
    encoder = Encoder(form, tokenizer, template)
    lengths = encoder.examples(examples).lengths
    return {
        "vocab_size": tokenizer.vocab_size,
        "tokens": int(lengths.sum()),
        "longest": int(lengths.max()),
        "unfit_entities": encoder.unfit,
    }


def _counted(text: str, task: Any) -> str:
    task.advance(1)
    return text


def _mark_ends(tokenizer: Tokenizer, task: str) -> None:
    """Has a tokenizer of our own put the tokens around texts that a class is told of."""
    begin, middle, end = END_OF_TEXT, "<|im_start|>", "<|im_end|>"
    tokenizer.inner.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {middle} $B {end}",
        special_tokens=[
            (token, tokenizer.inner.token_to_id(token)) for token in (begin, middle, end)
        ],
    )
    if task == "tag":
        # An entity ends between characters that a merge would join.
        inner = tokenizer.inner
        alone = pre_tokenizers.Split(Regex(HAN), behavior="isolated")
        if "Han" not in str(inner.pre_tokenizer):
            inner.pre_tokenizer = pre_tokenizers.Sequence([alone, inner.pre_tokenizer])


def choose_template(
    tune: TuneConfig, base: Path | None, tokenizer: Tokenizer
) -> ChatTemplate | None:
    """Gives the template of a task's conversations; None where it has none.

    Raises:
        UserError: the base has no template and none is named.
    """
    if tune.task in TOLD or tune.task == "lm":
        return None
    special = template_tokens(tokenizer)
    if tune.template is not None:
        return ChatTemplate.built_in(tune.template, special)
    if tokenizer.is_own:
        written = tune.task in ("translate", "summarize", "answer")
        return ChatTemplate.built_in("plain" if written else "chatml", special)
    source = None if base is None else template_of(base)
    if source is None:
        raise UserError(
            tr("the base has no chat template"),
            where=base,
            remedy=tr("Choose one with tune.template"),
        )
    return ChatTemplate(source, special)


def template_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Gives the names of the tokens that templates write."""
    if tokenizer.is_own:
        return {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    return tokenizer.special


def template_of(folder: Path) -> str | None:
    """Gives the chat template of a model directory."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    config = folder / "tokenizer_config.json"
    found = read_json(config).get("chat_template") if config.is_file() else None
    return found if isinstance(found, str) else None


def tune(
    config: TuneStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Tunes a network; goes on from the last good checkpoint in `out`.

    Args:
        config: network, settings, task.
        inputs: folders of `examples` and `tokenizer`.
        out: where checkpoints and the log go.
        display: shows progress.

    Returns:
        As of `tianti.train.stage.train`, with the figures of the best validation, `cut`, the
        examples that were too long, and `filled`, the share of places in rows that hold tokens.

    Raises:
        UserError: an example does not fit, or training fails in a way the user can mend.
        Interrupted: a signal asked to stop; everything done is saved.
    """
    settings, device = config.settings, choose_device(config.device)
    if settings.compile and (reason := why_not_compiled(device)):
        display.say(tr("Training is not compiled: {reason}", reason=reason), "yellow")
        settings = settings.model_copy(update={"compile": False})
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    encoder = Encoder(config.form, tokenizer, _template(inputs["tokenizer"], config, tokenizer))
    network = build_network(config)
    model = network.model
    place(model, settings, device)
    train, validation = (load_examples(inputs["examples"] / f"{n}.jsonl") for n in SPLITS[:2])
    counts = counts_of(train, config.form.labels) if config.tune.task == "classify" else []
    weights = _class_weights(config.tune, counts)
    held, kept = encoder.examples(train, weights), encoder.examples(validation)
    if encoder.cut:
        display.say(
            tr(
                "{count} of {all} examples were longer than {context} tokens, and cut",
                count=encoder.cut,
                all=len(train) + len(validation),
                context=config.form.context,
            ),
            "yellow",
        )
    write_json(out / SHOWN, shown_tokens(held, config.form, tokenizer))
    shares = _shares(config.tune, train, config.form.labels, counts)
    make = _StreamMaker(config, tokenizer)
    objective = objective_of(model, settings, config.tune, config.form, counts)
    if isinstance(objective, PreferenceObjective):
        held, kept = (
            with_reference(objective, examples, make(examples), display)
            for examples in (held, kept)
        )
    data = TrainData(
        make(held, settings.batch_rows, settings.seed, shares, config.tune.noise),
        make(kept),
        most_validation=float("inf"),
    )
    trainer = Trainer(model, settings, data, out, display, objective=objective)
    state = trainer.fit()
    steering = objective.steering
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "epochs": state.tokens / data.train.epoch_tokens,
        "train_seconds": state.train_seconds,
        "tokens_per_second": state.tokens / max(state.train_seconds, 1e-9),
        "skipped_steps": state.skipped_steps,
        "best_step": state.best_step,
        "stopped_early": state.stopped,
        "steered_by": steering.name,
        f"validation_{steering.name}": steering.value(state.best_validation),
        "parameters": config.model.num_parameters(),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "cut": encoder.cut,
        "unfit_entities": encoder.unfit,
        "filled": float(held.lengths.sum() / data.train.epoch_tokens) if shares is None else None,
        "device": str(device),
        "compiled": settings.compile,
    }


class _StreamMaker:
    def __init__(self, config: TuneStageConfig, tokenizer: Tokenizer):
        self._context, self._pad = config.form.row, tokenizer.padding

    def __call__(
        self,
        examples: Examples,
        rows: int = VALIDATION_ROWS,
        seed: int = 0,
        shares: np.ndarray | None = None,
        noise: float = 0.0,
    ) -> ExampleStream:
        return ExampleStream(
            examples,
            context=self._context,
            rows=rows,
            seed=seed,
            pad=self._pad,
            shares=shares,
            noise=noise,
        )


def _template(folder: Path, config: TuneStageConfig, tokenizer: Tokenizer) -> ChatTemplate | None:
    source = template_of(folder)
    if config.tune.task in TOLD or config.tune.task == "lm" or source is None:
        return None
    return ChatTemplate(source, template_tokens(tokenizer))


def _class_weights(tune: TuneConfig, counts: Sequence[int]) -> list[float] | None:
    if tune.class_weights == "none":
        return None
    from tianti.objective.classify import class_weights

    return class_weights(counts, tune.class_weights).tolist()


def _shares(
    tune: TuneConfig, examples: list[Example], labels: Sequence[str], counts: Sequence[int]
) -> np.ndarray | None:
    """Gives how often each example is drawn in an epoch, so that an epoch stays as long."""
    if tune.sampling == "natural":
        return None
    power = {"root": 0.5, "balanced": 1.0}[tune.sampling]
    of_label = {label: count**-power for label, count in zip(labels, counts, strict=True) if count}
    shares = np.array([of_label[example["label"]] for example in examples])
    return shares * len(shares) / shares.sum()


@torch.no_grad()
def with_reference(
    objective: PreferenceObjective, examples: Examples, stream: ExampleStream, display: Display
) -> Examples:
    """Gives pairs with the log-probabilities of both answers by the network as it is now."""
    device = objective.model.device
    found = np.zeros((len(examples), 2), dtype=np.float32)
    objective.model.eval()
    with display.task("reference", stream.rows_per_epoch, "rows") as task:
        for number in range(stream.rows_per_epoch):
            answers, _ = objective.answers(rows_of(stream.rows_numbered([number]), device))
            found[stream.members(number)] = answers.log_probs.view(-1, 2).float().cpu().numpy()
            task.advance(1)
    objective.model.train()
    return replace(examples, targets=found)


def write_tuned(
    config: TuneStageConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes the tuned network as a Hugging Face directory; adapters beside it as PEFT has them.

    Args:
        config: network, settings, task.
        inputs: folders of `tokenizer` and `train`.
        out: where to.
        display: shows progress.
    """
    best = read_json(inputs["train"] / BEST)["checkpoint"]
    checkpoint = load_checkpoint(inputs["train"] / CHECKPOINTS / best)
    network = build_network(config)
    network.load(checkpoint.average or checkpoint.model)
    tokenizer = Tokenizer.load(inputs["tokenizer"])
    if network.adapted:
        save_adapters(network.model, out / "adapter", str(config.base))
    model = merge(network.model) if network.adapted else network.model
    for path in inputs["tokenizer"].iterdir():
        if path.name in ("tokenizer.json", *_BESIDE):
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
    write_json(out / TASK, asdict(config.form) | _reading(config.tune))
    return {"parameters": model.config.num_parameters(), "step": checkpoint.state.step}


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


def _reading(tune: TuneConfig) -> dict[str, Any]:
    return {"columns": tune.columns, "max_tokens": tune.max_tokens}
