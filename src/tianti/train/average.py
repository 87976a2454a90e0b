"""The running average of the weights, which is what is validated and kept where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class WeightAverage:
    """Of all steps, the older the less, or of the last ones, each as much as the other.

    The first is an exponential moving average (Polyak and Juditsky 1992; with a start as in
    timm's), the second what averaging the last checkpoints approaches (Izmailov et al. 2018,
    arXiv:1803.05407; Kaddour 2022, arXiv:2209.14981), with every step a checkpoint.

    Args:
        parameters: of the network, by name.
        decay: of the average at each step, in [0, 1); less in the first steps.
        tail: share of the steps, at the end, whose weights are averaged evenly; then `decay` is
            not used.
    """

    def __init__(self, parameters: dict[str, Tensor], decay: float, tail: float = 0.0):
        self.decay, self.tail = decay, tail
        self._parameters = parameters
        # Empty until there is something to average.
        self.tensors: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Begins anew from the weights as they are."""
        self.tensors = {}
        if not self.tail:
            self._begin()

    def _begin(self) -> None:
        self.tensors = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int, total: int) -> None:
        """Takes the weights in.

        Args:
            step: that was just done, counted from 1.
            total: steps in all; 0 while that is not known.
        """
        if self.tail:
            number = step - (total - round(self.tail * total))
            if not total or number < 1:
                return
            if not self.tensors:
                self._begin()
            decay = 1 - 1 / number
        else:
            decay = min(self.decay, step / (step + 10))
        torch._foreach_lerp_(
            list(self.tensors.values()), list(self._parameters.values()), 1 - decay
        )

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` held."""
        if not tensors:
            self.tensors = {}
            return
        self._begin()
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the average, where there is one, in the place of the weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name in self.tensors:
            parameter = self._parameters[name]
            held = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(held)
