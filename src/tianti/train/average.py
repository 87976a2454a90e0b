"""The running average of the weights, which is what is validated and kept where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average (Polyak and Juditsky 1992; with a start as in timm's).

    Args:
        model: the network.
        decay: of the average at each step, in [0, 1); less in the first steps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self._parameters = dict(model.named_parameters())
        self.tensors = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights in, after a step counted from 1."""
        decay = min(self.decay, step / (step + 10))
        torch._foreach_lerp_(
            list(self.tensors.values()), list(self._parameters.values()), 1 - decay
        )

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` held."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the average in the place of the weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(held)
