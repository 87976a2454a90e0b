"""Settings of the corpus."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tianti.messages import tr
from tianti.units import Count

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
SplitName = Literal["train", "validation", "test"]


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


class Source(BaseModel):
    """Where text comes from: a path or something built in."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    path: str | None = Field(
        None, description="A file, a folder or a glob; `${VAR:-default}` is filled in."
    )
    builtin: Literal["python-docs"] | None = Field(
        None, description="Text every Python carries: its documentation."
    )
    format: Literal["text", "jsonl", "parquet"] | None = Field(
        None, description="How to read the files; told by their names when not given."
    )
    text: str = Field("text", description="The JSONL field or Parquet column that holds the text.")
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
        return self

    def label(self) -> str:
        """Gives the name of the source in tables."""
        return self.builtin or self.path or ""

    def expanded_path(self) -> Path:
        """Gives the path with variables and `~` filled in."""
        return Path(expand_variables(self.path or "")).expanduser()


class CorpusConfig(BaseModel):
    """What the documents are and how they are prepared."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sources: list[Source] = Field(min_length=1, description="Where the text comes from.")
    min_chars: Count = Field(1, description="Shorter documents are dropped.")
    normalize: Literal["NFC", "NFKC", "none"] = Field("NFC", description="Unicode normalisation.")
    deduplicate: bool = Field(True, description="Drop documents whose text was seen before.")
    validation: float | None = Field(
        None, gt=0, lt=0.5, description="Share of documents for validation; derived from the size."
    )
    test: float | None = Field(
        None, gt=0, lt=0.5, description="Share of documents for the test; derived from the size."
    )
    on_bad_input: Literal["stop", "quarantine"] = Field(
        "stop", description="Stop at a broken file or record, or list it and go on."
    )
