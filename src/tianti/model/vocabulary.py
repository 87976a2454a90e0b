"""A network with more tokens than it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from tianti.model.transformer import Transformer

Start = Literal["pieces", "mean"]


@torch.no_grad()
def extend_vocabulary(
    model: Transformer,
    pieces: Sequence[Sequence[int]],
    start: Start = "pieces",
    first: int | None = None,
) -> Transformer:
    """Gives a network that knows further tokens, and gives the earlier ones the same scores.

    Args:
        model: the network.
        pieces: of each further token the earlier ones that its text was made of.
        start: its rows in embedding and output layer are the mean of those of its pieces (fast
            vocabulary transfer, Gee et al. 2022, arXiv:2402.09977), or of all earlier tokens.
        first: number of the first of them; the next one when not given. A network may have rows
            for more tokens than there are.

    Raises:
        ValueError: a token has no pieces, or some that are not there.
    """
    rows = model.config.vocab_size
    size = rows if first is None else first
    for number, parts in enumerate(pieces):
        if not parts or min(parts) < 0 or max(parts) >= size:
            raise ValueError(f"further token {number} is made of {list(parts)}, of {size} tokens")
    config = replace(model.config, vocab_size=max(rows, size + len(pieces)))
    with torch.device("meta"):
        extended = Transformer(config)
    extended = extended.to_empty(device=model.device)
    extended.fill_buffers()
    targets = dict(extended.named_parameters()) | extended.routing_state()
    for name, held in (dict(model.named_parameters()) | model.routing_state()).items():
        if name in ("embedding.weight", "head.weight"):
            known = held[:size]
            held = torch.cat([known, _rows(known, pieces, start), held[size + len(pieces) :]])
        targets[name].copy_(held)
    return extended.train(model.training)


def _rows(weight_VW: Tensor, pieces: Sequence[Sequence[int]], start: Start) -> Tensor:
    if not pieces:
        return weight_VW[:0]
    if start == "mean":
        return weight_VW.mean(dim=0).expand(len(pieces), -1)
    return torch.stack([weight_VW[list(parts)].mean(dim=0) for parts in pieces])
