"""Families of Hugging Face models as settings of the one Transformer.

What a `config.json` says is either understood, known to change nothing, or refused: a field that
would change the result is never passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tianti.errors import Damaged, UserError
from tianti.exchange.rope import ROPE_FIELDS, read_rope, write_rope
from tianti.messages import tr
from tianti.model.config import TransformerConfig

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
SLIDING, FULL = "sliding_attention", "full_attention"
# Shape fields that all families but GPT-2 have.
_SHAPE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
    *("tie_word_embeddings", "hidden_act", "hidden_activation", *ROPE_FIELDS),
)
# What decides nothing that is computed here: names, types of files, training, generation.
_HARMLESS = frozenset(
    name
    for line in (
        "architectures model_type transformers_version torch_dtype dtype _name_or_path",
        "name_or_path",
        "auto_map _attn_implementation_autoset _attn_implementation attn_implementation use_cache",
        "cache_implementation initializer_range return_dict output_hidden_states output_attentions",
        "output_router_logits chunk_size_feed_forward id2label label2id problem_type",
        "finetuning_task bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id",
        "mask_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id",
        "tokenizer_class prefix attention_dropout resid_pdrop embd_pdrop attn_pdrop",
        "router_aux_loss_coef router_jitter_noise hidden_dropout task_specific_params summary_type",
        "summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout n_ctx",
        "reorder_and_upcast_attn unsloth_version unsloth_fixed do_sample max_length min_length",
        "temperature top_k top_p typical_p num_beams num_beam_groups diversity_penalty",
        "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size",
        "bad_words_ids num_return_sequences early_stopping remove_invalid_values",
        "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens output_scores",
        "return_dict_in_generate torchscript use_bfloat16 tf_legacy_loss pruned_heads",
    )
    for name in line.split()
)
# What must be so wherever it is said.
_ALWAYS = {
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pretraining_tp": (1,),
}
Values = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """How one family's `config.json` and ours say the same.

    Args:
        architecture: name of its class.
        read: gives our settings besides the shape from its values.
        write: gives its values besides the shape from our settings.
        fields: names that `read` understands.
        only: values that other fields must have, wherever they are said.
        head_dim: where none is said; by default the width shared by all heads.
        tied: whether the output layer is the embedding, where that is not said.
        activation: field that names it.
    """

    architecture: str
    read: Callable[[Values], Values]
    write: Callable[[TransformerConfig], Values]
    fields: tuple[str, ...] = ()
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    head_dim: int | None = None
    tied: bool = False
    activation: str = "hidden_act"


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
        raise _unsupported("mlp_only_layers", dense, list(range(len(dense))))
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
        "activation": _activation(values, "gelu_pytorch_tanh"),
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
        "activation_function": _name_of_activation(config, FAMILIES["gpt2"]),
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
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _read_gemma2,
        _write_gemma,
        _GEMMA,
        {"use_bidirectional_attention": (None, False)},
        head_dim=256,
        tied=True,
        activation="hidden_activation",
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        _read_gemma3,
        _write_gemma,
        (*_GEMMA, "sliding_window_pattern", "_sliding_window_pattern"),
        {"use_bidirectional_attention": (None, False)},
        head_dim=256,
        tied=True,
        activation="hidden_activation",
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


def read_config(values: Values, path: Path) -> TransformerConfig:
    """Gives the shape that a `config.json` describes.

    Args:
        values: what it says.
        path: where it lies, for errors.

    Raises:
        UserError: the family is not known, or a field says what is not computed here.
        Damaged: a field is missing or makes no sense.
    """
    name = values.get("model_type")
    if name not in FAMILIES:
        raise UserError(
            tr("model family {family!r} is not known", family=name),
            where=path,
            remedy=tr("Known families: {families}", families=", ".join(FAMILIES)),
        )
    family = FAMILIES[name]
    try:
        _refuse_unknown(values, name, family)
        found = {"vocab_size": values["vocab_size"], "family": name}
        found["tied_embeddings"] = values.get("tie_word_embeddings", family.tied)
        if name != "gpt2":
            found |= _read_shape(values, family) | read_rope(values, name)
        config = TransformerConfig(**(found | family.read(values)))
    except UserError as error:
        raise UserError(error.what, where=path, remedy=error.remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(
            tr("the model configuration is wrong: {reason}", reason=error), where=path
        ) from error
    return _nameless(config)


def _nameless(config: TransformerConfig) -> TransformerConfig:
    """Gives the same without a family's name where that is what fits anyway."""
    plain = replace(config, family="")
    return plain if family_of(plain) == config.family else config


def _read_shape(values: Values, family: Family) -> Values:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    return {
        "width": width,
        "depth": values["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or family.head_dim or width // heads,
        "mlp_width": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "norm_eps": values.get("rms_norm_eps", 1e-6),
        "activation": _activation(values, "silu"),
    }


def _activation(values: Values, usual: str) -> str:
    name = values.get("hidden_activation") or values.get("hidden_act") or usual
    if name not in ACTIVATIONS:
        raise _unsupported("hidden_act", name, usual)
    return ACTIVATIONS[name]


def _name_of_activation(config: TransformerConfig, family: Family) -> str:
    tanh = "gelu_new" if family.architecture.startswith("GPT2") else "gelu_pytorch_tanh"
    return {"silu": "silu", "gelu": "gelu", "gelu_tanh": tanh}[config.activation]


def _refuse_unknown(values: Values, name: str, family: Family) -> None:
    shape = ("vocab_size", "tie_word_embeddings") if name == "gpt2" else _SHAPE
    for key, value in values.items():
        required = family.only.get(key) or _ALWAYS.get(key)
        if required is not None:
            if value not in required:
                raise _unsupported(key, value, required[0])
        elif key not in _HARMLESS and key not in family.fields and key not in shape:
            # What is not there by another name: no, none, nothing.
            if value in (None, False, [], {}):
                continue
            raise UserError(
                tr("{name} = {value!r} is not known here", name=key, value=value),
                remedy=tr("If it changes nothing that is computed, take it out of the file"),
            )


def _unsupported(name: str, value: Any, expected: Any) -> UserError:
    return UserError(
        tr("{name} = {value!r} is not supported", name=name, value=value),
        remedy=tr("Only {value!r} is computed correctly here", value=expected),
    )


def write_config(config: TransformerConfig) -> Values:
    """Gives what `config.json` says of a network."""
    name = family_of(config)
    family = FAMILIES[name]
    said = {
        "architectures": [family.architecture],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
    }
    if name != "gpt2":
        if family.head_dim or config.attention_width != config.width:
            said["head_dim"] = config.head_dim
        said |= {
            "hidden_size": config.width,
            "intermediate_size": config.mlp_width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "max_position_embeddings": config.context,
            "rms_norm_eps": config.norm_eps,
            family.activation: _name_of_activation(config, family),
            "attention_dropout": 0.0,
        } | write_rope(config, name)
    return said | family.write(config)
