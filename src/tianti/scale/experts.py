"""Experts that several ranks share out among themselves (expert parallelism).

Each rank has some experts whole; the rows of its tokens travel to the ranks whose experts they
chose, and what these make of them travels back (Lepikhin et al. 2020, arXiv:2006.16668). No row is
dropped: as many travel as chose.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tianti.model.experts import Reordered, sorting
from tianti.model.transformer import Transformer
from tianti.train.parts import Holding, Piece


class SharedExperts:
    """The ranks that share out the experts of each layer.

    Args:
        group: these ranks; perhaps this one alone.
        even: as many rows travel to each, of which none need be asked.
    """

    def __init__(self, group: dist.ProcessGroup, even: bool = False):
        self._even = even
        self._group, self._count, self._number = group, group.size(), group.rank()

    def lay_over(self, model: Transformer) -> dict[str, Holding]:
        """Leaves this rank's experts in a network without memory, and sends the others' rows away.

        Args:
            model: the network.

        Returns:
            What is held of the experts' weights.
        """
        held = {}
        for name, experts in model.mixtures().items():
            routed = experts.routed
            for kind in ("gate_up", "down"):
                held[f"{name}.routed.{kind}.weight"] = self._cut(getattr(routed, kind))
            if self._count > 1:
                routed.forward = functools.partial(self._through, routed.forward)  # type: ignore[method-assign]
            # How many rows travel is known when they do: no graph could hold it.
            experts.forward = torch.compiler.disable(experts.forward)  # type: ignore[method-assign]
        return held

    def _cut(self, stacked: nn.Module) -> Holding:
        weight = stacked.weight
        assert isinstance(weight, Tensor)
        size = len(weight) // self._count, weight.shape[1]
        piece = Piece(0, (self._number * size[0], 0), size)
        stacked.weight = nn.Parameter(torch.empty(size, device="meta", dtype=weight.dtype))
        return Holding(tuple(weight.shape), size, (piece,))

    def _through(self, inner: Any, rows_MW: Tensor, counts_E: Tensor) -> Tensor:
        """Gives what all ranks' experts make of its rows; see `model.experts.Routed`."""
        counts_RE = counts_E.view(self._count, -1)
        come_RE = torch.empty_like(counts_RE)
        dist.all_to_all_single(come_RE, counts_RE.contiguous(), group=self._group)
        if self._even:
            sizes = [[len(rows_MW) // self._count] * self._count] * 2
        else:
            sizes = torch.stack((counts_RE.sum(1), come_RE.sum(1))).tolist()
        arrived_MW = _Sent.apply(rows_MW, sizes[0], sizes[1], self._group)
        # They come rank by rank, sorted by expert each.
        experts = torch.arange(come_RE.shape[1], device=come_RE.device)
        expert_M = experts.repeat(self._count).repeat_interleave(
            come_RE.flatten(), output_size=len(arrived_MW)
        )
        order_M, place_M = sorting(expert_M)
        sorted_MW = Reordered.apply(arrived_MW, place_M, order_M)
        made_MW = Reordered.apply(inner(sorted_MW, come_RE.sum(0)), order_M, place_M)
        return _Sent.apply(made_MW, sizes[1], sizes[0], self._group)


class _Sent(torch.autograd.Function):
    """Rows, some to each rank; backward, their gradients the same way back."""

    @staticmethod
    def forward(
        ctx: Any, rows_MW: Tensor, go: list[int], come: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.go, ctx.come, ctx.group = go, come, group
        return _sent(rows_MW, go, come, group)

    @staticmethod
    def backward(ctx: Any, grad_MW: Tensor) -> tuple[Tensor, None, None, None]:
        return _sent(grad_MW, ctx.come, ctx.go, ctx.group), None, None, None


def _sent(rows_MW: Tensor, go: list[int], come: list[int], group: dist.ProcessGroup) -> Tensor:
    arrived = rows_MW.new_empty(sum(come), rows_MW.shape[1])
    dist.all_to_all_single(arrived, rows_MW.contiguous(), come, go, group=group)
    return arrived
