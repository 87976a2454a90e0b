"""What is said of a family of Hugging Face models, and what all families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import TransformerConfig

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
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


def activation(values: Values, usual: str) -> str:
    """Gives our name of the activation that is said, or else of the usual one."""
    name = values.get("hidden_activation") or values.get("hidden_act") or usual
    if name not in ACTIVATIONS:
        raise unsupported("hidden_act", name, usual)
    return ACTIVATIONS[name]


def name_of_activation(config: TransformerConfig, family: Family) -> str:
    """Gives the family's name of a network's activation."""
    tanh = "gelu_new" if family.architecture.startswith("GPT2") else "gelu_pytorch_tanh"
    return {"silu": "silu", "gelu": "gelu", "gelu_tanh": tanh}[config.activation]


def unsupported(name: str, value: Any, expected: Any) -> UserError:
    """Gives the error for a value that is not computed here."""
    return UserError(
        tr("{name} = {value!r} is not supported", name=name, value=value),
        remedy=tr("Only {value!r} is computed correctly here", value=expected),
    )
