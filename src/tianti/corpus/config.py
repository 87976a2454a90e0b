"""Settings of the corpus."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from tianti.corpus.rules import RULE_NAMES
from tianti.messages import tr
from tianti.units import Count

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
SplitName = Literal["train", "validation", "test"]
Format = Literal[
    "text", "jsonl", "csv", "parquet", "html", "warc", "epub", "pdf", "code", "archive"
]


def expand_variables(text: str) -> str:
    """Fills in `${NAME}` and `${NAME:-default}` from the environment.

    Raises:
        ValueError: a variable without default is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], match[2])
        if found is None:
            raise ValueError(tr("the environment variable {name} is not set", name=match[1]))
        return found

    return _VARIABLE.sub(value, text)


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(tr("not a regular expression: {error}", error=error)) from None
    return text


_OURS = {"id", "text", "source", "origin", "split", "label", "language", "meta", "augmented"}
_OURS |= {"bytes", "chars", "visible", "cjk_bytes", "quality", "bits_per_byte", "contaminated"}


class Source(BaseModel):
    """Where text comes from: a path or something built in."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    path: str | None = Field(
        None, description="A file, a folder or a glob; `${VAR:-default}` is filled in."
    )
    name: str | None = Field(
        None, description="What it is called in tables and weights; its path when not given."
    )
    builtin: Literal["python-docs"] | None = Field(
        None, description="Text every Python carries: its documentation."
    )
    format: Format | None = Field(
        None, description="How to read the files; told by their names when not given."
    )
    text: str = Field(
        "text", description="The field or column that holds the text (JSONL, CSV, Parquet)."
    )
    parallel: Annotated[list[str], Field(min_length=2)] | None = Field(
        None,
        description="Fields that say the same in other languages: a document holds them all, a"
        " line each, in an order that changes from one record to the next.",
    )
    label: str | None = Field(
        None, description="The field that holds a class; balance.by: label goes by it."
    )
    carry: list[str] | None = Field(
        None,
        description="Parquet columns that are kept beside the text (images, sound); columns named"
        " image, images, audio or video when not given.",
    )
    licences: list[str] | None = Field(
        None,
        description="Of source code, only files whose repository or header names one of these"
        " licences (SPDX names such as MIT).",
    )
    split: SplitName | None = Field(
        None,
        description="The split this source is, where the data has its own; a held-out split that"
        " no source is comes out of train.",
    )
    separator: Annotated[str, AfterValidator(_is_pattern)] | None = Field(
        None, description="A regular expression: a text file is several documents cut before it."
    )

    @model_validator(mode="after")
    def _one_of_path_and_builtin(self) -> Source:
        if (self.path is None) == (self.builtin is None):
            raise ValueError(tr("give either path or builtin"))
        if self.parallel is not None and self.text != "text":
            raise ValueError(tr("give either text or parallel"))
        return self

    @property
    def text_fields(self) -> list[str]:
        """Gives the fields that text comes from."""
        return self.parallel or [self.text]

    @field_validator("carry")
    @classmethod
    def _carried_are_not_ours(cls, value: list[str] | None) -> list[str] | None:
        if clash := sorted(_OURS.intersection(value or [])):
            raise ValueError(tr("columns of this name are written already: {names}", names=clash))
        return value

    @property
    def title(self) -> str:
        """The source in tables and weights."""
        return self.name or self.builtin or self.path or ""

    @property
    def is_remote(self) -> bool:
        """Whether the path is a URL that fsspec opens, not a file of this machine."""
        return self.path is not None and "://" in self.path

    def expanded_path(self) -> Path:
        """Gives the path with variables and `~` filled in."""
        return Path(expand_variables(self.path or "")).expanduser()


class Step(BaseModel):
    """Settings of one step; an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CleanConfig(Step):
    """What is done to every text before anything is counted."""

    normalize: Literal["NFC", "NFKC", "none"] = Field("NFC", description="Unicode normalisation.")
    repair_encoding: bool = Field(
        True, description="Mend UTF-8 that was once read as Latin-1 or Windows-1252 (donâ€™t)."
    )
    html: Literal["fast", "quality"] = Field(
        "fast",
        description="Main text of web pages by resiliparse (fast) or trafilatura (quality).",
    )
    boilerplate_lines: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Lines that stand in this many documents of one source are taken out of all.",
    )
    c4_lines: bool = Field(
        False,
        description="Only lines that end in a full stop, with three words or more (C4's rules).",
    )
    chinese: Literal["keep", "simplified", "traditional"] = Field(
        "keep", description="Convert Chinese characters to one script (OpenCC)."
    )


class LanguageConfig(Step):
    """Which languages stay."""

    detect: bool = Field(False, description="Name the language of every document.")
    keep: list[str] | None = Field(None, description="Only these, such as [en, zh].")

    @field_validator("keep")
    @classmethod
    def _codes_are_known(cls, value: list[str] | None) -> list[str] | None:
        if value:
            from tianti.corpus.language import language_codes

            known = language_codes()
            if unknown := [code for code in value if code not in known]:
                raise ValueError(
                    tr(
                        "no code of a language that can be told: {names} (known: {known})",
                        names=", ".join(unknown),
                        known=" ".join(sorted(known)),
                    )
                )
        return value

    @property
    def wanted(self) -> bool:
        """Whether languages are to be told."""
        return self.detect or self.keep is not None


