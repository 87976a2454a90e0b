"""The parametrisation: how weights start and which role each plays for the optimizer.

One place, so that a rule which transfers with size changes here and nowhere else:

| role      | weights                                | starts as                          |
|-----------|----------------------------------------|------------------------------------|
| embedding | token embedding (tied or not)          | N(0, 0.02²)                        |
| head      | untied output layer                    | N(0, 1 / width)                    |
| hidden    | qkv, gate_up                           | N(0, 1 / fan_in)                   |
| hidden    | out, down: what writes to the stream   | 0                                  |
| router    | scores of the experts                  | N(0, 0.02²)                        |
| norm      | RMSNorm gains                          | 1                                  |

Writers that start at zero make the network the identity at step 0 whatever its depth, so that the
same learning rate serves shallow and deep ones (Zhang et al. 2019, arXiv:1901.09321; also
nanochat's choice).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tianti.model.experts import Experts
from tianti.model.transformer import Transformer

EMBEDDING_STD = 0.02
Role = Literal["embedding", "head", "hidden", "router", "norm"]


@dataclass(frozen=True)
class WeightRole:
    """What one parameter is: its role, and the row counts of the matrices fused into it."""

    role: Role
    splits: tuple[int, ...]
    writes_to_stream: bool = False


def weight_roles(model: Transformer) -> dict[str, WeightRole]:
    """Gives the role of every parameter by its name, tied ones once."""
    fused = _fused(model)
    roles = {}
    for name, parameter in model.named_parameters():
        if name == "embedding.weight":
            roles[name] = WeightRole("embedding", (len(parameter),))
        elif name == "head.weight":
            roles[name] = WeightRole("head", (len(parameter),))
        elif parameter.ndim == 1:
            roles[name] = WeightRole("norm", (len(parameter),))
        elif name.endswith("router.weight"):
            roles[name] = WeightRole("router", (len(parameter),))
        else:
            roles[name] = WeightRole(
                "hidden",
                fused.get(name, (len(parameter),)),
                writes_to_stream=name.endswith(("out.weight", "down.weight")),
            )
    return roles


def _fused(model: Transformer) -> dict[str, tuple[int, ...]]:
    """Gives the row counts of the matrices that lie in one parameter, by its name."""
    config = model.config
    fused: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(model.layers):
        feedforward = f"layers.{index}.feedforward"
        fused[f"layers.{index}.attention.qkv.weight"] = (
            config.attention_width,
            config.kv_width,
            config.kv_width,
        )
        if not isinstance(layer.feedforward, Experts):
            fused[f"{feedforward}.gate_up.weight"] = (config.mlp_width,) * 2
            continue
        shared = config.shared_experts * config.expert_width
        fused[f"{feedforward}.gate_up.weight"] = (config.expert_width,) * 2 * config.num_experts
        fused[f"{feedforward}.down.weight"] = (config.width,) * config.num_experts
        fused[f"{feedforward}.shared.gate_up.weight"] = (shared,) * 2
    return fused


@torch.no_grad()
def initialize(
    model: Transformer, seed: int, fill: Callable[[Tensor, Tensor], object] = Tensor.copy_
) -> None:
    """Fills the weights by the rules of this module, the same for the same seed on any device.

    Args:
        model: the network.
        seed: of all that is drawn.
        fill: puts values into a parameter, of which perhaps only a part is held here.
    """
    generator = torch.Generator().manual_seed(seed)
    roles = weight_roles(model)
    for name, parameter in model.named_parameters():
        role = roles[name]
        if role.role == "norm":
            parameter.fill_(1.0)
        elif role.writes_to_stream:
            parameter.zero_()
        else:
            small = role.role in ("embedding", "router")
            std = EMBEDDING_STD if small else parameter.shape[1] ** -0.5
            values = torch.empty(parameter.shape, dtype=torch.float32)
            fill(parameter, values.normal_(0.0, std, generator=generator))
