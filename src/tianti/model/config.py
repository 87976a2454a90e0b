"""The shape of a Transformer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tianti.messages import tr

NormKind = Literal["rms", "rms_plus_one", "layer"]
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
class RopeScaling:
    """How frequencies are changed for a context longer than that of the first training.

    Args:
        kind: `linear` divides all of them (Chen et al. 2023, arXiv:2306.15595); `llama3` divides
            the low ones; `yarn` the same by a ramp over rotations, and scales attention (Peng et
            al. 2023, arXiv:2309.00071); `longrope` divides each by a number of its own, one set
            of them for short and one for long texts (Ding et al. 2024, arXiv:2402.13753).
        factor: that they are divided by.
        original_context: of the first training, in tokens.
        low_freq_factor: of `llama3`: wavelengths above `original_context` by this are divided.
        high_freq_factor: those below it by this are left.
        beta_fast: of `yarn`: rotations in the original context from which on nothing is divided.
        beta_slow: rotations up to which all is.
        truncate: of `yarn`: the ramp begins and ends at whole dimensions.
        attention_factor: of `yarn` and `longrope`: queries and keys are multiplied by it; None for
            what their papers say.
        short_factor: of `longrope`, for each frequency, up to the original context.
        long_factor: the same beyond it.
    """

    kind: Literal["linear", "llama3", "yarn", "longrope"]
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("short_factor", "long_factor"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


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
        norm: of the stream; see `tianti.model.norm.make_norm`.
        norm_place: of each branch: `before` it, `after` it (OLMo 2), or both (Gemma).
        query_key_norm: queries and keys are normalised by `head`, `all` heads together (OLMo 2),
            or not (`none`).
        attention_bias: products of attention have none, those of queries, keys and values have
            one (`qkv`), or all have (`all`).
        activation: of the feed-forward; `gelu_tanh` is its approximation.
        gated: the feed-forward has a gate; without it, `down(activation(up(x)))`.
        mlp_bias: its products have biases.
        positions: `rotary`, or `learned` vectors added to the embedding (GPT-2).
        rotary_share: share of a head's dimensions that turn.
        rope_scaling: of rotary positions, for long contexts; not of those with a window.
        local_rope_theta: base of the rotary positions of layers with a window; 0 for the same.
        window: tokens that a layer with a window looks back on, itself among them; 0 for no such
            layers.
        full_layers: layers that look back on all tokens although others have a window.
        attention_scale: factor of the scores; 0 for `head_dim ** -0.5`.
        attention_softcap: scores stay within it by a tanh; 0 for none (Gemma 2).
        logit_softcap: the same of the vocabulary's scores.
        embedding_scale: factor of the embedding.
        causal: a token looks at those before it alone; else at all of its text, and the network
            writes none.
        classes: scores of so many classes stand in place of those of the vocabulary; 0 for none.
        classified: what has a class: a whole `text`, told from its last token, or each `token`.
        family: of Hugging Face that it is read from and written as; empty for the one that fits.
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
    norm: NormKind = "rms"
    norm_place: Literal["before", "after", "both"] = "before"
    query_key_norm: Literal["head", "all", "none"] = "head"
    attention_bias: Literal["none", "qkv", "all"] = "none"
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    gated: bool = True
    mlp_bias: bool = False
    positions: Literal["rotary", "learned"] = "rotary"
    rotary_share: float = 1.0
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float = 0.0
    window: int = 0
    full_layers: tuple[int, ...] = ()
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    causal: bool = True
    classes: int = 0
    classified: Literal["text", "token"] = "text"
    family: str = ""

    def __post_init__(self) -> None:
        # As they are after a way through JSON.
        if isinstance(self.rope_scaling, dict):
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        object.__setattr__(self, "full_layers", tuple(self.full_layers))
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
        if self.classes and not self.tied_embeddings:
            raise ValueError("a network that tells classes has no output layer to untie")

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

    def has_window(self, layer: int) -> bool:
        """Tells whether a layer looks back on some tokens alone."""
        return bool(self.window) and layer not in self.full_layers

    @property
    def rotary_width(self) -> int:
        """Gives the dimensions of a head that turn."""
        return int(self.head_dim * self.rotary_share)

    def attention_parameters(self) -> int:
        """Gives the number of weights in the attention matrices of one layer."""
        return self.width * (2 * self.attention_width + 2 * self.kv_width)

    def matrix_parameters(self, *, active: bool = False) -> int:
        """Gives the number of weights in the matrices of all layers, routers among them.

        Args:
            active: count of the experts only those that one token passes through.
        """
        dense = (3 if self.gated else 2) * self.width * self.mlp_width
        chosen = self.experts_per_token if active else self.num_experts
        expert = 3 * self.width * self.expert_width
        sparse = (chosen + self.shared_experts) * expert + self.num_experts * self.width
        feedforward = (self.depth - self.sparse_layers) * dense + self.sparse_layers * sparse
        return self.depth * self.attention_parameters() + feedforward

    def embedding_parameters(self) -> int:
        """Gives the number of weights in the embeddings and, untied, the output layer."""
        places = self.context * self.width if self.positions == "learned" else 0
        bias = self.classes if self.classified == "token" else 0
        classifier = self.classes * self.width + bias
        return (
            self.vocab_size * self.width * (1 if self.tied_embeddings else 2) + places + classifier
        )

    def num_parameters(self) -> int:
        """Gives the number of weights of the network, tied ones counted once."""
        return self.matrix_parameters() + self._vectors() + self.embedding_parameters()

    def _vectors(self) -> int:
        """Gives the number of weights of norms and biases."""
        norms = 4 if self.norm_place == "both" else 2
        each = self.width * (2 if self.norm == "layer" else 1)
        wide = {"none": 0, "head": 2 * self.head_dim, "all": self.attention_width + self.kv_width}
        layer = norms * each + wide[self.query_key_norm]
        if self.attention_bias != "none":
            layer += self.attention_width + 2 * self.kv_width
            layer += self.width if self.attention_bias == "all" else 0
        biases = (2 if self.gated else 1) * self.mlp_width + self.width if self.mlp_bias else 0
        dense = self.depth - self.sparse_layers
        return self.depth * layer + dense * biases + each

    def num_active_parameters(self) -> int:
        """Gives the number of weights that one token passes through."""
        idle = self.matrix_parameters() - self.matrix_parameters(active=True)
        return self.num_parameters() - idle

    def flops_per_token(self, sequence: int | None = None) -> float:
        """Gives the floating-point operations of one trained token, forward and backward.

        Matrix products alone (2 a multiply-add, backward twice the forward); causal attention is
        half of the full square. The output layer counts, the embedding look-up does not.

        Args:
            sequence: tokens in a row; the context when not given.
        """
        length = sequence or self.context
        output = (self.classes or self.vocab_size) * self.width
        matrices = self.matrix_parameters(active=True) + output
        attention = self.depth * 2 * self.attention_width * length / (2 if self.causal else 1)
        return 6.0 * (matrices + attention)

    def as_dict(self) -> dict[str, Any]:
        """Gives the fields as plain values."""
        return asdict(self)
