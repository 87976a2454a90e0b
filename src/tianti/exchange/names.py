"""What weights are called in Hugging Face's files.

Each of our weights is stacked from some of theirs, in order; GPT-2's are transposed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tianti.exchange.families import family_of
from tianti.model.config import TransformerConfig


@dataclass(frozen=True)
class Theirs:
    """A tensor of a file.

    Args:
        name: of it.
        rows: of ours that it stands for.
        transposed: it lies the other way.
    """

    name: str
    rows: int
    transposed: bool = False


Names = dict[str, list[Theirs]]


def weight_names(config: TransformerConfig) -> Names:
    """Gives for each of our weights those that it is stacked from."""
    gpt2 = family_of(config) == "gpt2"
    root = "transformer" if gpt2 else "model"
    names = {
        "embedding.weight": [
            Theirs(f"{root}.{'wte' if gpt2 else 'embed_tokens'}.weight", config.vocab_size)
        ]
    }
    if config.positions == "learned":
        names["positions.weight"] = [Theirs(f"{root}.wpe.weight", config.context)]
    names |= _norm("final_norm", f"{root}.{'ln_f' if gpt2 else 'norm'}", config)
    if config.classes:
        score = "classifier" if gpt2 and config.classified == "token" else "score"
        for kind in ("weight", "bias") if config.classified == "token" else ("weight",):
            names[f"classifier.{kind}"] = [Theirs(f"{score}.{kind}", config.classes)]
    if not config.tied_embeddings:
        names["head.weight"] = [Theirs("lm_head.weight", config.vocab_size)]
    for index in range(config.depth):
        layer = _gpt2_layer(config, index) if gpt2 else _layer(config, index)
        names |= {f"layers.{index}.{ours}": theirs for ours, theirs in layer.items()}
    return names


def _norm(ours: str, theirs: str, config: TransformerConfig) -> Names:
    kinds = ("weight", "bias") if config.norm == "layer" else ("weight",)
    return {f"{ours}.{kind}": [Theirs(f"{theirs}.{kind}", config.width)] for kind in kinds}


def _layer(config: TransformerConfig, index: int) -> Names:
    theirs = f"model.layers.{index}"
    names: Names = {}
    for ours, norm in _norm_names(config).items():
        names |= _norm(ours, f"{theirs}.{norm}", config)
    names |= _attention(config, f"{theirs}.self_attn")
    if not config.has_experts(index):
        return names | _swiglu(config, "feedforward", f"{theirs}.mlp", config.mlp_width)
    if family_of(config) == "mixtral":
        return names | _mixtral(config, f"{theirs}.block_sparse_moe")
    return names | _experts(config, f"{theirs}.mlp")


def _norm_names(config: TransformerConfig) -> dict[str, str]:
    first, second = "post_attention_layernorm", "post_feedforward_layernorm"
    if config.norm_place == "before":
        return {"attention_norm": "input_layernorm", "feedforward_norm": first}
    out = {"attention_out_norm": first, "feedforward_out_norm": second}
    if config.norm_place == "after":
        return out
    return out | {
        "attention_norm": "input_layernorm",
        "feedforward_norm": "pre_feedforward_layernorm",
    }


def _attention(config: TransformerConfig, theirs: str) -> Names:
    heads, keys = config.attention_width, config.kv_width
    into = {"q": heads, "k": keys, "v": keys}
    names: Names = {}
    for kind in ("weight", "bias"):
        if kind == "bias" and config.attention_bias == "none":
            continue
        names[f"attention.qkv.{kind}"] = (
            [Theirs(f"{theirs}.qkv_proj.{kind}", heads + 2 * keys)]
            if family_of(config) == "phi3"
            else [Theirs(f"{theirs}.{name}_proj.{kind}", rows) for name, rows in into.items()]
        )
        if kind == "weight" or config.attention_bias == "all":
            names[f"attention.out.{kind}"] = [Theirs(f"{theirs}.o_proj.{kind}", config.width)]
    if config.query_key_norm == "none":
        return names
    whole = config.query_key_norm == "all"
    for ours, name, rows in (("query", "q", heads), ("key", "k", keys)):
        rows = rows if whole else config.head_dim
        names[f"attention.{ours}_norm.weight"] = [Theirs(f"{theirs}.{name}_norm.weight", rows)]
    return names


def _swiglu(config: TransformerConfig, ours: str, theirs: str, inner: int) -> Names:
    kinds = ("weight", "bias") if config.mlp_bias else ("weight",)
    names: Names = {}
    for kind in kinds:
        names[f"{ours}.gate_up.{kind}"] = (
            [Theirs(f"{theirs}.gate_up_proj.{kind}", 2 * inner)]
            if family_of(config) == "phi3"
            else [
                Theirs(f"{theirs}.gate_proj.{kind}", inner),
                Theirs(f"{theirs}.up_proj.{kind}", inner),
            ]
        )
        names[f"{ours}.down.{kind}"] = [Theirs(f"{theirs}.down_proj.{kind}", config.width)]
    return names


def _experts(config: TransformerConfig, theirs: str) -> Names:
    names = {"feedforward.router.weight": [Theirs(f"{theirs}.gate.weight", config.num_experts)]}
    if config.router == "sigmoid":
        bias = f"{theirs}.gate.e_score_correction_bias"
        names["feedforward.bias"] = [Theirs(bias, config.num_experts)]
    for number in range(config.num_experts):
        expert = f"{theirs}.experts.{number}"
        one = _swiglu(config, "feedforward.routed", expert, config.expert_width)
        for ours, parts in one.items():
            names.setdefault(ours, []).extend(parts)
    if config.shared_experts:
        inner = config.shared_experts * config.expert_width
        names |= _swiglu(config, "feedforward.shared", f"{theirs}.shared_experts", inner)
    return names


def _mixtral(config: TransformerConfig, theirs: str) -> Names:
    names = {
        "feedforward.router.weight": [Theirs(f"{theirs}.gate.weight", config.num_experts)],
        "feedforward.routed.gate_up.weight": [],
        "feedforward.routed.down.weight": [],
    }
    for number in range(config.num_experts):
        expert, inner = f"{theirs}.experts.{number}", config.expert_width
        names["feedforward.routed.gate_up.weight"] += [
            Theirs(f"{expert}.w1.weight", inner),
            Theirs(f"{expert}.w3.weight", inner),
        ]
        names["feedforward.routed.down.weight"].append(Theirs(f"{expert}.w2.weight", config.width))
    return names


def _gpt2_layer(config: TransformerConfig, index: int) -> Names:
    theirs, width = f"transformer.h.{index}", config.width
    names = _norm("attention_norm", f"{theirs}.ln_1", config)
    names |= _norm("feedforward_norm", f"{theirs}.ln_2", config)
    for ours, name, rows in (
        ("attention.qkv", "attn.c_attn", 3 * width),
        ("attention.out", "attn.c_proj", width),
        ("feedforward.up", "mlp.c_fc", config.mlp_width),
        ("feedforward.down", "mlp.c_proj", width),
    ):
        names[f"{ours}.weight"] = [Theirs(f"{theirs}.{name}.weight", rows, transposed=True)]
        names[f"{ours}.bias"] = [Theirs(f"{theirs}.{name}.bias", rows)]
    return names
