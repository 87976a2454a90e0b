"""The shape of a Transformer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tianti.messages import tr


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

    def __post_init__(self) -> None:
        # `vars` rather than `asdict`, which copies deeply: the size dial tries thousands of shapes.
        for name, value in vars(self).items():
            if value <= 0 and name != "tied_embeddings":
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

    @property
    def attention_width(self) -> int:
        """Gives the width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Gives the width of all key (or value) heads together."""
        return self.num_kv_heads * self.head_dim

    def layer_matrix_parameters(self) -> int:
        """Gives the number of weights in the matrices of one layer."""
        attention = self.width * (2 * self.attention_width + 2 * self.kv_width)
        return attention + 3 * self.width * self.mlp_width

    def embedding_parameters(self) -> int:
        """Gives the number of weights in the embedding and, untied, the output layer."""
        return self.vocab_size * self.width * (1 if self.tied_embeddings else 2)

    def num_parameters(self) -> int:
        """Gives the number of weights of the network, tied ones counted once."""
        norms = self.depth * (2 * self.width + 2 * self.head_dim) + self.width
        return self.depth * self.layer_matrix_parameters() + norms + self.embedding_parameters()

    def flops_per_token(self, sequence: int | None = None) -> float:
        """Gives the floating-point operations of one trained token, forward and backward.

        Matrix products alone (2 a multiply-add, backward twice the forward); attention counted as
        causal, so half of the full square. The output layer counts, the embedding look-up does not.

        Args:
            sequence: tokens in a row; the context when not given.
        """
        length = sequence or self.context
        matrices = self.depth * self.layer_matrix_parameters() + self.vocab_size * self.width
        attention = self.depth * 2 * self.attention_width * length / 2
        return 6.0 * (matrices + attention)

    def as_dict(self) -> dict[str, Any]:
        """Gives the fields as plain values."""
        return asdict(self)
