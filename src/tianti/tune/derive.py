"""Every open setting of a tuning, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tianti.errors import UserError
from tianti.exchange.config_file import load_config
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.model.settings import ModelConfig
from tianti.train.config import TrainConfig, TrainSettings
from tianti.train.reasons import Reasons
from tianti.tune.config import TOLD, TuneConfig
from tianti.tune.form import Form
from tianti.units import Budget

LONGEST_ROW = 1024
SHORTEST_ROW = 128
BATCH_TOKENS = 2_048
MICRO_BATCH_TOKENS = 8_192
SCRATCH_SIZE = 2_000_000
VALIDATIONS, FEWEST_VALIDATIONS = 20, 4
PATIENCE = 8
VALIDATION_TOKENS = 400_000


@dataclass(frozen=True)
class TuneStageConfig:
    """What the train and the model stage need: nothing left open.

    Args:
        model: the network.
        settings: of training.
        tune: what for.
        form: of the examples.
        base: directory that its weights come from; None for weights drawn.
        device: where it computes.
    """

    model: TransformerConfig
    settings: TrainSettings
    tune: TuneConfig
    form: Form
    base: Path | None
    device: str = "auto"

    def as_dict(self) -> dict[str, Any]:
        """Gives what stands beside network and settings as plain values."""
        return {
            "tune": self.tune.model_dump(mode="json"),
            "form": asdict(self.form),
            "base": None if self.base is None else str(self.base.resolve()),
        }

    @classmethod
    def of(
        cls, said: dict[str, Any], model: TransformerConfig, settings: TrainSettings, device: str
    ) -> TuneStageConfig:
        """Gives the whole from what `as_dict` gave, network, settings and device."""
        base = None if said["base"] is None else Path(said["base"])
        return cls(
            model, settings, TuneConfig(**said["tune"]), Form.read(said["form"]), base, device
        )


@dataclass
class TuneDerivation:
    """What a tuning needs.

    Args:
        model: the network.
        form: of the examples.
        train: the settings of the trainer.
        reasons: `(setting, value, reason)`.
    """

    model: TransformerConfig
    form: Form
    train: TrainSettings
    reasons: list[tuple[str, str, str]] = field(default_factory=list)


def vocabulary_of(train_bytes: int) -> int:
    """Gives the entries of a vocabulary that is learnt from examples."""
    return int(min(8_192, 2 ** max(9, math.floor(math.log2(max(train_bytes, 1) / 100)))))


def derive_tuning(
    tune: TuneConfig,
    base: Path | None,
    model: ModelConfig,
    train: TrainConfig,
    seed: int,
    examples: dict[str, Any],
    tokenizer: dict[str, Any],
) -> TuneDerivation:
    """Gives every open setting.

    Args:
        tune: what for.
        base: directory the weights come from; None for weights drawn.
        model: settings of a network from scratch.
        train: of training.
        seed: of all that is drawn.
        examples: figures of that stage.
        tokenizer: the same.

    Raises:
        UserError: settings that do not fit each other.
    """
    reasons = Reasons()
    given = None if base is None else load_config(base)
    numbers = examples["train"]
    form = Form(
        tune.task,
        0,
        tuple(examples["labels"]),
        tune.several,
        numbers.get("mean", 0.0),
        numbers.get("deviation", 1.0),
        tune.pattern,
    )
    if tune.words is not None:
        _check_words(tune.words, form.labels)
    form = replace(form, context=_context(tune, given, form, tokenizer, reasons))
    config = _network(tune, given, model, form, tokenizer, reasons)
    settings = _settings(tune, base, train, seed, config, form.row, examples, tokenizer, reasons)
    return TuneDerivation(config, form, settings, reasons.rows)


def _check_words(words: Mapping[str, str], labels: Sequence[str]) -> None:
    for label in labels:
        if label not in words:
            raise UserError(
                tr("the class {name!r} is called by no word", name=label), where="tune.words"
            )
    for name in words:
        if name not in labels:
            raise UserError(
                tr("the class {name!r} is none of those of training", name=name),
                where="tune.words",
                remedy=tr("Known: {names}", names=", ".join(labels[:20])),
            )


def _context(
    tune: TuneConfig,
    base: TransformerConfig | None,
    form: Form,
    tokenizer: dict[str, Any],
    reasons: Reasons,
) -> int:
    longest, most = tokenizer["longest"], LONGEST_ROW
    if base is not None:
        # Text that is cut into pieces fills rows of any length.
        most = min(LONGEST_ROW, base.context) if tune.task == "lm" else base.context
    wanted = min(most // form.texts, max(SHORTEST_ROW, -(-longest // 64) * 64))
    reason = tr("the longest text has {tokens} tokens", tokens=longest)
    context = int(reasons.pick("tune.context", tune.context, wanted, reason))
    if base is not None and context * form.texts > base.context:
        raise UserError(
            tr("the base has a context of {tokens} tokens", tokens=base.context),
            where="tune.context",
            remedy=tr("Lower tune.context"),
        )
    return context


def _network(
    tune: TuneConfig,
    base: TransformerConfig | None,
    model: ModelConfig,
    form: Form,
    tokenizer: dict[str, Any],
    reasons: Reasons,
) -> TransformerConfig:
    told = tune.task in TOLD
    why = tr("as the base does") if base is not None else tr("text is written from left to right")
    both = base is not None and not base.causal
    if base is None and told:
        both, why = True, tr("a network from scratch may look both ways")
    usual, asked = ("both" if both else "causal"), tune.attention
    both = reasons.pick("tune.attention", None if asked == "auto" else asked, usual, why) == "both"
    if both and not told:
        raise UserError(
            tr("a network that writes text looks back alone"),
            where="tune.attention" if asked == "both" else "base",
            remedy=tr("Set tune.attention to causal, or take a base that writes"),
        )
    if base is not None and base.classes and (not told or tune.words is not None):
        raise UserError(
            tr("the base tells classes: it has no output layer to write with"),
            where="base",
            remedy=tr("Take the model that it was tuned from"),
        )
    if base is None:
        base = _from_scratch(model, form, tokenizer, reasons)
    if tune.more_tokens:
        base = replace(base, vocab_size=max(base.vocab_size, tokenizer["vocab_size"]))
    if base.vocab_size < tokenizer["vocab_size"]:
        raise UserError(
            tr(
                "the tokenizer has {entries} entries, the network {rows}",
                entries=tokenizer["vocab_size"],
                rows=base.vocab_size,
            ),
            where="base",
            remedy=tr("They are not of one model: take both from one folder"),
        )
    if not told:
        return base
    if set(tune.lora.targets) & {"lm_head"} and tune.method in ("lora", "dora"):
        raise UserError(
            tr("a network that tells classes has no output layer to adapt"),
            where="tune.lora.targets",
            remedy=tr("Take lm_head out: the classifier is learnt in any case"),
        )
    kind = "token" if tune.task == "tag" else "text"
    return replace(
        base,
        classes=form.classes,
        classified=kind,  # type: ignore[arg-type]
        tied_embeddings=True,
        causal=not both,
    )


def _from_scratch(
    model: ModelConfig, form: Form, tokenizer: dict[str, Any], reasons: Reasons
) -> TransformerConfig:
    """Gives a network without a base; where classes are told, its output layer is not there."""
    size = reasons.pick("model.size", model.size, SCRATCH_SIZE, tr("enough for a small task"))
    context = model.context or form.row
    if context < form.row:
        raise UserError(
            tr("a row has {tokens} tokens", tokens=form.row),
            where="model.context",
            remedy=tr("Raise it, or lower tune.context"),
        )
    try:
        built = model.build(
            size=size, vocab_size=tokenizer["vocab_size"], context=context, tied=True
        )
    except ValueError as error:
        raise UserError(str(error), where="model") from error
    return replace(built, tied_embeddings=True) if form.task in TOLD else built


def _settings(
    tune: TuneConfig,
    base: Path | None,
    train: TrainConfig,
    seed: int,
    model: TransformerConfig,
    context: int,
    examples: dict[str, Any],
    tokenizer: dict[str, Any],
    reasons: Reasons,
) -> TrainSettings:
    said = train.model_dump(include=train.model_fields_set)
    total, scratch = tokenizer["tokens"], base is None
    optimizer = reasons.pick(
        "train.optimizer",
        said.get("optimizer"),
        "muon" if scratch else "adamw",
        tr("weights drawn anew") if scratch else tr("weights that are good already"),
    )
    rate = reasons.pick(
        "train.learning_rate",
        train.learning_rate,
        _rate(optimizer, scratch, tune.method, model.width),
        tr("falls with the width"),
    )
    if tune.method == "none":
        # One step that changes nothing, so that it is measured and kept as any other.
        train, rate = train.model_copy(update={"budget": Budget("steps", 1.0)}), 0.0
        said["budget"] = train.budget
    dropout, why = _dropout(tune)
    dropout = reasons.pick("train.dropout", said.get("dropout"), dropout, why)
    batch = reasons.pick(
        "train.batch_tokens",
        train.batch_tokens,
        int(min(BATCH_TOKENS, max(context, total // 16))),
        tr("a sixteenth of the examples, 2,048 at most"),
    )
    rows = max(1, round(batch / context))
    fewest = 200 * rows * context / max(total, 1)
    budget = reasons.pick(
        "train.budget",
        train.budget if "budget" in said else None,
        Budget("epochs", float(math.ceil(min(max(12.0 if scratch else 4.0, fewest), 200)))),
        tr("some passes, and 200 steps at least"),
    )
    steps = _steps(budget, rows * context, total)
    validation = total * examples["validation"]["bytes"] / max(examples["train"]["bytes"], 1)
    derived: dict[str, Any] = {
        "warmup_steps": max(1, min(40, steps // 10)),
        "decay_share": 0.9,
        "output_learning_rate": 1.0,
        # The best weights are kept in any case.
        "early_stopping": PATIENCE,
        "validate_every": _between(steps, rows * context, min(VALIDATION_TOKENS, validation)),
        "validation_tokens": VALIDATION_TOKENS,
        "micro_batch_rows": max(1, min(rows, MICRO_BATCH_TOKENS // context)),
    }
    asked = {name: value for name, value in said.items() if value is not None}
    values = train.model_dump(exclude={"batch_tokens", "start"}) | derived | asked
    return TrainSettings(
        **{name: value for name, value in values.items() if name in TrainSettings.model_fields}
        | {
            "budget": budget,
            "optimizer": optimizer,
            "learning_rate": rate,
            "dropout": dropout,
            "adapter_rate_ratio": tune.lora.rate_ratio,
            "layer_decay": tune.layer_decay,
            "batch_rows": rows,
            "micro_batch_rows": min(values["micro_batch_rows"], rows),
            "compile": train.compile == "on",
            "start": "random",
            "seed": seed,
        }
    )


def _dropout(tune: TuneConfig) -> tuple[float, str]:
    """Gives the share that is dropped, and why."""
    if tune.method in ("lora", "dora") and not tune.r_drop:
        return 0.0, tr("adapters learn little by heart")
    if tune.r_drop:
        return 0.1, tr("two passes are to differ")
    return 0.1, tr("holds off overfitting")


def _steps(budget: Budget, step_tokens: int, total: int) -> int:
    """Gives about how many steps a budget is."""
    if budget.kind == "steps":
        return max(1, int(budget.amount))
    if budget.kind == "seconds":
        return 1000
    tokens = budget.amount * (total if budget.kind == "epochs" else 1)
    return max(1, int(tokens / step_tokens))


def _rate(optimizer: str, scratch: bool, method: str, width: int) -> float:
    """Gives the peak rate: of weights drawn anew as in pretraining; of all weights of a base less,
    and the less the wider it is, from 0.002 at a width of 160 (docs/experiments.md) to what is
    usual at one of thousands."""
    if not scratch and method == "full":
        rate = 0.002 * min(1.0, (160 / width) ** 1.5)
        return float(f"{rate * (3 if optimizer == 'muon' else 1):.2g}")
    base = 0.01 if optimizer == "muon" else 0.002
    if not scratch:
        base = {"head": 0.01}.get(method, 0.003)
    return float(f"{base * (256 / width) ** 0.5:.2g}")


def _between(steps: int, step_tokens: int, measured: float) -> int:
    """Gives the steps between validations: 20 in all, fewer where they would cost a quarter.

    A token costs a third without its way back.

    Args:
        steps: in all.
        step_tokens: of one.
        measured: tokens of one validation.
    """
    affordable = 0.75 * steps * step_tokens / max(measured, 1)
    return max(1, round(steps / max(min(VALIDATIONS, affordable), FEWEST_VALIDATIONS)))
