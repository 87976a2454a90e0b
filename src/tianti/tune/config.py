"""Settings of tuning."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tianti.corpus.config import Augmentation, expand_variables
from tianti.errors import UserError
from tianti.messages import tr
from tianti.units import Count

TaskName = Literal[
    "classify",
    "tag",
    "regress",
    "instruct",
    "translate",
    "summarize",
    "answer",
    "prefer",
    "reward",
    "align",
    "lm",
]
# Those that tell classes or numbers instead of writing text.
TOLD = ("classify", "tag", "regress", "reward")
# Those whose texts are read as they are: no conversation is written for them.
READ = ("classify", "tag", "regress", "align", "lm")
# Columns that each task reads, and what they are called where nothing is said.
COLUMNS: dict[str, dict[str, str]] = {
    "classify": {"text": "text", "label": "label"},
    "regress": {"text": "text", "label": "label"},
    "tag": {"text": "text", "entities": "entities"},
    "instruct": {},
    "translate": {"source": "source", "target": "target"},
    "summarize": {"text": "text", "summary": "summary"},
    "answer": {"context": "context", "question": "question", "answer": "answer"},
    "prefer": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    "reward": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    "align": {"source": "source", "target": "target"},
    "lm": {"text": "text"},
}
# The column of what examples are of, such as their language: figures are told of each.
GROUP = "group"
OPTIONAL: dict[str, tuple[str, ...]] = {
    "classify": ("pair", GROUP),
    "regress": ("pair", GROUP),
    "tag": ("tokens", "tags", GROUP),
    "translate": (GROUP,),
    "summarize": (GROUP,),
    "answer": (GROUP,),
    "align": (GROUP,),
    "instruct": (
        *("messages", "conversations", "system", "instruction", "input", "output", "history"),
        *("prompt", "completion", GROUP),
    ),
    "prefer": ("messages", "conversations", "system", "completion", "label"),
    "reward": ("messages", "conversations", "system"),
}
# What an example that is a changed copy of another says: the kind of change.
COPY = "augmented"
# What stages leave for the report: predictions on the test, and examples as tokens.
PREDICTIONS, SHOWN = "predictions.jsonl", "tokens.json"
# What the tokenizer stage says of further tokens: the first one's number, and their pieces.
FURTHER = "further.json"
# What a model says of the task it was tuned for, beside its weights.
TASK = "task.json"

Files = str | Annotated[list[str], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


# Settings that change nothing, or something else, for other tasks.
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "class_weights": ("classify",),
    "adjusted": ("classify",),
    "sampling": ("classify",),
    "examples_per_class": ("classify",),
    "focus": ("classify", "tag"),
    "r_drop": ("classify", "tag"),
    "contrast": ("classify",),
    "pattern": ("classify", "classify, several", "regress"),
    "words": ("classify",),
    "start": ("classify",),
    "augment": ("classify", "classify, several", "regress"),
    "noise": ("classify", "classify, several", "tag", "regress"),
    "labels": ("classify", "classify, several", "tag"),
    "thresholds": ("classify", "classify, several"),
    "preference": ("prefer",),
    "beta": ("prefer",),
}
_STEERED: dict[str, tuple[str, ...]] = {
    "classify": ("loss", "accuracy", "macro_f1"),
    "classify, several": ("loss", "micro_f1", "macro_f1"),
    "tag": ("loss", "span_f1"),
    "prefer": ("loss", "accuracy"),
    "reward": ("loss", "accuracy"),
}


def local_path(name: str) -> str:
    """Gives a path with variables filled in; a URL as it is.

    Raises:
        UserError: a variable is not set.
    """
    try:
        filled = expand_variables(name)
    except ValueError as error:
        raise UserError(str(error), where=name) from error
    return filled if "://" in filled else str(Path(filled).expanduser())


class LoraSettings(BaseModel):
    """Adapters of low rank beside frozen products."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = Field(16, ge=1, description="Inner width of an adapter.")
    alpha: float = Field(32.0, gt=0, description="What is learnt is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of an adapter's inputs dropped.")
    targets: list[str] = Field(
        default_factory=lambda: ["all-linear"],
        description="Products that get one, by Hugging Face's names; all-linear for all in layers.",
    )
    rank_stabilized: bool = Field(False, description="Scale by alpha / √rank (rsLoRA).")
    start: Literal["zero", "singular"] = Field(
        "zero", description="zero: nothing is added at first; singular: PiSSA."
    )
    rate_ratio: float = Field(
        1.0, gt=0, description="Learning rate of the second factor over that of the first (LoRA+)."
    )


