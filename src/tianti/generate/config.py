"""Settings of generation."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from tianti.units import Count


class SamplingConfig(BaseModel):
    """How the next token is drawn; filters apply in the order they are listed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    repetition_penalty: float = Field(
        1.0, gt=0, description="Divides the scores of tokens already there (1 = off)."
    )
    temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token.")
    top_k: Count | None = Field(None, ge=1, description="Only the k likeliest tokens.")
    top_p: float | None = Field(
        0.95, gt=0, le=1, description="Only the likeliest tokens that hold this much probability."
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="Only tokens at least this share as likely as the likeliest."
    )
    max_tokens: Count = Field(200, ge=1, description="Most new tokens.")
    seed: int = Field(0, description="The same seed draws the same text.")
    stop: list[str] = Field(default_factory=list, description="Texts at which generation ends.")


class GenerateConfig(BaseModel):
    """The samples a run ends with."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompts: list[str] | None = Field(
        None,
        description="What the samples begin with; beginnings of validation documents when not set.",
    )
    samples: int = Field(4, ge=0, le=100, description="Number of samples without prompts.")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How to draw.")


@dataclass(frozen=True)
class GenerateStageConfig:
    """What the generate stage needs."""

    settings: GenerateConfig
    device: str = "auto"
