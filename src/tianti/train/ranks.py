"""Those who train one network together, as the trainer sees them; by default it is alone.

What a rank holds of each parameter is a plain tensor: optimizers, averages and checkpoints work on
these, and know nothing of how a network is laid out. `tianti.scale` has the other implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from tianti.model.attention import Columns
from tianti.model.transformer import Transformer
from tianti.train.muon import MatrixPart, orthogonalize_parts
from tianti.train.parts import Part, Region


class Ranks:
    """One rank alone, which holds all.

    Attributes:
        number: of this rank's rows among those that a batch is shared into.
        count: of those.
        rank: of this process among all.
        degrees: how many share what, by name; empty for one alone.
        first: this one says what all do, and writes what is written once.
        regions: of the parameters held in part, by name.
        step: that training is at.
    """

    number, count, rank = 0, 1, 0
    first = True
    degrees: Mapping[str, int] = MappingProxyType({})
    step = 0
    regions: Mapping[str, Region] = MappingProxyType({})

    @property
    def alone(self) -> bool:
        """Tells whether there is nobody to agree with."""
        return self.count == 1

    def part(self) -> Part | None:
        """Gives which part of a checkpoint this rank writes; None for all of it."""
        return None

    def columns(self, length: int) -> Columns | None:
        """Gives which tokens of each row this rank computes; None for all."""
        return None

    def lay_out(self, model: Transformer, seed: int) -> dict[str, Tensor]:
        """Gives what this rank holds of each parameter, and of what else training moves; what is
        filled in them, the network has.

        Args:
            model: the network; initialised already where nothing is laid out.
            seed: of its first weights.
        """
        return dict(model.named_parameters()) | model.routing_state()

    @torch.no_grad()
    def fill(self, parameter: Tensor, values: Tensor) -> None:
        """Fills what is held of a parameter with its part of the values of the whole."""
        parameter.copy_(values)

    def collect_gradients(self) -> None:
        """Has `grad` of what `lay_out` gave hold the gradient."""

    def drop_gradients(self) -> None:
        """Forgets the gradients that the network holds beside them."""

    def before_backward(self, last: bool) -> None:
        """Says whether a backward pass is the last one before gradients are collected."""

    def settle(self) -> None:
        """Has the network hold no more than its part after passes without gradient."""

    def total(self, value: Tensor) -> Tensor:
        """Gives the sum of a tensor over the ranks that share a batch."""
        return value

    def gradient_norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """Gives the norm of the whole gradient."""
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def greatest(self, *values: int) -> list[int]:
        """Gives for each value the greatest that any rank says."""
        return list(values)

    def orthogonalize(self, parts: list[MatrixPart]) -> list[Tensor]:
        """Gives what this rank holds of the orthogonalised matrices; see `train.muon`."""
        return orthogonalize_parts(parts)


ALONE = Ranks()
