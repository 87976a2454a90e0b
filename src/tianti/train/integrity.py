"""Finds what memory or arithmetic got wrong: weights that changed by themselves, sums that differ.

Silent data corruption is rare on one machine and certain on thousands (Dixit et al. 2021,
arXiv:2102.11245). Off by default; every check costs one more forward and backward pass and two
readings of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tianti.errors import UserError
from tianti.messages import tr


def digest(tensors: Iterable[Tensor]) -> str:
    """Gives a hash of the bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


class IntegrityCheck:
    """Compares weights with what they were, and a step's gradient with its repetition.

    Args:
        parameters: of the network.
        every: steps between checks.
    """

    def __init__(self, parameters: Iterable[Tensor], every: int):
        self.every = every
        self._parameters = list(parameters)
        self._digest: str | None = None

    def before_step(self, step: int, gradients: Callable[[], object]) -> None:
        """Checks the weights since the last step, and that a gradient can be repeated bitwise.

        Args:
            step: the one to come, from 0.
            gradients: adds this step's gradient to the parameters'.

        Raises:
            UserError: something changed by itself.
        """
        self.check_weights(step)
        self._digest = None
        if step % self.every:
            return
        found = []
        for _ in range(2):
            gradients()
            found.append(digest(p.grad for p in self._parameters if p.grad is not None))
            for parameter in self._parameters:
                parameter.grad = None
        if found[0] != found[1]:
            raise self._error(step, tr("the same step gave two gradients"))

    def check_weights(self, step: int) -> None:
        """Checks the weights since the last step, where they were remembered.

        Raises:
            UserError: they changed by themselves.
        """
        if self._digest is not None and digest(self._parameters) != self._digest:
            raise self._error(step, tr("weights changed in memory by themselves"))

    def forget(self) -> None:
        """Says that the weights are about to be others: nothing is to be compared with."""
        self._digest = None

    def after_step(self, step: int) -> None:
        """Remembers the weights where the next step is one to check before."""
        if (step + 1) % self.every == 0:
            self._digest = digest(self._parameters)

    @staticmethod
    def _error(step: int, what: str) -> UserError:
        return UserError(
            what,
            where=f"train, step {step}",
            remedy=tr("Test this machine's memory; the same command goes on from before that"),
        )
