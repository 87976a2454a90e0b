"""Rows whose tokens several ranks share (context parallelism), for texts too long for one device.

Everything but attention works on each token by itself; in attention the queries of a rank look at
the keys and values of all, which are gathered, and whose gradients are added up on the way back
(as in Llama 3, arXiv:2407.21783, section 3.3.2). Each rank has one piece from the front of the row
and one from its end, so that all have as much to look at.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from tianti.model.attention import Attention, Columns
from tianti.model.transformer import Transformer
from tianti.scale.collectives import gathered


class SharedRow:
    """The ranks that share the tokens of a row.

    Args:
        group: these ranks.
        device: that this rank computes on.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device):
        self._group, self._number, self._count = group, group.rank(), group.size()
        self._device = device
        self._known: dict[int, Columns] = {}

    def columns(self, length: int) -> Columns:
        """Gives the tokens of a row that this rank computes, and the order in which all come.

        Args:
            length: tokens of a row, a multiple of twice the ranks.
        """
        if length not in self._known:
            pieces = torch.arange(length, device=self._device).view(2 * self._count, -1)
            of_rank = [torch.cat((pieces[rank], pieces[-1 - rank])) for rank in range(self._count)]
            self._known[length] = Columns(of_rank[self._number], torch.cat(of_rank))
        return self._known[length]

    def lay_over(self, model: Transformer) -> None:
        """Has the attention of a network look at all tokens of a row."""
        for module in model.modules():
            if isinstance(module, Attention):
                module.gather = self._gathered

    def _gathered(self, part_BHTD: Tensor) -> Tensor:
        return gathered(part_BHTD, 2, self._group)
