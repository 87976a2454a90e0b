"""What a task file says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tianti.messages import tr

Normalise = Literal["sum", "token", "byte", "unconditional"]
TextMetric = Literal[
    "bleu", "chrf", "rouge", "exact_match", "f1", "distinct", "repetition", "compression_ratio"
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FewShot(_Strict):
    """Solved examples that stand before each item."""

    k: int = Field(0, ge=0, le=64, description="Examples before an item.")
    data: str | None = Field(None, description="File they are taken from; not the test file.")
    where: dict[str, Any] = Field(default_factory=dict, description="Fields they must have.")
    choose: Literal["random", "first", "similar"] = Field(
        "random",
        description="Drawn for each item, the first ones for all, or the likest (BM25).",
    )
    seed: int = Field(0, ge=0, description="Of the draws.")
    separator: str = Field("\n\n", description="Stands after each example.")


class _Task(_Strict):
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Names its results' folder."
    )
    language: str = Field(
        "en",
        pattern="^[a-z]{2,3}$",
        description="ISO 639 code, such as en or zh: decides how answers are judged.",
    )
    description: str = Field("", description="What it measures.")
    data: str = Field(description="JSONL, CSV, TSV or Parquet; beside the task file or in --data.")
    where: dict[str, Any] = Field(default_factory=dict, description="Fields an item must have.")
    limit: int | None = Field(None, gt=0, description="Items taken, evenly over the file.")
    group: str | None = Field(None, description="Field by which figures are shown apart too.")
    few_shot: FewShot = Field(default_factory=FewShot, description="Examples before each item.")
    published: dict[str, float] = Field(
        default_factory=dict, description="Figures of others, shown beside."
    )


class Perplexity(_Task):
    """Bits per byte and perplexity of texts, every token scored once."""

    kind: Literal["perplexity"]
    text: str = Field("{{ text }}", description="Template of the text.")
    documents: str | None = Field(
        None, description="Regular expression of the line that begins a document, in plain text."
    )

    @model_validator(mode="after")
    def _no_examples(self) -> Perplexity:
        if self.few_shot.k:
            raise ValueError(tr("a text is measured as it is: there are no examples before it"))
        return self


class Choice(_Task):
    """The likeliest of several continuations."""

    kind: Literal["choice"]
    context: str = Field(
        "", description="Template of what stands before; may hold the choice as {{ choice }}."
    )
    choices: str | list[str] = Field(
        "choices", description="Field that holds the list, or a template for each choice."
    )
    continuation: str = Field(
        " {{ choice }}", description="Template of a choice as it goes on from the context."
    )
    answer: str = Field("{{ answer }}", description="Template of the right one's number, from 0.")
    normalise: Normalise = Field(
        "byte", description="Which likelihood decides: its sum, by token, by byte, or less its own."
    )


class MinimalPair(_Task):
    """The likelier of two sentences."""

    kind: Literal["minimal_pair"]
    good: str = Field("{{ good }}", description="Template of the right one.")
    bad: str = Field("{{ bad }}", description="Template of the wrong one.")
    normalise: Normalise = Field("sum", description="Which likelihood decides.")


class Cloze(_Task):
    """The rest of a text, word for word."""

    kind: Literal["cloze"]
    context: str = Field("{{ context }}", description="Template of what is given.")
    target: str = Field("{{ target }}", description="Template of what must follow.")


class Classify(_Task):
    """The likeliest name of a class."""

    kind: Literal["classify"]
    context: str = Field(description="Template that ends where the class is named.")
    labels: dict[str, str] = Field(description="For each value of `gold` the words that name it.")
    gold: str = Field("{{ label }}", description="Template of the true class.")
    continuation: str = Field(" {{ label }}", description="Template of a class's words.")
    normalise: Normalise = Field("byte", description="Which likelihood decides.")

    @field_validator("labels", mode="before")
    @classmethod
    def _values_as_texts(cls, labels: Any) -> Any:
        """Takes `0: bad` as YAML reads it, a number, for the text that a template gives."""
        if isinstance(labels, dict):
            return {str(k) if type(k) is int else k: name for k, name in labels.items()}
        return labels

    @model_validator(mode="after")
    def _two_classes(self) -> Classify:
        if len(self.labels) < 2:
            raise ValueError(tr("a classification needs two classes"))
        return self


class Generate(_Task):
    """A text of the model's own: translation, summary, answer, or free."""

    kind: Literal["generate"]
    prompt: str = Field(description="Template of what the model goes on from.")
    references: str | list[str] = Field(
        default_factory=list, description="Field that holds them, or templates."
    )
    metrics: list[TextMetric] = Field(min_length=1, description="How texts are judged.")
    tokenize: Literal["auto", "13a", "zh", "char", "intl"] = Field(
        "auto", description="sacrebleu's tokenizer."
    )
    stem: bool = Field(False, description="ROUGE over stems of English words.")
    max_tokens: int = Field(64, gt=0, description="Most new tokens.")
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=lambda: ["\n"], description="Texts that end it."
    )
    temperature: float = Field(0.0, ge=0, description="0 takes the likeliest token.")
    seed: int = Field(0, ge=0, description="Of the draws.")

    @model_validator(mode="after")
    def _references_where_they_are_needed(self) -> Generate:
        compared = {"bleu", "chrf", "rouge", "exact_match", "f1"} & set(self.metrics)
        if compared and not self.references:
            raise ValueError(tr("{metrics} need references", metrics=", ".join(sorted(compared))))
        return self


Task = Annotated[
    Perplexity | Choice | MinimalPair | Cloze | Classify | Generate, Field(discriminator="kind")
]
