"""Which optimizer each weight gets, and their state as flat named tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from tianti.device import product_dtype
from tianti.model.initialization import weight_roles
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
        fast = {
            "params": [parameters[n] for n in faster],
            "weight_decay": 0.0,
            "share": settings.adapter_rate_ratio,
        }
        adamw = torch.optim.AdamW(
            [
                {"params": [parameters[n] for n in decayed], "weight_decay": settings.weight_decay},
                {"params": [parameters[n] for n in undecayed], "weight_decay": 0.0},
                {
                    "params": [parameters[n] for n in heads],
                    "weight_decay": settings.weight_decay,
                    "share": settings.output_learning_rate,
                },
                *([fast] if faster else []),
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=1e-10,
            fused=True,
        )
        self.all: list[torch.optim.Optimizer] = [adamw]
        if hidden:
            group = {
                "params": [parameters[n] for n in hidden],
                "splits": [roles[n].splits for n in hidden],
                "holdings": [_holding(ranks, n, parameters[n]) for n in hidden],
            }
            self.all.append(
                Muon(
                    [group],
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


def _holding(ranks: Ranks, name: str, held: Tensor) -> Holding:
    return ranks.holdings.get(name) or Holding.all_of(tuple(held.shape))
