"""Rotary positions as `config.json` says them, in the forms of transformers 4 and 5."""

from __future__ import annotations

from typing import Any

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import RopeScaling, TransformerConfig

ROPE_FIELDS = (
    *("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq"),
    "partial_rotary_factor",
)
# Of a family, where nothing is said: the base, that of layers with a window, the share that turns.
_THETA = {"gemma3_text": 1e6, "mixtral": 1e6}
_LOCAL = {"gemma3_text": 1e4}
_SHARE = {"glm4_moe": 0.5}
_SCALING = {
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_context"},
    "yarn": {
        "factor",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "truncate",
        "original_context",
    },
    "longrope": {"factor", "short_factor", "long_factor", "attention_factor", "original_context"},
}
_ORIGINAL = "original_max_position_embeddings"
_OTHER = {"rope_type", "type", "rope_theta", "partial_rotary_factor", _ORIGINAL}


def read_rope(values: dict[str, Any], family: str) -> dict[str, Any]:
    """Gives our settings of rotary positions.

    Args:
        values: of `config.json`.
        family: its `model_type`.

    Raises:
        UserError: positions are of a kind that is not computed here.
    """
    said, local = dict(values.get("rope_parameters") or {}), None
    if "full_attention" in said:
        local = said.get("sliding_attention")
        said = said["full_attention"]
    said = (values.get("rope_scaling") or {}) | said
    kind = said.get("rope_type") or said.get("type") or "default"
    kind = {"su": "longrope"}.get(kind, kind)
    share = said.get("partial_rotary_factor") or values.get("partial_rotary_factor")
    theta = said.get("rope_theta") or values.get("rope_theta") or _THETA.get(family, 1e4)
    found = {
        "rope_theta": float(theta),
        "rotary_share": float(share or _SHARE.get(family, 1.0)),
        "local_rope_theta": _local_theta(values, local, family),
    }
    if kind == "default":
        return found
    if kind not in _SCALING:
        raise UserError(
            tr("{name} = {value!r} is not supported", name="rope_type", value=kind),
            remedy=tr("Known: {names}", names=", ".join(_SCALING)),
        )
    return found | {"rope_scaling": _scaling(kind, said, values)}


def _local_theta(values: dict[str, Any], local: dict[str, Any] | None, family: str) -> float:
    if local is not None:
        if local.get("rope_type", "default") != "default":
            raise UserError(
                tr("{name} = {value!r} is not supported", name="sliding_attention", value=local),
                remedy=tr("Only {value!r} is computed correctly here", value="default"),
            )
        return float(local["rope_theta"])
    return float(values.get("rope_local_base_freq") or _LOCAL.get(family, 0.0))


def _scaling(kind: Any, said: dict[str, Any], values: dict[str, Any]) -> RopeScaling:
    original = said.get(_ORIGINAL) or values.get(_ORIGINAL)
    ours = {name: value for name, value in said.items() if name not in _OTHER}
    ours = {name: value for name, value in ours.items() if value is not None}
    if unknown := set(ours) - _SCALING[kind]:
        raise UserError(
            tr("{name} = {value!r} is not known here", name="rope_scaling", value=sorted(unknown)),
            remedy=tr("Known: {names}", names=", ".join(sorted(_SCALING[kind]))),
        )
    if "original_context" in _SCALING[kind]:
        ours["original_context"] = original or values["max_position_embeddings"]
        if "factor" not in ours:
            ours["factor"] = values["max_position_embeddings"] / ours["original_context"]
    return RopeScaling(kind, **ours)


def write_rope(config: TransformerConfig, family: str) -> dict[str, Any]:
    """Gives what `config.json` says of rotary positions.

    Args:
        config: the shape.
        family: its `model_type`.
    """
    said: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    if family in _LOCAL:
        said["rope_local_base_freq"] = config.local_rope_theta
    if config.rotary_share != _SHARE.get(family, 1.0) or family in _SHARE:
        said["partial_rotary_factor"] = config.rotary_share
    scaling = config.rope_scaling
    if scaling is None:
        return said
    values = {name: getattr(scaling, name) for name in sorted(_SCALING[scaling.kind])}
    if "original_context" in values:
        values[_ORIGINAL] = values.pop("original_context")
        if family == "phi3":
            said[_ORIGINAL] = values[_ORIGINAL]
    values = {name: value for name, value in values.items() if value is not None}
    lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
    return said | {"rope_scaling": {"rope_type": scaling.kind} | values | lists}
