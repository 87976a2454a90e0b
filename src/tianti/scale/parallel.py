"""A network laid out over many devices, as the trainer sees it.

In one fixed order: products are shared, experts shared out, stages cut out of the layers; then
FSDP2 cuts what weights there are by their first dimension and adds gradients up; copies of it
(HSDP, or DDP where nothing is cut) add theirs up once more. The network is made without memory,
laid out, and only then filled, so that no rank ever holds all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tianti.device import product_dtype
from tianti.model.attention import Columns
from tianti.model.experts import Experts
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.objective.causal import Rows
from tianti.scale.experts import SharedExperts
from tianti.scale.layout import Layout
from tianti.scale.matrices import SharedMatrices
from tianti.scale.mesh import CUT, Groups
from tianti.scale.pipeline import Pipeline
from tianti.scale.rows import SharedRow
from tianti.scale.tensor import SharedProducts
from tianti.train.loss import TrainLoss
from tianti.train.muon import MatrixPart
from tianti.train.objective import Objective
from tianti.train.parts import Holding, Part
from tianti.train.ranks import Ranks

EMBEDDING, ROUTED = "embedding.weight", ".routed."


def _wants_gradient(module: torch.nn.Module, inputs: Any, hidden: Tensor) -> Tensor:
    """Has the stream want a gradient where nothing below it is learnt: FSDP2 adds up gradients, of
    a classifier that alone is learnt too, once one has come this far."""
    if torch.is_grad_enabled() and not hidden.requires_grad:
        return hidden.requires_grad_()
    return hidden


class ManyRanks(Ranks):
    """One rank of many.

    Args:
        layout: of all.
        device: that this rank computes on; the process group is joined.
        vocabulary: size of it.
        precision: of products; see `tianti.device.product_dtype`.
        simulated: it computes nothing, and stands for a GPU; see `tianti.scale.simulate`.
    """

    def __init__(
        self,
        layout: Layout,
        device: torch.device,
        vocabulary: int,
        precision: str = "auto",
        simulated: bool = False,
    ):
        self.layout, self.device = layout, device
        self._dtype = product_dtype(device, precision)
        # On a CPU autocast rounds, one layer after the other.
        self._rounded = simulated or device.type == "cuda"
        self.groups = groups = Groups(layout, device)
        self.degrees = layout.degrees()
        self.rank, self.world = dist.get_rank(), layout.devices
        self._place = layout.place(self.rank)
        self.number, self.count = self._place.rows, layout.row_groups
        self.first = self.rank == 0
        self._row = None if groups.row is None else SharedRow(groups.row, device)
        self._products = SharedProducts(groups.tensor, vocabulary) if layout.tensor > 1 else None
        if self._products is not None:
            self.vocabulary = self._products.vocabulary
        self._experts = (
            None if groups.expert is None else SharedExperts(groups.expert, even=simulated)
        )
        self._pipeline: Pipeline | None = None
        if layout.pipeline > 1:
            self._pipeline = Pipeline(layout, groups.pipeline, device, self._dtype)
        self._matrices = SharedMatrices(groups.holders, groups.copies)
        self.holdings: dict[str, Holding] = {}
        self._model: Transformer | None = None
        self._cut: list[FSDPModule] = []
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        self._alike: dict[str, Tensor] = {}
        # What every rank that shares products has, each with the gradient of its own tokens.
        self._common: list[str] = []

    @property
    def _speaks(self) -> bool:
        """Tells whether this rank's word counts, of those who compute the same tokens."""
        return self._place.tensor == 0 and (self._pipeline is None or self._pipeline.last)

    def columns(self, length: int) -> Columns | None:
        """Gives which tokens of each row this rank computes; None for all."""
        return None if self._row is None else self._row.columns(length)

    def lay_out(
        self, model: Transformer, seed: int, begun: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Cuts the network, gives it memory and weights, and gives what this rank holds of those
        that are learnt; see `Ranks`."""
        self._model = model
        parts: dict[str, Holding] = {}
        if self._products is not None:
            parts |= self._products.lay_over(model)
        if self._experts is not None:
            parts |= self._experts.lay_over(model)
        if self._row is not None:
            self._row.lay_over(model)
        if self._pipeline is not None:
            self._pipeline.lay_over(model)
        for stage in self._cut_weights(model):
            stage.to_empty(device=self.device)
        model.fill_buffers()
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor)
            local = parameter.to_local().detach()
            part = parts.get(name) or Holding.all_of(tuple(parameter.shape))
            self.holdings[name] = part.rows(*self._rows_here(name, parameter.shape[0]))
            assert self.holdings[name].shape == tuple(local.shape)
            self._held[name] = parameter, local
        if self._products is not None:
            self._common = [n for n in self._held if n not in parts]
        if begun is None:
            initialize(model, seed, self.fill)
        else:
            self._take(model, begun)
        # Every rank of a stage has these whole, and moves them alike.
        self._alike = model.routing_state()
        found = {name: local for name, (p, local) in self._held.items() if p.requires_grad}
        found |= self._alike
        self.held = frozenset(found)
        return found

    @torch.no_grad()
    def _take(self, model: Transformer, begun: Mapping[str, Tensor]) -> None:
        """Fills what is held with its part of weights and buffers that are there as a whole."""
        for name in self._held:
            self.fill(model, name, begun[name])
        for name, table in model.named_buffers():
            table.copy_(begun[name])

    @property
    def stages(self) -> list[Transformer]:
        """Gives the parts of the network that are here, each with layers that follow each other."""
        assert self._model is not None
        return [self._model] if self._pipeline is None else list(self._pipeline.stages.values())

    def _cut_weights(self, model: Transformer) -> list[Transformer]:
        """Has FSDP2 cut the weights of each layer, and of what is at the ends; gives the stages."""
        stages = self.stages
        # Where nothing is cut, nothing need be put together again for the backward pass; a stage
        # has many micro-batches under way, which would each put it together again.
        apart = self.layout.cut > 1 and self._pipeline is None
        options: dict[str, Any] = {"mesh": self.groups.dense, "reshard_after_forward": apart}
        if self._rounded and self._dtype == torch.bfloat16:
            options["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        for stage in stages:
            # FSDP2's own hooks come behind this one.
            stage.register_forward_hook(_wants_gradient)
            for layer in stage.layers:
                if self._experts is not None and isinstance(layer.feedforward, Experts):
                    # The weights of experts are cut over other ranks than those of all.
                    fully_shard(layer.feedforward.routed, **options | {"mesh": self.groups.sparse})
                fully_shard(layer, **options)
            # The output layer is used after the forward pass of the whole.
            fully_shard(stage, **options | {"reshard_after_forward": False})
        self._cut = [m for stage in stages for m in stage.modules() if isinstance(m, FSDPModule)]
        for module in self._cut:
            # Losses are divided by the tokens of the whole batch: gradients are sums.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        return stages

    def _rows_here(self, name: str, height: int) -> tuple[int, int]:
        """Gives the first row of a parameter that FSDP2 leaves here, and the one after the last."""
        mesh = self.groups.sparse if ROUTED in name else self.groups.dense
        size = -(-height // mesh.size(1))
        start = min(mesh.get_local_rank(CUT) * size, height)
        return start, min(start + size, height)

    def part(self) -> Part | None:
        """Gives which part of a checkpoint this rank writes: of copies the first alone writes."""
        place = self._place
        extra: set[str] = set(self.holdings) if place.replicate else set()
        if place.tensor:
            extra |= set(self._common)
        if place.replicate or place.cut or place.tensor:
            extra |= self._alike.keys()
        if self._has_second_embedding:
            extra.add(EMBEDDING)
        return Part(self.rank, self.world, self.holdings, frozenset(extra))

    @property
    def _has_second_embedding(self) -> bool:
        return bool(self._place.pipeline) and EMBEDDING in self._held

    def add_gradients(
        self, loss: Objective, parts: list[Rows], total: float, between: Callable[[], None]
    ) -> Tensor:
        """Adds up the gradients of the parts of a batch; see `Ranks`."""
        if self._pipeline is None:
            return super().add_gradients(loss, parts, total, between)
        assert isinstance(loss, TrainLoss)
        return self._pipeline.add_gradients(loss, parts, total)

    def evaluate(self, loss: Objective, rows: Rows) -> Any:
        """Gives the loss of some rows without gradient; see `Ranks`."""
        if self._pipeline is None:
            return super().evaluate(loss, rows)
        assert isinstance(loss, TrainLoss)
        return self._pipeline.evaluate(loss, rows)

    def collect_gradients(self) -> None:
        """Has what is held point at its part of the gradient."""
        for parameter, local in self._held.values():
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                local.grad = gradient.to_local()
        if self._common:
            gradients = [self._held[name][1].grad for name in self._common]
            there = [gradient for gradient in gradients if gradient is not None]
            together = torch.cat([gradient.flatten() for gradient in there])
            dist.all_reduce(together, group=self.groups.tensor)
            sizes = [gradient.numel() for gradient in there]
            for gradient, added in zip(there, together.split(sizes), strict=True):
                gradient.copy_(added.view_as(gradient))
        if self._pipeline is not None and EMBEDDING in self._held and self._tied:
            # The first stage looks ids up in it, the last makes scores with it.
            gradient = self._held[EMBEDDING][1].grad
            assert gradient is not None
            self._pipeline.share_ends(gradient)

    @property
    def _tied(self) -> bool:
        assert self._model is not None
        return self._model.config.tied_embeddings

    def drop_gradients(self) -> None:
        """Forgets the gradients of the network."""
        for parameter, _ in self._held.values():
            parameter.grad = None

    def before_backward(self, last: bool) -> None:
        """Copies add their gradients up once a step; what is cut is added up at once."""
        if self.layout.replicate > 1:
            for module in self._cut:
                module.set_requires_all_reduce(last, recurse=False)

    def settle(self) -> None:
        """Lets go of what passes without gradient put together."""
        for module in self._cut:
            module.reshard()

    def total(self, value: Tensor) -> Tensor:
        """Gives the sum over the ranks that compute different tokens to the end."""
        return self.total_of_all(value if self._speaks else torch.zeros_like(value))

    def total_of_all(self, value: Tensor) -> Tensor:
        """Gives the sum over all ranks."""
        value = value.clone()
        dist.all_reduce(value)
        return value

    def gradient_norm(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Gives the norm of the whole gradient: squares are added up once for each part."""
        others = set(self._common if self._place.tensor else ())
        if self._has_second_embedding and self._tied:
            others.add(EMBEDDING)
        gradients = [
            p.grad
            for name, p in parameters.items()
            if p.grad is not None and p.numel() and name not in others
        ]
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients))
            squares = norms.double().square().sum()
        # Copies hold the same parts.
        return (self.total_of_all(squares) / self.layout.replicate).sqrt().float()

    def greatest(self, *values: int) -> list[int]:
        """Gives for each value the greatest that any rank says; over the CPUs' own group."""
        said = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return said.tolist()

    def orthogonalize(self, parts: list[MatrixPart]) -> list[Tensor]:
        """Gives what is held of the orthogonalised matrices; each rank computes some."""
        return self._matrices.orthogonalize(parts)

    @torch.no_grad()
    def fill(self, model: Transformer, name: str, values: Tensor) -> None:
        """Fills what is held of a parameter, if any, with its part of the values of the whole."""
        if name in self._held:
            self.holdings[name].fill(self._held[name][1], values)
