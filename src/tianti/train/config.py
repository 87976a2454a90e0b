"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.units import Budget, Count, Duration, parse_budget

BudgetField = Annotated[
    Budget,
    BeforeValidator(parse_budget),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["10m", "500M tokens", "2000 steps"]}),
]


class TrainConfig(BaseModel):
    """How the network is trained; what is not set is derived from its size and the budget."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    budget: BudgetField = Field(
        default_factory=lambda: Budget("seconds", 600.0),
        description="10m, 500M tokens, 2000 steps or 3 epochs.",
        validate_default=True,
    )
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="Muon for hidden matrices with AdamW for the rest, or AdamW alone."
    )
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate.")
    start: Literal["auto", "bigrams", "random"] = Field(
        "auto",
        description="Weights begin at random, or with embedding and output layer that know the"
        " text's bigrams; auto: those where training is short.",
    )
    output_learning_rate: float | None = Field(
        None, gt=0, description="Of an output layer of its own, as a share of learning_rate."
    )
    batch_tokens: Count | None = Field(None, gt=0, description="Tokens in one step.")
    micro_batch_rows: Count | None = Field(
        None, gt=0, description="Rows computed at once; a step adds up several."
    )
    activation_checkpointing: Literal["off", "selective", "full"] = Field(
        "off",
        description="Keep less for the backward pass and compute it again: a little more work"
        " (selective) or a third more (full).",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of products; weights stay float32. auto: bfloat16 on a GPU, float32 on a CPU.",
    )
    float8: bool = Field(
        False,
        description="Products of hidden layers in 8 bits (GPUs from Ada and Hopper on; extra"
        " float8).",
    )
    schedule: Literal["wsd", "cosine", "constant"] = Field(
        "wsd", description="Warm-up, stable, decay; or cosine; or constant after the warm-up."
    )
    warmup_steps: Count | None = Field(None, ge=0, description="Steps of linear warm-up.")
    decay_share: float = Field(0.5, ge=0, le=1, description="Share of steps that decay (wsd).")
    final_learning_rate: float = Field(
        0.0, ge=0, le=1, description="Learning rate at the end as a share of the peak."
    )
    weight_decay: float = Field(0.1, ge=0, description="Decoupled; matrices only.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first moment.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second moment.")
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum.")
    clip_grad_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch that is dropped.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target spread over the vocabulary."
    )
    z_loss: float = Field(
        0.0,
        ge=0,
        description="Weight of the squared log of the softmax's denominator (PaLM: 1e-4).",
    )
    balance_loss: float = Field(
        0.01, ge=0, description="Weight of the loss that has experts be equally busy."
    )
    balance_rate: float = Field(
        0.001,
        ge=0,
        description="Step by which the sigmoid router's biases move against the experts' load.",
    )
    decay_embeddings: bool = Field(True, description="Weight decay reaches the embedding too.")
    average: float = Field(
        0.0, ge=0, lt=1, description="Decay of a running average of the weights, which is kept."
    )
    average_tail: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the last steps whose weights are averaged evenly, which is kept.",
    )
    early_stopping: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Stop after so many validations without a better one; keep the best weights.",
    )
    validate_every: Count | None = Field(None, gt=0, description="Steps between validations.")
    validation_tokens: Count = Field(65_536, gt=0, description="Tokens of one validation.")
    save_every: Duration = Field(60.0, gt=0, description="Time between checkpoints.")
    keep_checkpoints: int = Field(2, ge=2, description="Checkpoints kept.")
    check_memory_every: Count | None = Field(
        None,
        gt=0,
        description="Steps between checks that weights did not change by themselves and a gradient"
        " can be repeated; each costs two more passes.",
    )
    deterministic: bool = Field(
        False,
        description="The same bits again on a GPU, interrupted or not, at some cost in speed; on a"
        " CPU they are always.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile; auto: where a compiler exists and the budget repays it."
    )

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if self.average and self.average_tail:
            raise ValueError(tr("average and average_tail are two ways: choose one"))
        return self


Degree = Annotated[int, Field(ge=1)] | Literal["auto"]


class LayoutConfig(BaseModel):
    """Over how many devices training goes, and how: the product is the number of all."""

    model_config = ConfigDict(extra="forbid")

    replicate: Degree = Field(
        "auto", description="Copies of the network that share a batch (DDP; with shard: HSDP)."
    )
    shard: Degree = Field(
        "auto",
        description="Devices over which weights, gradients and optimizer of a copy are cut (FSDP).",
    )
    context: int = Field(
        1, ge=1, description="Devices that share the tokens of each row, which may be long (CP)."
    )
    tensor: int = Field(
        1,
        ge=1,
        description="Devices that share each product of a layer, and the tokens between products"
        " (TP with sequence parallelism).",
    )
    pipeline: int = Field(
        1, ge=1, description="Devices among which the layers are shared out (PP, 1F1B)."
    )
    stages: int = Field(
        1,
        ge=1,
        description="Pieces into which the layers of each of these are cut; more wait less"
        " (interleaved 1F1B).",
    )
    expert: int = Field(
        1,
        ge=1,
        description="Devices, of those of shard, context and tensor, that share out the experts"
        " (EP).",
    )


class TrainSettings(BaseModel):
    """Training with nothing left open: what the stage gets and its fingerprint covers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    budget: BudgetField
    optimizer: Literal["muon", "adamw"]
    learning_rate: float
    start: Literal["bigrams", "random"] = "random"
    output_learning_rate: float = 1.0
    adapter_rate_ratio: float = 1.0
    layer_decay: float = 1.0
    batch_rows: int
    micro_batch_rows: int
    schedule: Literal["wsd", "cosine", "constant"]
    warmup_steps: int
    decay_share: float
    final_learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    muon_momentum: float
    clip_grad_norm: float
    dropout: float = 0.0
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    balance_loss: float = 0.01
    balance_rate: float = 0.001
    decay_embeddings: bool = True
    average: float = 0.0
    average_tail: float = 0.0
    early_stopping: int | None = None
    check_memory_every: int | None = None
    activation_checkpointing: Literal["off", "selective", "full"] = "off"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    float8: bool = False
    deterministic: bool = False
    validate_every: int | None
    validation_tokens: int
    save_every: float
    keep_checkpoints: int
    compile: bool
    seed: int


@dataclass(frozen=True)
class TrainStageConfig:
    """What the train stage needs: the shape and the settings, nothing left open."""

    model: TransformerConfig
    settings: TrainSettings
    device: str = "auto"
