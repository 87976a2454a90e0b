"""Families of Hugging Face models as settings of the one Transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tianti.exchange.family import (
    ACTIVATIONS,
    Family,
    Values,
    activation,
    name_of_activation,
    unsupported,
)
from tianti.model.config import TransformerConfig

SLIDING, FULL = "sliding_attention", "full_attention"


def _biased(name: str = "all") -> Callable[[Values], Values]:
    def read(values: Values) -> Values:
        return {"attention_bias": name if values.get("attention_bias") else "none"}

    return read


def _without_norms(values: Values) -> Values:
    return {"query_key_norm": "none"}


def _read_llama(values: Values) -> Values:
    return _without_norms(values) | _biased()(values) | {"mlp_bias": bool(values.get("mlp_bias"))}


def _write_llama(config: TransformerConfig) -> Values:
    return {"attention_bias": config.attention_bias == "all", "mlp_bias": config.mlp_bias}


def _read_window(values: Values) -> Values:
    """Of families whose layers all have a window where there is one."""
    return _without_norms(values) | {"window": values.get("sliding_window") or 0}


def _write_window(config: TransformerConfig) -> Values:
    return {"sliding_window": config.window or None}


def _full_layers(values: Values, is_full: Callable[[int], bool]) -> tuple[int, ...]:
    """Gives the layers without a window: as `layer_types` says, or else `is_full`."""
    depth = values["num_hidden_layers"]
    kinds = values.get("layer_types") or [FULL if is_full(i) else SLIDING for i in range(depth)]
    if len(kinds) != depth or not set(kinds) <= {SLIDING, FULL}:
        raise ValueError(f"layer_types = {kinds}")
    return tuple(index for index, kind in enumerate(kinds) if kind == FULL)


def _layer_types(config: TransformerConfig) -> list[str]:
    return [SLIDING if config.has_window(index) else FULL for index in range(config.depth)]


def _qwen_window(values: Values) -> Values:
    if not values.get("use_sliding_window") or not values.get("sliding_window"):
        return {}
    first = values.get("max_window_layers", 28)
    full = _full_layers(values, lambda index: index < first)
    return {"window": values["sliding_window"], "full_layers": full}


def _write_qwen_window(config: TransformerConfig) -> Values:
    if not config.window:
        return {"use_sliding_window": False, "sliding_window": None}
    kinds = _layer_types(config)
    first = kinds.index(SLIDING) if SLIDING in kinds else len(kinds)
    said = {"use_sliding_window": True, "sliding_window": config.window, "layer_types": kinds}
    return said | {"max_window_layers": first}


def _read_qwen2(values: Values) -> Values:
    return {"query_key_norm": "none", "attention_bias": "qkv"} | _qwen_window(values)


def _read_qwen3(values: Values) -> Values:
    return _biased()(values) | _qwen_window(values)


def _write_qwen3(config: TransformerConfig) -> Values:
    return {"attention_bias": config.attention_bias == "all"} | _write_qwen_window(config)


def _read_qwen3_moe(values: Values) -> Values:
    dense = values.get("mlp_only_layers") or []
    if sorted(dense) != list(range(len(dense))):
        raise unsupported("mlp_only_layers", dense, list(range(len(dense))))
    # transformers writes its own name for it too.
    experts = values.get("num_experts") or values["num_local_experts"]
    return _read_qwen3(values) | {
        "num_experts": experts,
        "experts_per_token": values["num_experts_per_tok"],
        "expert_width": values["moe_intermediate_size"],
        "normalized_gates": values.get("norm_topk_prob", False),
        "dense_layers": len(dense),
    }


def _write_qwen3_moe(config: TransformerConfig) -> Values:
    return _write_qwen3(config) | {
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": config.expert_width,
        "norm_topk_prob": config.normalized_gates,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(config.dense_layers)),
        "output_router_logits": False,
    }


def _read_glm4_moe(values: Values) -> Values:
    return _biased("qkv")(values) | {
        "query_key_norm": "head" if values.get("use_qk_norm", False) else "none",
        "num_experts": values["n_routed_experts"],
        "experts_per_token": values["num_experts_per_tok"],
        "expert_width": values["moe_intermediate_size"],
        "normalized_gates": values.get("norm_topk_prob", True),
        "shared_experts": values.get("n_shared_experts", 1),
        "router": "sigmoid",
        "gate_scale": values.get("routed_scaling_factor", 1.0),
        "dense_layers": values.get("first_k_dense_replace", 1),
    }


def _write_glm4_moe(config: TransformerConfig) -> Values:
    return {
        "head_dim": config.head_dim,
        "attention_bias": config.attention_bias == "qkv",
        "use_qk_norm": config.query_key_norm == "head",
        "n_routed_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": config.expert_width,
        "norm_topk_prob": config.normalized_gates,
        "n_shared_experts": config.shared_experts,
        "routed_scaling_factor": config.gate_scale,
        "first_k_dense_replace": config.dense_layers,
        "n_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 0,
    }


def _read_mixtral(values: Values) -> Values:
    return _read_window(values) | {
        "num_experts": values.get("num_local_experts", 8),
        "experts_per_token": values.get("num_experts_per_tok", 2),
        "expert_width": values["intermediate_size"],
    }


def _write_mixtral(config: TransformerConfig) -> Values:
    return _write_window(config) | {
        "intermediate_size": config.expert_width,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "output_router_logits": False,
    }


def _read_gemma(values: Values) -> Values:
    return _biased()(values) | {
        "norm": "rms_plus_one",
        "norm_place": "both",
        "activation": activation(values, "gelu_pytorch_tanh"),
        "attention_scale": values.get("query_pre_attn_scalar", 256) ** -0.5,
        "embedding_scale": values["hidden_size"] ** 0.5,
        "window": values.get("sliding_window") or 0,
    }


def _read_gemma2(values: Values) -> Values:
    return _read_gemma(values) | {
        "query_key_norm": "none",
        "full_layers": _full_layers(values, lambda index: index % 2 == 1),
        "attention_softcap": values.get("attn_logit_softcapping", 50.0) or 0.0,
        "logit_softcap": values.get("final_logit_softcapping", 30.0) or 0.0,
    }


def _read_gemma3(values: Values) -> Values:
    each = values.get("sliding_window_pattern") or values.get("_sliding_window_pattern") or 6
    return _read_gemma(values) | {
        "full_layers": _full_layers(values, lambda index: (index + 1) % each == 0),
        "attention_softcap": values.get("attn_logit_softcapping") or 0.0,
        "logit_softcap": values.get("final_logit_softcapping") or 0.0,
    }


def _write_gemma(config: TransformerConfig) -> Values:
    scalar = config.attention_scale**-2
    return {
        "attention_bias": config.attention_bias == "all",
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
        "sliding_window": config.window or None,
        "layer_types": _layer_types(config),
        "attn_logit_softcapping": config.attention_softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
    }


def _read_olmo2(values: Values) -> Values:
    return _biased()(values) | {"norm_place": "after", "query_key_norm": "all"}


def _write_olmo2(config: TransformerConfig) -> Values:
    return {"attention_bias": config.attention_bias == "all"}


def _read_gpt2(values: Values) -> Values:
    width, heads = values.get("n_embd", 768), values.get("n_head", 12)
    return {
        "width": width,
        "depth": values.get("n_layer", 12),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": width // heads,
        "mlp_width": values.get("n_inner") or 4 * width,
        "context": values.get("n_positions", 1024),
        "norm_eps": values.get("layer_norm_epsilon", 1e-5),
        "norm": "layer",
        "query_key_norm": "none",
        "attention_bias": "all",
        "activation": ACTIVATIONS[values.get("activation_function", "gelu_new")],
        "gated": False,
        "mlp_bias": True,
        "positions": "learned",
    }


def _write_gpt2(config: TransformerConfig) -> Values:
    return {
        "n_embd": config.width,
        "n_layer": config.depth,
        "n_head": config.num_heads,
        "n_inner": config.mlp_width,
        "n_positions": config.context,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": name_of_activation(config, FAMILIES["gpt2"]),
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


_QWEN = ("attention_bias", "use_sliding_window", "sliding_window", "max_window_layers")
_MIXTURE = ("num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
_GEMMA = (
    *("attention_bias", "query_pre_attn_scalar", "sliding_window", "layer_types"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
)
_gemma = partial(
    Family,
    write=_write_gemma,
    only={"use_bidirectional_attention": (None, False)},
    head_dim=256,
    tied=True,
    activation="hidden_activation",
)
_GPT2 = (
    *("n_embd", "n_layer", "n_head", "n_inner", "n_positions", "layer_norm_epsilon"),
    "activation_function",
)
FAMILIES = {
    "qwen3": Family(
        "Qwen3ForCausalLM", _read_qwen3, _write_qwen3, (*_QWEN, "layer_types"), head_dim=128
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        _read_qwen3_moe,
        _write_qwen3_moe,
        (*_QWEN, *_MIXTURE, "num_experts", "num_local_experts", "mlp_only_layers"),
        {"hidden_act": ("silu", "swish"), "decoder_sparse_step": (1,), "layer_types": (None,)},
    ),
    "glm4_moe": Family(
        "Glm4MoeForCausalLM",
        _read_glm4_moe,
        _write_glm4_moe,
        (
            *("attention_bias", "use_qk_norm", "n_routed_experts", "n_shared_experts", *_MIXTURE),
            *("routed_scaling_factor", "first_k_dense_replace"),
        ),
        {
            "hidden_act": ("silu", "swish"),
            "n_group": (1,),
            "topk_group": (1,),
            "num_nextn_predict_layers": (0, None),
            "use_sliding_window": (False,),
            "sliding_window": (None,),
        },
    ),
    "llama": Family("LlamaForCausalLM", _read_llama, _write_llama, ("attention_bias", "mlp_bias")),
    "mistral": Family("MistralForCausalLM", _read_window, _write_window, ("sliding_window",)),
    "mixtral": Family(
        "MixtralForCausalLM",
        _read_mixtral,
        _write_mixtral,
        ("sliding_window", "num_local_experts", "num_experts_per_tok"),
        {"hidden_act": ("silu", "swish")},
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _read_qwen2,
        _write_qwen_window,
        ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
    ),
    "gemma2": _gemma(architecture="Gemma2ForCausalLM", read=_read_gemma2, fields=_GEMMA),
    "gemma3_text": _gemma(
        architecture="Gemma3ForCausalLM",
        read=_read_gemma3,
        fields=(*_GEMMA, "sliding_window_pattern", "_sliding_window_pattern"),
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        _read_window,
        _write_window,
        ("sliding_window", "original_max_position_embeddings"),
        {"attention_bias": (False,)},
    ),
    "olmo2": Family("Olmo2ForCausalLM", _read_olmo2, _write_olmo2, ("attention_bias",)),
    "gpt2": Family(
        "GPT2LMHeadModel",
        _read_gpt2,
        _write_gpt2,
        _GPT2,
        {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        tied=True,
    ),
}
# What recipes make, each by what it has.
OWN = ("qwen3", "qwen3_moe", "glm4_moe")


def family_of(config: TransformerConfig) -> str:
    """Gives the family that a network is written as."""
    if config.family:
        return config.family
    if not config.num_experts:
        return "qwen3"
    return "qwen3_moe" if config.router == "softmax" else "glm4_moe"
