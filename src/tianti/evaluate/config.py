"""Settings of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from tianti.units import Count


class EvaluateConfig(BaseModel):
    """What is measured at the end of a run."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    stride: Count | None = Field(
        None, gt=0, description="Tokens a window moves on; half of the context when not given."
    )
    train_bytes: Count = Field(
        300_000, gt=0, description="Bytes of training text measured, to show overfitting."
    )
    validation_bytes: Count = Field(
        300_000, gt=0, description="Most bytes of validation text measured."
    )
    test_bytes: Count = Field(
        2_000_000,
        gt=0,
        description="Most bytes of test text measured; of longer documents their middle.",
    )
    baselines: bool = Field(True, description="Measure xz -9e and a byte 3-gram model beside.")


@dataclass(frozen=True)
class EvaluateStageConfig:
    """What the evaluate stage needs."""

    settings: EvaluateConfig
    device: str = "auto"