FilterName = Literal["gopher_quality", "gopher_repetition", "c4", "fineweb", "chinese"]


class ClassifierConfig(Step):
    """A quality classifier trained from two samples of text."""

    good: str = Field(description="File or folder of text that is wanted more of.")
    bad: str = Field(description="File or folder of text that is not.")
    minimum: float = Field(0.5, ge=0, le=1, description="Documents below are dropped.")


class PerplexityConfig(Step):
    """Keeps what a model of n-grams finds likely, and not too likely."""

    reference: str = Field(description="File or folder of text the model is made from.")
    maximum: float | None = Field(None, gt=0, description="Bits per byte above are dropped.")
    minimum: float | None = Field(None, ge=0, description="Bits per byte below are dropped.")


class QualityConfig(Step):
    """What a document must be like to stay."""

    filters: list[FilterName] = Field(
        default_factory=list, description="Rules with their published thresholds."
    )
    thresholds: dict[str, float | None] = Field(
        default_factory=dict,
        description="Other thresholds, by name (docs/corpus.md lists them); null switches one off.",
    )
    classifier: ClassifierConfig | None = Field(None, description="Learned quality.")
    perplexity: PerplexityConfig | None = Field(None, description="Likelihood under n-grams.")

    @field_validator("thresholds")
    @classmethod
    def _rules_are_known(cls, value: dict[str, float | None]) -> dict[str, float | None]:
        if unknown := [name for name in value if name not in RULE_NAMES]:
            raise ValueError(
                tr(
                    "there is no rule {names} (rules: {known})",
                    names=", ".join(unknown),
                    known=", ".join(sorted(RULE_NAMES)),
                )
            )
        return value

    def measured(self) -> QualityConfig:
        """The settings that decide what is measured: thresholds are not among them."""
        learned, likely = self.classifier, self.perplexity
        return QualityConfig(
            filters=["gopher_quality"] if self.filters else [],
            classifier=learned and ClassifierConfig(good=learned.good, bad=learned.bad),
            perplexity=likely and PerplexityConfig(reference=likely.reference),
        )


class DedupConfig(Step):
    """What counts as seen before."""

    exact: bool = Field(True, description="Drop documents whose text was seen before.")
    near: bool | Literal["group"] = Field(
        True,
        description="Drop near-duplicates (MinHash); group keeps them, all in one split.",
    )
    similarity: float = Field(
        0.8,
        ge=0.3,
        le=0.99,
        description="Pairs that share this much of their n-grams (Jaccard) are found with 99 %.",
    )
    ngram: int = Field(5, ge=1, le=50, description="Words to an n-gram; a 汉字 is a word.")
    keep: Literal["longest", "first"] = Field("longest", description="Which of a cluster stays.")
    lines: Annotated[int, Field(ge=2)] | None = Field(
        None, description="A line seen in this many documents stays in the first only."
    )
    embeddings: str | None = Field(
        None, description="Parquet column of vectors: drop documents that mean the same."
    )
    embedding_similarity: float = Field(0.95, gt=0, le=1, description="Cosine above is the same.")

    def measured(self) -> DedupConfig:
        """The settings that decide what is measured, the others at their defaults."""
        return DedupConfig(
            near=self.near is not False,
            ngram=self.ngram,
            lines=self.lines,
            embeddings=self.embeddings,
        )


PrivateKind = Literal["email", "phone", "ip", "id_card", "bank_card", "secret", "url_credentials"]


class PrivacyConfig(Step):
    """What must not be learned about people."""

    redact: list[PrivateKind] = Field(
        default_factory=list, description="Replaced by a tag of its kind."
    )


class DecontaminateConfig(Step):
    """Keeps evaluation text out of training."""

    against: list[Source] = Field(
        default_factory=list, description="Evaluation sets: documents that share text go."
    )
    words: int = Field(13, ge=3, description="Words in a row that count as shared.")
    characters: int = Field(20, ge=5, description="Chinese characters in a row that do.")
    action: Literal["drop", "report"] = Field("drop", description="Drop, or only list.")

    def measured(self) -> DecontaminateConfig:
        """The settings that decide what is measured."""
        return self.model_copy(update={"action": "drop"})


NoiseKind = Literal[
    "keyboard",
    "delete",
    "swap",
    "homophone",
    "lookalike",
    "ocr",
    "asr",
    "punctuation",
    "synonym",
    "random_insert",
    "random_swap",
    "random_delete",
    "sentence_shuffle",
    "span_mask",
    "paraphrase",
    "back_translate",
]


