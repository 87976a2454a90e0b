"""Which optimizer each weight gets, and their state as flat named tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tianti.device import product_dtype
from tianti.model.initialization import layer_of, weight_roles
from tianti.model.transformer import Transformer
from tianti.train.config import TrainSettings
from tianti.train.muon import Muon
from tianti.train.parts import Holding
from tianti.train.ranks import ALONE, Ranks


class Optimizers:
    """One or two optimizers that step together and share one schedule.

    Args:
        model: the network.
        settings: rates and decays.
        parameters: what is held here of its parameters; they themselves when not given.
        ranks: those that train together.
    """

    def __init__(
        self,
        model: Transformer,
        settings: TrainSettings,
        parameters: dict[str, Tensor] | None = None,
        ranks: Ranks = ALONE,
    ):
        parameters = parameters or dict(model.named_parameters())
        # Of a network that is cut into stages each rank holds some weights alone.
        roles = {n: role for n, role in weight_roles(model.config).items() if n in parameters}
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        use_muon = settings.optimizer == "muon"
        hidden = [n for n, role in roles.items() if role.role == "hidden" and use_muon]
        spared = {"norm", "bias"} | (set() if settings.decay_embeddings else {"embedding"})
        heads = [n for n, role in roles.items() if role.role in ("head", "classifier")]
        others = {*hidden, *heads}
        decayed = [n for n in roles if n not in others and roles[n].role not in spared]
        undecayed = [n for n, role in roles.items() if role.role in spared]
        # What adapters learn, and of it the factors that LoRA+ has learn faster.
        adapters = [n for n in parameters if "adapter." in n]
        faster = [n for n in adapters if n.endswith("adapter.b")]
        undecayed += [n for n in adapters if n not in faster]
        decay = settings.weight_decay
        groups = [
            ({"weight_decay": decay}, decayed),
            ({"weight_decay": 0.0}, undecayed),
            ({"weight_decay": decay, "share": settings.output_learning_rate}, heads),
        ]
        if faster:
            groups.append(({"weight_decay": 0.0, "share": settings.adapter_rate_ratio}, faster))
        adamw = torch.optim.AdamW(
            [
                group | {"params": [parameters[n] for n in names]}
                for told, all_names in groups
                for group, names in _by_layer(told, all_names, model.config.depth, settings)
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=1e-10,
            fused=True,
        )
        self.all: list[torch.optim.Optimizer] = [adamw]
        if hidden:
            self.all.append(
                Muon(
                    [
                        group
                        | {
                            "params": [parameters[n] for n in names],
                            "splits": [roles[n].splits for n in names],
                            "holdings": [_holding(ranks, n, parameters[n]) for n in names],
                        }
                        for group, names in _by_layer({}, hidden, model.config.depth, settings)
                    ],
                    lr=settings.learning_rate,
                    momentum=settings.muon_momentum,
                    weight_decay=settings.weight_decay,
                    solve=ranks.orthogonalize,
                    dtype=product_dtype(model.device, settings.precision),
                )
            )

    def set_learning_rate(self, value: float) -> None:
        """Sets the learning rate of every group."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = value * group.get("share", 1.0)

    def step(self) -> None:
        """Updates the weights from their gradients."""
        for optimizer in self.all:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Gives the whole state as `{"parameter/field": tensor}`."""
        return {
            f"{self._names[id(parameter)]}/{field}": torch.as_tensor(value)
            for optimizer in self.all
            for parameter, fields in optimizer.state.items()
            for field, value in fields.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `state_tensors` gave."""
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            name, field = key.rsplit("/", 1)
            by_parameter.setdefault(name, {})[field] = tensor
        for optimizer in self.all:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if fields := by_parameter.get(self._names[id(parameter)]):
                        optimizer.state[parameter] = {
                            field: tensor.to(parameter.device, copy=True)
                            for field, tensor in fields.items()
                        }


def _by_layer(
    group: dict[str, Any], names: list[str], depth: int, settings: TrainSettings
) -> list[tuple[dict[str, Any], list[str]]]:
    """Gives a group as several, whose rates fall from what comes after all layers down to the
    embedding (Howard & Ruder 2018, arXiv:1801.06146, section 3.2); as it is where none fall."""
    if settings.layer_decay == 1:
        return [(group, names)]
    of_layer: dict[int, list[str]] = {}
    for name in names:
        of_layer.setdefault(layer_of(name, depth), []).append(name)
    whole = group.get("share", 1.0)
    return [
        (group | {"share": whole * settings.layer_decay ** (depth - layer)}, held)
        for layer, held in of_layer.items()
    ]


def _holding(ranks: Ranks, name: str, held: Tensor) -> Holding:
    return ranks.holdings.get(name) or Holding.all_of(tuple(held.shape))
