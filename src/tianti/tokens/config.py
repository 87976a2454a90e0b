"""Settings of the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tianti.corpus.config import BalanceConfig
from tianti.units import Count, parse_count


class TokenizerConfig(BaseModel):
    """A byte-level BPE trained on the corpus."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    vocab_size: Annotated[int, BeforeValidator(parse_count), Field(ge=260, le=2_000_000)] | None = (
        Field(None, description="Entries of the vocabulary; derived from the model's size.")
    )
    training_bytes: Count | None = Field(
        None,
        description="Most bytes of training text the merges are learnt from;"
        " derived from the vocabulary.",
    )


@dataclass(frozen=True)
class TokenizerStageConfig:
    """What the tokenizer stage needs."""

    vocab_size: int
    training_bytes: int


@dataclass(frozen=True)
class TokensStageConfig:
    """What the tokens stage needs.

    Args:
        balance: how often documents of each kind come.
        engine: `native` or `ray`.
        workers: processes; the number of cores when not given.
    """

    balance: BalanceConfig = field(default_factory=BalanceConfig)
    engine: str = "native"
    workers: int | None = None
