"""Those who train one network together, as the trainer sees them; by default it is alone.

What a rank holds of each parameter is a plain tensor: optimizers, averages and checkpoints work on
these, and know nothing of how a network is laid out. `tianti.scale` has the other implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tianti.model.attention import Columns
from tianti.model.initialization import fill_whole
from tianti.model.transformer import Transformer
from tianti.objective.causal import Rows
from tianti.objective.linear_cross_entropy import VocabularyShare
from tianti.train.muon import MatrixPart, orthogonalize_parts
from tianti.train.objective import Objective
from tianti.train.parts import Holding, Part


class Ranks:
    """One rank alone, which holds all.

    Attributes:
        number: of this rank's rows among those that a batch is shared into.
        count: of those.
        rank: of this process among all.
        world: how many processes there are.
        degrees: how many share what, by name; empty for one alone.
        first: this one says what all do, and writes what is written once.
        holdings: which part is held here of the parameters held in part, by name.
        held: names of all that is held here, where that is not all.
        vocabulary: which rows of the output layer are computed here, where that is not all.
        step: that training is at.
    """

    number, count, rank, world = 0, 1, 0, 1
    first = True
    degrees: Mapping[str, int] = MappingProxyType({})
    step = 0
    holdings: Mapping[str, Holding] = MappingProxyType({})
    held: frozenset[str] | None = None
    vocabulary: VocabularyShare | None = None

    @property
    def alone(self) -> bool:
        """Tells whether there is nobody to agree with."""
        return self.world == 1

    def part(self) -> Part | None:
        """Gives which part of a checkpoint this rank writes; None for all of it."""
        return None

    def columns(self, length: int) -> Columns | None:
        """Gives which tokens of each row this rank computes; None for all."""
        return None

    def lay_out(
        self, model: Transformer, seed: int, begun: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Gives what this rank holds of each parameter that is learnt, and of what else training
        moves; what is filled in them, the network has.

        Args:
            model: the network; initialised already where nothing is laid out.
            seed: of its first weights, where they are drawn.
            begun: its weights and buffers, where they are not.
        """
        learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return learnt | model.routing_state()

    @torch.no_grad()
    def fill(self, model: Transformer, name: str, values: Tensor) -> None:
        """Fills what is held of a parameter, if any, with its part of the values of the whole."""
        fill_whole(model, name, values)

    def add_gradients(
        self, loss: Objective, parts: list[Rows], total: float, between: Callable[[], None]
    ) -> Tensor:
        """Adds up the gradients of the parts of a batch; gives nats, summed, float64.

        Args:
            loss: of some rows.
            parts: computed one after the other.
            total: what losses are divided by.
            between: called between two of them.
        """
        nats = torch.zeros((), dtype=torch.float64, device=parts[0].ids_BT.device)
        for number, rows in enumerate(parts):
            if number:
                between()
            self.before_backward(last=number == len(parts) - 1)
            found = loss(rows)
            (found.total / total).backward()
            nats += found.nats
        return nats

    def evaluate(self, loss: Objective, rows: Rows) -> Any:
        """Gives the loss of some rows without gradient."""
        return loss(rows)

    def collect_gradients(self) -> None:
        """Has `grad` of what `lay_out` gave hold the gradient."""

    def drop_gradients(self) -> None:
        """Forgets the gradients that the network holds beside them."""

    def before_backward(self, last: bool) -> None:
        """Says whether a backward pass is the last one before gradients are collected."""

    def settle(self) -> None:
        """Has the network hold no more than its part after passes without gradient."""

    def total(self, value: Tensor) -> Tensor:
        """Gives the sum over the ranks that compute different tokens to the end."""
        return value

    def total_of_all(self, value: Tensor) -> Tensor:
        """Gives the sum over all ranks."""
        return value

    def gradient_norm(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Gives the norm of the whole gradient."""
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def greatest(self, *values: int) -> list[int]:
        """Gives for each value the greatest that any rank says."""
        return list(values)

    def orthogonalize(self, parts: list[MatrixPart]) -> list[Tensor]:
        """Gives what this rank holds of the orthogonalised matrices; see `train.muon`."""
        return orthogonalize_parts(parts)


ALONE = Ranks()
