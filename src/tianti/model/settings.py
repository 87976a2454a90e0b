"""Settings of the model: one dial, and every derived value open to be overridden."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.model.size import shape_for_depth, shape_for_size
from tianti.units import Count

SHAPE_FIELDS = (
    "width",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "mlp_width",
    "rope_theta",
    "tied_embeddings",
    "num_experts",
    "experts_per_token",
    "expert_width",
    "shared_experts",
    "router",
    "dense_layers",
)


class ModelConfig(BaseModel):
    """The network; with nothing set, its size follows from the training budget."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    size: Count | None = Field(
        None,
        gt=0,
        description="Weights wanted, such as 3M; with experts, those a token passes through.",
    )
    depth: int | None = Field(None, ge=1, description="Layers; with size, overrides its choice.")
    context: Count | None = Field(None, ge=8, description="Longest sequence in tokens.")
    width: int | None = Field(None, ge=2, description="Width of the residual stream.")
    num_heads: int | None = Field(None, ge=1, description="Query heads.")
    num_kv_heads: int | None = Field(None, ge=1, description="Key/value heads.")
    head_dim: int | None = Field(None, ge=2, description="Width of one head; even.")
    mlp_width: int | None = Field(None, ge=1, description="Inner width of the SwiGLU.")
    rope_theta: float | None = Field(None, gt=0, description="Base of the rotary positions.")
    tied_embeddings: bool | None = Field(None, description="Output layer = token embedding.")
    num_experts: int | None = Field(
        None, ge=2, description="Experts of each feed-forward layer; without it, dense."
    )
    experts_per_token: int | None = Field(
        None, ge=1, description="Experts each token passes through; a 16th of them, 2 at least."
    )
    expert_width: int | None = Field(
        None, ge=1, description="Inner width of an expert; mlp_width shared by those of a token."
    )
    shared_experts: int | None = Field(
        None, ge=0, description="Experts every token passes through besides."
    )
    router: Literal["softmax", "sigmoid"] | None = Field(
        None,
        description="How tokens choose: softmax with a balance loss (written as Qwen3-MoE), or"
        " sigmoid with balancing biases too (GLM-4.5), which shared experts need.",
    )
    dense_layers: int | None = Field(
        None, ge=0, description="First layers that stay dense all the same."
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelConfig:
        if self.num_heads and self.num_kv_heads and self.num_heads % self.num_kv_heads:
            raise ValueError(
                tr(
                    "num_heads ({heads}) must be a multiple of num_kv_heads ({kv_heads})",
                    heads=self.num_heads,
                    kv_heads=self.num_kv_heads,
                )
            )
        if self.head_dim and self.head_dim % 2:
            raise ValueError(tr("head_dim ({head_dim}) must be even", head_dim=self.head_dim))
        return self

    def build(
        self, *, size: int, vocab_size: int, context: int, tied: bool | None = None
    ) -> TransformerConfig:
        """Gives the shape: the dial's, with every value that is set here in its place.

        Args:
            size: weights wanted, where `depth` is not the dial.
            vocab_size: entries of the tokenizer.
            context: longest sequence in tokens.
            tied: whether the output layer is the embedding where `tied_embeddings` does not say so.
        """
        if self.tied_embeddings is not None:
            tied = self.tied_embeddings
        if self.depth and not self.size:
            shape = shape_for_depth(self.depth, vocab_size=vocab_size, context=context, tied=tied)
        else:
            shape = shape_for_size(size, vocab_size=vocab_size, context=context, tied=tied)
        set_here: dict[str, Any] = {
            name: value for name in SHAPE_FIELDS if (value := getattr(self, name)) is not None
        }
        if self.depth:
            set_here["depth"] = self.depth
        values = shape.as_dict() | set_here
        if "width" in set_here or "head_dim" in set_here:
            values.setdefault("num_heads", 0)
            if "num_heads" not in set_here:
                values["num_heads"] = max(1, values["width"] // values["head_dim"])
            if "mlp_width" not in set_here:
                values["mlp_width"] = -(-values["width"] * 8 // 3 // 32) * 32
        if "num_kv_heads" not in set_here and values["num_heads"] % values["num_kv_heads"]:
            values["num_kv_heads"] = values["num_heads"]
        _complete_experts(values, set_here)
        return TransformerConfig(**values)


def _complete_experts(values: dict[str, Any], set_here: dict[str, Any]) -> None:
    """Fills what was not said of a mixture; a token's experts have the width of a dense layer.

    Raises:
        ValueError: experts are described, but none are asked for.
    """
    if not values["num_experts"]:
        for name in ("experts_per_token", "expert_width", "shared_experts", "dense_layers"):
            if set_here.get(name):
                raise ValueError(tr("{name} needs num_experts", name=name))
        return
    if "experts_per_token" not in set_here:
        values["experts_per_token"] = max(2, values["num_experts"] // 16)
    if "expert_width" not in set_here:
        each = values["experts_per_token"] + values["shared_experts"]
        values["expert_width"] = -(-values["mlp_width"] // each // 32) * 32
    if values["shared_experts"] and "router" not in set_here:
        values["router"] = "sigmoid"