class TuneConfig(BaseModel):
    """What a network is adapted to; columns and labels that are not said are found."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    task: TaskName = Field(description="What it is to do.")
    train: Files = Field(
        description="File of examples, or several: JSONL, CSV, TSV or Parquet; packed or not."
    )
    validation: Files | Share = Field(0.1, description="The same to steer by, or a share of train.")
    test: Files | Share | None = Field(
        None, description="The same that judges once, or a share of train."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="What the columns are called, such as {label: intent}."
    )
    method: Literal["full", "lora", "dora", "head", "none"] = Field(
        "full",
        description="All weights, adapters, the classifier alone, or nothing beyond what it begins"
        " with.",
    )
    quantize: Literal["none", "int8", "nf4"] = Field(
        "none", description="How weights that adapters stand beside are held: in 32, 8 or 4 bits."
    )
    lora: LoraSettings = Field(default_factory=LoraSettings, description="Adapters, if any.")
    labels: list[str] | None = Field(
        None, description="The classes; those of the training examples when not given."
    )
    several: bool = Field(False, description="Any number of classes may be right.")
    attention: Literal["auto", "causal", "both"] = Field(
        "auto",
        description="Tokens look back alone, or both ways; auto: both where classes are told by a"
        " network from scratch.",
    )
    template: str | None = Field(
        None,
        description="How conversations are written: plain, chatml, llama3, mistral, gemma, alpaca,"
        " vicuna; the base's own when not given.",
    )
    context: Count | None = Field(
        None, gt=7, description="Most tokens of a text; longer ones are cut and counted."
    )
    noise: float = Field(
        0.0, ge=0, lt=1, description="Share of the tokens of training texts that are hidden."
    )
    augment: list[Augmentation] | None = Field(
        None,
        description="Changed copies of training texts, as of corpus.augment; each pass draws a text"
        " or one of its copies.",
    )
    r_drop: float = Field(
        0.0,
        ge=0,
        description="Weight of the distance between two passes with other dropout (R-Drop).",
    )
    contrast: float = Field(
        0.0,
        ge=0,
        description="Weight of the contrast between texts of one class and those of others.",
    )
    pattern: str | None = Field(
        None,
        description="How a text is put to a network that foretells text, such as"
        " '{text} It was'; {pair} is the second one.",
    )
    words: dict[str, str] | None = Field(
        None,
        description="What each class is called, such as {pos: ' great'}: the classifier begins with"
        " the output layer's weights for it.",
    )
    start: Literal["auto", "random", "words", "examples"] = Field(
        "auto",
        description="What the classifier begins with: nothing, words, or the means of each class's"
        " examples; auto: words where there are any.",
    )
    more_tokens: Count | None = Field(
        None,
        gt=0,
        description="Further tokens that the base's tokenizer gets, learnt from the training texts,"
        " such as Chinese ones for an English base.",
    )
    frozen_layers: Annotated[int, Field(ge=0)] = Field(
        0, description="So many of the lowest layers, and the embedding, stay as they are."
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of a layer over that of the one above it.",
    )
    class_weights: Literal["none", "inverse", "effective"] = Field(
        "none", description="Rare classes count more in the loss."
    )
    focus: float = Field(0.0, ge=0, description="The focal loss's γ; 2 is usual.")
    adjusted: bool | Annotated[float, Field(ge=0, le=4)] = Field(
        False,
        description="Logits are adjusted by the classes' shares: all the way (true), or less, such"
        " as 0.5.",
    )
    sampling: Literal["natural", "root", "balanced"] = Field(
        "natural", description="Rare classes are drawn more often: by the root of shares, or alike."
    )
    group_sampling: Literal["natural", "root", "balanced"] = Field(
        "natural", description="The same for rare groups, such as languages (columns: group)."
    )
    thresholds: Literal["none", "validation"] = Field(
        "none",
        description="What a class needs to be told: the most likely, or by F1 on the validation"
        " examples.",
    )
    steer: Literal["auto", "loss", "accuracy", "macro_f1", "micro_f1", "span_f1"] = Field(
        "auto", description="Figure that validation steers by."
    )
    examples_per_class: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Take so many training examples of each class, by the seed."
    )
    preference: Literal["dpo", "ipo", "simpo", "orpo", "kto"] = Field(
        "dpo", description="Objective of preferences; kto: of single answers, good or bad."
    )
    beta: float | None = Field(
        None, gt=0, description="How dear it is to leave the base (prefer): 0.1; of simpo 2."
    )
    test_examples: Count | None = Field(
        None, gt=0, description="Most test examples that text is written for; all when not given."
    )
    max_tokens: Count = Field(256, gt=0, description="Most tokens written for an example.")
    beams: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None,
        description="Beginnings that beam search goes on with; 1 takes the likeliest token each"
        " time. 4 for translations when not given, 1 otherwise.",
    )

    @model_validator(mode="after")
    def _is_of_the_task(self) -> TuneConfig:
        kind = f"{self.task}, several" if self.several else self.task
        for name, tasks in _ONLY_FOR.items():
            value, usual = getattr(self, name), type(self).model_fields[name].default
            if value != usual and kind not in tasks:
                raise ValueError(
                    tr("{name} is for {tasks}", name=name, tasks=", ".join(tasks) or "–")
                )
        steered = _STEERED.get(kind, ("loss",))
        if self.task == "prefer" and self.preference == "kto":
            steered = ("loss",)
        if self.steer not in ("auto", *steered):
            raise ValueError(
                tr("{task} is steered by {names}", task=kind, names=", ".join(steered))
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> TuneConfig:
        known = {*COLUMNS[self.task], *OPTIONAL.get(self.task, ())}
        if unknown := sorted(set(self.columns) - known):
            raise ValueError(
                tr(
                    "{task} has no column {name}; known: {known}",
                    task=self.task,
                    name=", ".join(unknown),
                    known=", ".join(sorted(known)),
                )
            )
        if self.group_sampling != "natural" and GROUP not in self.columns:
            raise ValueError(tr("group_sampling needs columns.group"))
        if any(step.late for step in self.augment or ()):
            raise ValueError(tr("late is for corpus.augment"))
        if self.several and self.task != "classify":
            raise ValueError(tr("several is for classify alone"))
        if self.method == "head" and self.task not in TOLD:
            raise ValueError(tr("method: head needs a task that tells classes or numbers"))
        if self.more_tokens and (self.method != "full" or self.frozen_layers):
            raise ValueError(
                tr("more_tokens needs method: full, which learns them, without frozen_layers")
            )
        if self.quantize != "none" and self.method not in ("lora", "dora"):
            raise ValueError(tr("quantize is for weights that are frozen: method lora or dora"))
        if self.method == "none" and self.classifier not in ("words", "examples"):
            raise ValueError(tr("method: none needs start: words or examples"))
        if self.start == "words" and self.words is None:
            raise ValueError(tr("start: words needs tune.words"))
        if self.method != "full" and (self.frozen_layers or self.layer_decay != 1):
            raise ValueError(tr("frozen_layers and layer_decay are for method: full"))
        return self

    @model_validator(mode="after")
    def _has_a_pattern(self) -> TuneConfig:
        if self.pattern is None:
            if self.words is not None:
                raise ValueError(tr("words needs a pattern that they follow"))
            return self
        try:
            names = [name for _, name, *_ in string.Formatter().parse(self.pattern)]
            self.pattern.format(text="", pair="")
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(
                tr(
                    "the pattern cannot be filled ({reason}): {{text}} and {{pair}} stand for"
                    " texts, {{{{ for a brace",
                    reason=error,
                )
            ) from None
        if names.count("text") != 1:
            raise ValueError(tr("the pattern has {{text}} once"))
        return self

    def files(self, where: str | list[str]) -> list[str]:
        """Gives the paths that are named, with variables filled in."""
        named = [where] if isinstance(where, str) else where
        return [local_path(name) for name in named]

    @property
    def classifier(self) -> str:
        """Gives what the classifier begins with."""
        if self.start != "auto":
            return self.start
        return "random" if self.words is None else "words"

    @property
    def searched(self) -> int:
        """Gives the beginnings that a search for text goes on with."""
        return self.beams or (4 if self.task == "translate" else 1)

    def column(self, name: str) -> str:
        """Gives what a column is called in the files."""
        return self.columns.get(name, COLUMNS[self.task].get(name, name))


@dataclass(frozen=True)
class ExamplesStageConfig:
    """What the examples stage needs."""

    tune: TuneConfig
    seed: int


@dataclass(frozen=True)
class JudgeStageConfig:
    """What the evaluate stage needs."""

    tune: TuneConfig
    device: str = "auto"


@dataclass(frozen=True)
class TunedTokenizerConfig:
    """What the tokenizer stage of a tuning needs.

    Args:
        tune: what for.
        base: directory that it comes from; None to learn one.
        vocab_size: entries of one that is learnt.
    """

    tune: TuneConfig
    base: Path | None
    vocab_size: int
