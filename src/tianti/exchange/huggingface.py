"""Reads and writes a Transformer as a Hugging Face directory.

A dense network is a Qwen3; with experts a Qwen3-MoE, or, where the router scores each expert by
itself, a GLM-4.5, which has its bias and its shared experts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tianti.errors import Damaged, UserError
from tianti.files import read_json, write_json, write_tensors
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.model.transformer import Transformer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

# Fields of config.json that change the result if they are other than these; a file that sets one
# of them otherwise is refused rather than computed wrongly.
_REQUIRED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "use_sliding_window": False,
    "rope_scaling": None,
    "decoder_sparse_step": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_nextn_predict_layers": 0,
}
_ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
}


def save_transformer(
    model: Transformer, folder: Path, *, eos_token_id: int, pad_token_id: int
) -> None:
    """Writes `config.json`, `generation_config.json` and `model.safetensors`.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = {"bos_token_id": None, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    write_json(folder / CONFIG, _config_to_huggingface(model.config) | tokens)
    write_json(folder / "generation_config.json", {"do_sample": True, **tokens})
    weights = {name: part.contiguous() for name, part in _weights_to_huggingface(model).items()}
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"})


def load_config(folder: Path) -> TransformerConfig:
    """Reads the shape of a network from a Hugging Face directory.

    Raises:
        UserError: the folder is no model, or of a family not known here.
        Damaged: the configuration is torn or incomplete.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(
            tr("this is not a model folder: it has no config.json"),
            where=folder,
            remedy=tr("Give the model/ folder of a run or a Hugging Face directory"),
        )
    return _config_from_huggingface(read_json(folder / CONFIG), folder / CONFIG)


def load_transformer(folder: Path, device: torch.device | str = "cpu") -> Transformer:
    """Reads a Transformer from a Hugging Face directory.

    Raises:
        UserError: the folder is no model, or of a family not known here.
        Damaged: a file is missing, torn, or does not fit the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = load_config(folder)
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        remedy = tr("Fetch or write it again")
        raise Damaged(tr("file is missing"), where=path, remedy=remedy) from error
    except (SafetensorError, OSError) as error:
        raise Damaged(
            tr("file is damaged ({reason})", reason=error),
            where=path,
            remedy=tr("Fetch or write it again"),
        ) from error
    with torch.device("meta"):
        model = Transformer(config)
    model = model.to_empty(device=device)
    _fill(model, weights, path)
    return model


def is_known(folder: Path) -> bool:
    """Tells whether a directory holds a family that is computed here; also where it is no model."""
    path = folder / CONFIG
    return not path.is_file() or read_json(path).get("model_type") in _ARCHITECTURES


def _config_to_huggingface(config: TransformerConfig) -> dict[str, Any]:
    family = _family(config)
    return {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_sliding_window": False,
        "sliding_window": None,
        "rope_scaling": None,
        "use_cache": True,
        "torch_dtype": "float32",
    } | _experts_to_huggingface(config, family)


def _family(config: TransformerConfig) -> str:
    if not config.num_experts:
        return "qwen3"
    return "qwen3_moe" if config.router == "softmax" else "glm4_moe"


def _experts_to_huggingface(config: TransformerConfig, family: str) -> dict[str, Any]:
    if family == "qwen3":
        return {}
    alike = {
        "moe_intermediate_size": config.expert_width,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.normalized_gates,
    }
    if family == "qwen3_moe":
        return alike | {
            "num_experts": config.num_experts,
            "decoder_sparse_step": 1,
            "mlp_only_layers": list(range(config.dense_layers)),
            "output_router_logits": False,
        }
    return alike | {
        "n_routed_experts": config.num_experts,
        "n_shared_experts": config.shared_experts,
        "routed_scaling_factor": config.gate_scale,
        "first_k_dense_replace": config.dense_layers,
        "n_group": 1,
        "topk_group": 1,
        "use_qk_norm": True,
        "partial_rotary_factor": 1.0,
        "num_nextn_predict_layers": 0,
    }


def _experts_from_huggingface(values: dict[str, Any], path: Path) -> dict[str, Any]:
    family = values["model_type"]
    if family == "qwen3":
        return {}
    alike = {
        "experts_per_token": values["num_experts_per_tok"],
        "expert_width": values["moe_intermediate_size"],
        "normalized_gates": values.get("norm_topk_prob", family == "glm4_moe"),
    }
    if family == "qwen3_moe":
        dense = values.get("mlp_only_layers") or []
        if sorted(dense) != list(range(len(dense))):
            raise _unsupported("mlp_only_layers", dense, list(range(len(dense))), path)
        # transformers writes its own name for it too.
        experts = values.get("num_experts") or values["num_local_experts"]
        return alike | {"num_experts": experts, "dense_layers": len(dense)}
    rope = values.get("rope_parameters") or {}
    part = rope.get("partial_rotary_factor") or values.get("partial_rotary_factor", 0.5)
    for name, found, expected in (
        ("use_qk_norm", values.get("use_qk_norm", False), True),
        ("partial_rotary_factor", part, 1.0),
    ):
        if found != expected:
            raise _unsupported(name, found, expected, path)
    return alike | {
        "num_experts": values["n_routed_experts"],
        "shared_experts": values.get("n_shared_experts", 1),
        "router": "sigmoid",
        "gate_scale": values.get("routed_scaling_factor", 1.0),
        "dense_layers": values.get("first_k_dense_replace", 1),
    }


def _unsupported(name: str, value: Any, expected: Any, path: Path) -> UserError:
    return UserError(
        tr("{name} = {value!r} is not supported", name=name, value=value),
        where=path,
        remedy=tr("Only {value!r} is computed correctly here", value=expected),
    )


def _config_from_huggingface(values: dict[str, Any], path: Path) -> TransformerConfig:
    if values.get("model_type") not in _ARCHITECTURES:
        raise UserError(
            tr("model family {family!r} is not known", family=values.get("model_type")),
            where=path,
            remedy=tr("Known families: {families}", families=", ".join(_ARCHITECTURES)),
        )
    for name, expected in _REQUIRED.items():
        if values.get(name, expected) != expected:
            raise _unsupported(name, values[name], expected, path)
    rope = values.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise _unsupported("rope_type", rope["rope_type"], "default", path)
    try:
        return TransformerConfig(
            vocab_size=values["vocab_size"],
            width=values["hidden_size"],
            depth=values["num_hidden_layers"],
            num_heads=values["num_attention_heads"],
            num_kv_heads=values["num_key_value_heads"],
            head_dim=values.get("head_dim", 128),
            mlp_width=values["intermediate_size"],
            context=values["max_position_embeddings"],
            rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
            norm_eps=values.get("rms_norm_eps", 1e-6),
            tied_embeddings=values.get("tie_word_embeddings", False),
            **_experts_from_huggingface(values, path),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(
            tr("the model configuration is wrong: {reason}", reason=error), where=path
        ) from error


def _layer_names(config: TransformerConfig, index: int) -> dict[str, list[tuple[str, int]]]:
    """Gives for each of our weights in a layer the Hugging Face ones it is stacked from."""
    theirs, attention = f"model.layers.{index}", f"model.layers.{index}.self_attn"
    return {
        "attention_norm.weight": [(f"{theirs}.input_layernorm.weight", config.width)],
        "attention.qkv.weight": [
            (f"{attention}.q_proj.weight", config.attention_width),
            (f"{attention}.k_proj.weight", config.kv_width),
            (f"{attention}.v_proj.weight", config.kv_width),
        ],
        "attention.out.weight": [(f"{attention}.o_proj.weight", config.width)],
        "attention.query_norm.weight": [(f"{attention}.q_norm.weight", config.head_dim)],
        "attention.key_norm.weight": [(f"{attention}.k_norm.weight", config.head_dim)],
        "feedforward_norm.weight": [(f"{theirs}.post_attention_layernorm.weight", config.width)],
    } | (
        _expert_names(config, f"{theirs}.mlp")
        if config.has_experts(index)
        else _swiglu_names("feedforward", f"{theirs}.mlp", config.width, config.mlp_width)
    )


def _swiglu_names(
    ours: str, theirs: str, width: int, inner: int
) -> dict[str, list[tuple[str, int]]]:
    return {
        f"{ours}.gate_up.weight": [
            (f"{theirs}.gate_proj.weight", inner),
            (f"{theirs}.up_proj.weight", inner),
        ],
        f"{ours}.down.weight": [(f"{theirs}.down_proj.weight", width)],
    }


def _expert_names(config: TransformerConfig, theirs: str) -> dict[str, list[tuple[str, int]]]:
    names = {"feedforward.router.weight": [(f"{theirs}.gate.weight", config.num_experts)]}
    if config.router == "sigmoid":
        bias = f"{theirs}.gate.e_score_correction_bias"
        names["feedforward.bias"] = [(bias, config.num_experts)]
    for number in range(config.num_experts):
        one = _swiglu_names(
            "feedforward.routed", f"{theirs}.experts.{number}", config.width, config.expert_width
        )
        for ours, parts in one.items():
            names.setdefault(ours, []).extend(parts)
    if config.shared_experts:
        inner = config.shared_experts * config.expert_width
        shared = f"{theirs}.shared_experts"
        names |= _swiglu_names("feedforward.shared", shared, config.width, inner)
    return names


def _all_names(config: TransformerConfig) -> dict[str, list[tuple[str, int]]]:
    names = {
        "embedding.weight": [("model.embed_tokens.weight", config.vocab_size)],
        "final_norm.weight": [("model.norm.weight", config.width)],
    }
    if not config.tied_embeddings:
        names["head.weight"] = [("lm_head.weight", config.vocab_size)]
    for index in range(config.depth):
        for ours, theirs in _layer_names(config, index).items():
            names[f"layers.{index}.{ours}"] = theirs
    return names


def _weights_to_huggingface(model: Transformer) -> dict[str, Tensor]:
    ours = _tensors(model)
    weights = {}
    for name, parts in _all_names(model.config).items():
        pieces = ours[name].detach().cpu().split([rows for _, rows in parts])
        weights.update({theirs: piece for (theirs, _), piece in zip(parts, pieces, strict=True)})
    return weights


@torch.no_grad()
def _fill(model: Transformer, weights: dict[str, Tensor], path: Path) -> None:
    """Copies weights into a model built without memory, and recomputes its tables."""
    # Tables, and loads of experts, which are not kept.
    model.fill_buffers()
    ours = _tensors(model)
    names = _all_names(model.config)
    expected = {theirs for parts in names.values() for theirs, _ in parts}
    unknown = set(weights) - expected - {"lm_head.weight"}
    missing = expected - set(weights)
    if unknown or missing:
        raise Damaged(
            tr(
                "the weights do not fit config.json: missing {missing}, unknown {unknown}",
                missing=sorted(missing)[:3],
                unknown=sorted(unknown)[:3],
            ),
            where=path,
        )
    for name, parts in names.items():
        stacked = torch.cat([weights[theirs] for theirs, _ in parts])
        if stacked.shape != ours[name].shape:
            raise Damaged(
                tr(
                    "{name} has shape {found}, config.json says {expected}",
                    name=parts[0][0],
                    found=tuple(stacked.shape),
                    expected=tuple(ours[name].shape),
                ),
                where=path,
            )
        ours[name].copy_(stacked)


def _tensors(model: Transformer) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | model.routing_state()
