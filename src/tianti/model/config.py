"""The shape of a Transformer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tianti.messages import tr

_POSITIVE = (
    "vocab_size",
    "width",
    "depth",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "mlp_width",
    "context",
    "rope_theta",
    "norm_eps",
)


@dataclass(frozen=True)
class TransformerConfig:
    """Everything that fixes the network; the defaults are Qwen3's choices.

    Args:
        vocab_size: rows of the token embedding.
        width: width of the residual stream.
        depth: number of layers.
        num_heads: query heads in each layer.
        num_kv_heads: key/value heads; query heads share them in equal groups (GQA).
        head_dim: width of one head; `num_heads * head_dim` may differ from `width`.
        mlp_width: inner width of the SwiGLU.
        context: the longest sequence in tokens.
        rope_theta: base of the rotary position embedding.
        norm_eps: epsilon of every RMSNorm.
        tied_embeddings: the output layer is the token embedding.
        num_experts: experts of a feed-forward layer, of which each token is routed to some (a
            mixture of experts, Shazeer et al. 2017, arXiv:1701.06538); 0 for one dense SwiGLU.
        experts_per_token: experts that each token passes through.
        expert_width: inner width of one expert's SwiGLU.
        shared_experts: experts that every token passes through besides (Dai et al. 2024,
            arXiv:2401.06066); needs the sigmoid router.
        router: scores are a softmax over all experts (Qwen3-MoE), or a sigmoid each to which a
            learned bias is added for the choice alone (Wang et al. 2024, arXiv:2408.15664;
            GLM-4.5).
        normalized_gates: the chosen experts' scores are divided by their sum.
        gate_scale: factor of the gates of the sigmoid router.
        dense_layers: first layers that have a dense SwiGLU of `mlp_width` all the same.
    """

    vocab_size: int
    width: int
    depth: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    context: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tied_embeddings: bool = True
    num_experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_experts: int = 0
    router: Literal["softmax", "sigmoid"] = "softmax"
    normalized_gates: bool = True
    gate_scale: float = 1.0
    dense_layers: int = 0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if (value := getattr(self, name)) <= 0:
                raise ValueError(f"{name} must be positive, it is {value}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                tr(
                    "num_heads ({heads}) must be a multiple of num_kv_heads ({kv_heads})",
                    heads=self.num_heads,
                    kv_heads=self.num_kv_heads,
                )
            )
        if self.head_dim % 2:
            raise ValueError(tr("head_dim ({head_dim}) must be even", head_dim=self.head_dim))
        if self.num_experts:
            self._check_experts()

    def _check_experts(self) -> None:
        if not 0 < self.experts_per_token <= self.num_experts:
            raise ValueError(
                tr(
                    "experts_per_token ({chosen}) must lie between 1 and num_experts ({experts})",
                    chosen=self.experts_per_token,
                    experts=self.num_experts,
                )
            )
        if self.expert_width <= 0:
            raise ValueError(f"expert_width must be positive, it is {self.expert_width}")
        if self.shared_experts and self.router == "softmax":
            raise ValueError(tr("shared_experts need router: sigmoid"))
        if not 0 <= self.dense_layers <= self.depth:
            raise ValueError(
                tr(
                    "dense_layers ({dense}) must not exceed depth ({depth})",
                    dense=self.dense_layers,
                    depth=self.depth,
                )
            )

    @property
    def attention_width(self) -> int:
        """Gives the width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Gives the width of all key (or value) heads together."""
        return self.num_kv_heads * self.head_dim

    @property
    def sparse_layers(self) -> int:
        """Gives the number of layers that have experts."""
        return self.depth - self.dense_layers if self.num_experts else 0

    def has_experts(self, layer: int) -> bool:
        """Tells whether a layer's feed-forward is a mixture of experts."""
        return bool(self.num_experts) and layer >= self.dense_layers

    def attention_parameters(self) -> int:
        """Gives the number of weights in the attention matrices of one layer."""
        return self.width * (2 * self.attention_width + 2 * self.kv_width)

    def matrix_parameters(self, *, active: bool = False) -> int:
        """Gives the number of weights in the matrices of all layers, routers among them.

        Args:
            active: count of the experts only those that one token passes through.
        """
        dense = 3 * self.width * self.mlp_width
        chosen = self.experts_per_token if active else self.num_experts
        expert = 3 * self.width * self.expert_width
        sparse = (chosen + self.shared_experts) * expert + self.num_experts * self.width
        feedforward = (self.depth - self.sparse_layers) * dense + self.sparse_layers * sparse
        return self.depth * self.attention_parameters() + feedforward

    def embedding_parameters(self) -> int:
        """Gives the number of weights in the embedding and, untied, the output layer."""
        return self.vocab_size * self.width * (1 if self.tied_embeddings else 2)

    def num_parameters(self) -> int:
        """Gives the number of weights of the network, tied ones counted once."""
        norms = self.depth * (2 * self.width + 2 * self.head_dim) + self.width
        return self.matrix_parameters() + norms + self.embedding_parameters()

    def num_active_parameters(self) -> int:
        """Gives the number of weights that one token passes through."""
        idle = self.matrix_parameters() - self.matrix_parameters(active=True)
        return self.num_parameters() - idle

    def flops_per_token(self, sequence: int | None = None) -> float:
        """Gives the floating-point operations of one trained token, forward and backward.

        Matrix products alone (2 a multiply-add, backward twice the forward); attention counted as
        causal, so half of the full square. The output layer counts, the embedding look-up does not.

        Args:
            sequence: tokens in a row; the context when not given.
        """
        length = sequence or self.context
        matrices = self.matrix_parameters(active=True) + self.vocab_size * self.width
        attention = self.depth * 2 * self.attention_width * length / 2
        return 6.0 * (matrices + attention)

    def as_dict(self) -> dict[str, Any]:
        """Gives the fields as plain values."""
        return asdict(self)
