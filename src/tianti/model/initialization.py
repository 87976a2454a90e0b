"""The parametrisation: how weights start and which role each plays for the optimizer.

One place, so that a rule which transfers with size changes here and nowhere else:

| role      | weights                                | starts as                          |
|-----------|----------------------------------------|------------------------------------|
| embedding | of tokens (tied or not), of places     | N(0, 0.02²)                        |
| head      | untied output layer                    | N(0, 1 / width)                    |
| hidden    | qkv, gate_up, up                       | N(0, 1 / fan_in)                   |
| hidden    | out, down: what writes to the stream   | 0                                  |
| router    | scores of the experts                  | N(0, 0.02²)                        |
| classifier| scores of classes                      | 0                                  |
| norm      | gains                                  | 1                                  |
| bias      | of products and norms                  | 0                                  |

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

from tianti.model.config import TransformerConfig
from tianti.model.experts import Experts
from tianti.model.transformer import Transformer

EMBEDDING_STD = 0.02
Role = Literal["embedding", "head", "hidden", "router", "classifier", "norm", "bias"]


@dataclass(frozen=True)
class WeightRole:
    """What one parameter is.

    Args:
        role: see above.
        shape: of the whole, wherever its parts are held.
        splits: row counts of the matrices fused into it.
        writes_to_stream: its product is added to the residual stream.
    """

    role: Role
    shape: tuple[int, ...]
    splits: tuple[int, ...]
    writes_to_stream: bool = False


def layer_of(name: str, depth: int) -> int:
    """Gives the number of the layer that a parameter is of: -1 for what comes before all layers,
    `depth` for what comes after them."""
    first, _, rest = name.partition(".")
    if first == "layers":
        return int(rest.partition(".")[0])
    return -1 if first in ("embedding", "positions") else depth


def weight_roles(config: TransformerConfig) -> dict[str, WeightRole]:
    """Gives the role of every parameter of a network by its name, tied ones once."""
    with torch.device("meta"):
        model = Transformer(config)
    fused = _fused(model)
    roles = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name in ("embedding.weight", "positions.weight"):
            roles[name] = WeightRole("embedding", shape, shape[:1])
        elif name == "head.weight":
            roles[name] = WeightRole("head", shape, shape[:1])
        elif name == "classifier.weight":
            roles[name] = WeightRole("classifier", shape, shape[:1])
        elif parameter.ndim == 1:
            roles[name] = WeightRole("bias" if name.endswith("bias") else "norm", shape, shape)
        elif name.endswith("router.weight"):
            roles[name] = WeightRole("router", shape, shape[:1])
        else:
            roles[name] = WeightRole(
                "hidden",
                shape,
                fused.get(name, shape[:1]),
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
            if config.gated:
                fused[f"{feedforward}.gate_up.weight"] = (config.mlp_width,) * 2
            continue
        experts, inner = config.num_experts, config.expert_width
        fused[f"{feedforward}.routed.gate_up.weight"] = (inner,) * 2 * experts
        fused[f"{feedforward}.routed.down.weight"] = (config.width,) * experts
        fused[f"{feedforward}.shared.gate_up.weight"] = (config.shared_experts * inner,) * 2
    return fused


@torch.no_grad()
def initialize(
    model: Transformer, seed: int, fill: Callable[[Transformer, str, Tensor], None] | None = None
) -> None:
    """Fills the weights by the rules of this module, the same for the same seed on any device.

    Args:
        model: the network.
        seed: of all that is drawn.
        fill: puts values into a parameter of that name, of which perhaps only a part is held here,
            or none; into all of it when not given.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, role in weight_roles(model.config).items():
        if role.role == "norm":
            # A gain of one more than its weight.
            values = torch.full((), 0.0 if model.config.norm == "rms_plus_one" else 1.0)
        elif role.role in ("bias", "classifier") or role.writes_to_stream:
            values = torch.zeros(())
        else:
            small = role.role in ("embedding", "router")
            std = EMBEDDING_STD if small else role.shape[1] ** -0.5
            values = torch.empty(role.shape, dtype=torch.float32)
            values.normal_(0.0, std, generator=generator)
        (fill or fill_whole)(model, name, values.expand(role.shape))


def fill_whole(model: Transformer, name: str, values: Tensor) -> None:
    """Fills a parameter with values."""
    model.get_parameter(name).copy_(values)