class Augmentation(Step):
    """Makes changed copies of training documents."""

    kind: NoiseKind = Field(description="What is done.")
    rate: float = Field(0.05, gt=0, le=1, description="Share of places that change.")
    share: float = Field(0.1, gt=0, le=1, description="Share of documents that get a copy.")
    seed: int = Field(0, description="Another seed, other documents and changes.")
    languages: list[str] | None = Field(None, description="Only documents in these.")
    synonyms: str | None = Field(
        None, description="A table of synonyms or a WordNet folder; a short list when not given."
    )
    model: str | None = Field(None, description="Model folder, for paraphrase.")
    there: str | None = Field(None, description="Model into another language.")
    back: str | None = Field(None, description="Model back again.")
    prompt: str = Field(
        "{text}\n",
        description="What a model goes on from; {text} is a sentence, a line the answer.",
    )
    back_prompt: str | None = Field(None, description="The same for the way back.")
    late: bool = Field(
        False, description="Rising: none at the start of training, twice the share at its end."
    )

    @model_validator(mode="after")
    def _models_are_named(self) -> Augmentation:
        if self.kind == "paraphrase" and self.model is None:
            raise ValueError(tr("paraphrase needs a model"))
        if self.kind == "back_translate" and (self.there is None or self.back is None):
            raise ValueError(tr("back_translate needs two models, there and back"))
        return self


class RareConfig(Step):
    """Repeats documents that hold what is rare."""

    by: Literal["token", "shape"] = Field("token", description="Rare words, or sentence shapes.")
    share: float = Field(0.1, gt=0, le=1, description="The rarest share of documents …")
    epochs: float = Field(2.0, gt=1, description="… comes this many times.")


class BalanceConfig(Step):
    """How often documents of each kind come."""

    by: Literal["source", "language", "label"] = Field("source", description="Kinds.")
    weights: dict[str, float] | None = Field(
        None, description="Share of tokens of each kind; they are made to sum to one."
    )
    temperature: float | None = Field(
        None,
        ge=0.1,
        le=1000,
        description="Shares in proportion to size^(1/temperature); 1 changes nothing.",
    )
    max_epochs: Annotated[float, Field(ge=1)] | dict[str, Annotated[float, Field(ge=1)]] = Field(
        4.0, description="No document comes more often than this; one number, or one for each kind."
    )
    rare: RareConfig | None = Field(None, description="More of what is rare.")

    @property
    def wanted(self) -> bool:
        """Whether any document is to come other than once."""
        return (self.weights, self.temperature, self.rare) != (None, None, None)


class PrepareConfig(Step):
    """What decides the documents before any is dropped: the part that is costly to redo."""

    sources: list[Source]
    clean: CleanConfig
    languages: LanguageConfig
    quality: QualityConfig
    dedup: DedupConfig
    privacy: PrivacyConfig
    decontaminate: DecontaminateConfig


class CorpusConfig(BaseModel):
    """What the documents are and how they are prepared."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sources: list[Source] = Field(min_length=1, description="Where the text comes from.")
    min_chars: Count = Field(1, description="Shorter documents are dropped.")
    clean: CleanConfig = Field(default_factory=CleanConfig, description="Mending of every text.")
    languages: LanguageConfig = Field(default_factory=LanguageConfig, description="Languages.")
    quality: QualityConfig = Field(default_factory=QualityConfig, description="Quality.")
    dedup: DedupConfig = Field(default_factory=DedupConfig, description="Duplicates.")
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig, description="Privacy.")
    decontaminate: DecontaminateConfig = Field(
        default_factory=DecontaminateConfig, description="Evaluation sets to keep away from."
    )
    augment: list[Augmentation] = Field(
        default_factory=list, description="Changed copies of training documents."
    )
    balance: BalanceConfig = Field(default_factory=BalanceConfig, description="Mixture.")
    validation: float | None = Field(
        None, gt=0, lt=0.5, description="Share of documents for validation; derived from the size."
    )
    test: float | None = Field(
        None, gt=0, lt=0.5, description="Share of documents for the test; derived from the size."
    )
    on_bad_input: Literal["stop", "quarantine"] = Field(
        "stop", description="Stop at a broken file or record, or list it and go on."
    )
    engine: Literal["native", "ray"] = Field(
        "native", description="Daft's runner: this machine, or a Ray cluster."
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Processes; the number of cores when not given."
    )

    @model_validator(mode="after")
    def _kinds_can_be_told(self) -> CorpusConfig:
        balance = self.balance
        if not balance.wanted:
            return self
        if balance.by == "language" and not self.languages.wanted:
            raise ValueError(tr("balance.by: language needs languages.detect: true"))
        if balance.by == "label" and all(source.label is None for source in self.sources):
            raise ValueError(tr("balance.by: label needs a source that names its label field"))
        titles = {source.title for source in self.sources}
        unknown = [name for name in balance.weights or {} if name not in titles]
        if balance.by == "source" and unknown:
            raise ValueError(
                tr(
                    "balance.weights: no source is called {names} (sources: {known})",
                    names=", ".join(unknown),
                    known=", ".join(sorted(titles)),
                )
            )
        return self


@dataclass(frozen=True)
class CorpusStageConfig:
    """What the corpus stage needs.

    Args:
        corpus: the settings.
        rewriter: `module:function` that has a model rewrite texts, from a floor above this one.
    """

    corpus: CorpusConfig
    rewriter: str | None = None
