"""Batches as tensors where a network computes."""

from __future__ import annotations

import torch

from tianti.objective.causal import Rows
from tianti.tokens.stream import Batch


def rows_of(batch: Batch, device: torch.device, start: int = 0, count: int | None = None) -> Rows:
    """Gives some rows of a batch; all when nothing is said.

    Args:
        batch: it.
        device: where to.
        start: the first row.
        count: how many.
    """
    here = slice(start, None if count is None else start + count)
    ids, labels, segments = (
        torch.from_numpy(array[here]).to(device)
        for array in (batch.ids, batch.labels, batch.segments)
    )
    units = None if batch.units is None else torch.from_numpy(batch.units[here]).to(device)
    # Units are numbered through the batch, so its targets stay whole.
    targets = None if batch.targets is None else torch.from_numpy(batch.targets).to(device)
    return Rows(ids, labels, segments, None, units, targets)
