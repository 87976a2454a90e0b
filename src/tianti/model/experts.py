"""A feed-forward layer of many experts, of which each token passes through a few.

Every token is computed by the experts it chose, however many chose the same (no capacity, nothing
is dropped): tokens are sorted by expert, and each expert multiplies its own run of rows.

Experts are kept equally busy in two ways, both linear in the tokens of a step, so that any split
into micro-batches or ranks gives the same gradients:

- the balance loss of Fedus et al. 2021 (arXiv:2101.03961) over the whole batch (Qiu et al. 2025,
  arXiv:2501.11873), with each expert's share of the step before: its gradient by the scores is
  `pull`, the same for each token;
- a bias on the scores for the choice alone, moved against the load (Wang et al. 2024,
  arXiv:2408.15664).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tianti.model.config import TransformerConfig
from tianti.model.feedforward import FeedForward
from tianti.model.grouped import grouped_linear
from tianti.model.products import Linear


class Stacked(nn.Module):
    """The matrices of all experts, one below the other: `(experts · rows, columns)`."""

    def __init__(self, experts: int, rows: int, columns: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts * rows, columns))


class Routed(nn.Module):
    """The experts' matrices, and what they make of rows that are sorted by expert.

    Args:
        experts: how many.
        width: of the residual stream.
        inner: width of an expert's gate.
    """

    def __init__(self, experts: int, width: int, inner: int):
        super().__init__()
        self.gate_up = Stacked(experts, 2 * inner, width)
        self.down = Stacked(experts, width, inner)

    def forward(self, rows_MW: Tensor, counts_E: Tensor) -> Tensor:
        """Gives `(rows, width)`.

        Args:
            rows_MW: sorted by expert.
            counts_E: rows of each expert, int64.
        """
        gate, up = grouped_linear(rows_MW, self.gate_up.weight, counts_E).chunk(2, dim=-1)
        return grouped_linear(F.silu(gate) * up, self.down.weight, counts_E)


class Experts(nn.Module):
    """Routed experts, and shared ones that every token passes through.

    Attributes:
        bias: added to the scores for the choice; None with the softmax router.
        load: share of the tokens that each expert got in the step before, `(experts,)`.
        pull: gradient of the balance loss by each score, `(experts,)`; training sets it.
        counts: tokens that each expert got since training last asked, `(experts,)`, int64.
    """

    bias: Tensor | None
    load: Tensor
    pull: Tensor
    counts: Tensor

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        count, width, inner = config.num_experts, config.width, config.expert_width
        self.router = Linear(width, count)
        self.routed = Routed(count, width, inner)
        shared = config.shared_experts * inner
        self.shared = FeedForward(config, shared) if shared else None
        self.register_buffer("bias", torch.zeros(count) if config.router == "sigmoid" else None)
        self.register_buffer("load", torch.empty(count))
        self.register_buffer("pull", torch.empty(count), persistent=False)
        self.register_buffer("counts", torch.empty(count, dtype=torch.int64), persistent=False)
        self.forget_routing()

    @torch.no_grad()
    def forget_routing(self) -> None:
        """Has all experts be equally busy, as far as is known."""
        self.load.fill_(1 / self.config.num_experts)
        for values in (self.bias, self.pull, self.counts):
            if values is not None:
                values.zero_()

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Gives `(batch, time, width)` from `(batch, time, width)`."""
        x_NW = x_BTW.flatten(0, -2)
        gates_NK, chosen_NK = self._route(x_NW)
        found_NW = self._pass_through(x_NW, gates_NK, chosen_NK)
        if self.shared is not None:
            found_NW = found_NW + self.shared(x_NW)
        return found_NW.unflatten(0, x_BTW.shape[:-1])

    def _route(self, x_NW: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the experts that each token chose, and the gate of each."""
        config = self.config
        # Rounded scores would have tokens change experts.
        with torch.autocast(x_NW.device.type, enabled=False):
            logits_NE = F.linear(x_NW.float(), self.router.weight.float())
        if config.router == "softmax":
            scores_NE = logits_NE.softmax(dim=-1)
            shares_NE = scores_NE
        else:
            scores_NE = logits_NE.sigmoid()
            shares_NE = scores_NE / scores_NE.sum(dim=-1, keepdim=True)
        ranked_NE = scores_NE.detach() if self.bias is None else scores_NE.detach() + self.bias
        chosen_NK = ranked_NE.topk(config.experts_per_token, dim=-1).indices
        if self.training and torch.is_grad_enabled():
            scores_NE = _Pulled.apply(scores_NE, shares_NE, self.pull)
            ones = torch.ones_like(chosen_NK, dtype=self.counts.dtype).flatten()
            self.counts.scatter_add_(0, chosen_NK.flatten(), ones)
        gates_NK = scores_NE.gather(1, chosen_NK)
        if config.normalized_gates:
            gates_NK = gates_NK / (gates_NK.sum(dim=-1, keepdim=True) + 1e-20)
        return gates_NK * config.gate_scale, chosen_NK

    def _pass_through(self, x_NW: Tensor, gates_NK: Tensor, chosen_NK: Tensor) -> Tensor:
        """Gives the gated sum of what the chosen experts make of each token."""
        expert_M = chosen_NK.flatten()
        order_M, place_M = sorting(expert_M)
        counts_E = torch.zeros(
            self.config.num_experts, dtype=torch.int64, device=expert_M.device
        ).scatter_add_(0, expert_M, torch.ones_like(expert_M))
        rows_MW = _Sorted.apply(x_NW, order_M, place_M, chosen_NK.shape[1])
        rows_MW = self.routed(rows_MW, counts_E)
        found_NKW = Reordered.apply(rows_MW, order_M, place_M).unflatten(0, chosen_NK.shape)
        return (found_NKW * gates_NK.unsqueeze(-1).to(found_NKW.dtype)).sum(dim=1)


def sorting(keys_M: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the stable order that sorts keys, and the way back: the place that each comes to."""
    order_M = keys_M.argsort(stable=True)
    numbers = torch.arange(len(order_M), device=order_M.device)
    return order_M, torch.empty_like(order_M).scatter_(0, order_M, numbers)


class _Pulled(torch.autograd.Function):
    """Scores as they are; backward, each token's shares are pulled besides."""

    @staticmethod
    def forward(ctx: Any, scores_NE: Tensor, shares_NE: Tensor, pull_E: Tensor) -> Tensor:
        ctx.save_for_backward(pull_E)
        return scores_NE.view_as(scores_NE)

    @staticmethod
    def backward(ctx: Any, grad_NE: Tensor) -> tuple[Tensor, Tensor, None]:
        (pull_E,) = ctx.saved_tensors
        return grad_NE, pull_E.expand_as(grad_NE), None


class _Sorted(torch.autograd.Function):
    """Each token once for every expert it chose, sorted by expert.

    The way back is known, so no gradient need be scattered: sums come in one order always.
    """

    @staticmethod
    def forward(ctx: Any, x_NW: Tensor, order_M: Tensor, place_M: Tensor, each: int) -> Tensor:
        ctx.save_for_backward(place_M)
        ctx.each = each
        return x_NW[order_M // each]

    @staticmethod
    def backward(ctx: Any, grad_MW: Tensor) -> tuple[Tensor, None, None, None]:
        (place_M,) = ctx.saved_tensors
        return grad_MW[place_M].unflatten(0, (-1, ctx.each)).sum(dim=1), None, None, None


class Reordered(torch.autograd.Function):
    """Rows in another order: that of `place_M`, of which `order_M` is the way back."""

    @staticmethod
    def forward(ctx: Any, rows_MW: Tensor, order_M: Tensor, place_M: Tensor) -> Tensor:
        """Gives the rows at these places."""
        ctx.save_for_backward(order_M)
        return rows_MW[place_M]

    @staticmethod
    def backward(ctx: Any, grad_MW: Tensor) -> tuple[Tensor, None, None]:
        """Gives the gradients in the order before."""
        (order_M,) = ctx.saved_tensors
        return grad_MW[order_M], None, None
