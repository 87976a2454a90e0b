"""A network laid out over many devices, as the trainer sees it.

FSDP2 cuts the weights by their first dimension and adds gradients up; copies of it (HSDP, or DDP
where nothing is cut) add theirs up once more. The network is made without memory, laid out, and
only then filled, so that no rank ever holds all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tianti.device import product_dtype
from tianti.model.attention import Columns
from tianti.model.initialization import initialize
from tianti.model.transformer import Transformer
from tianti.scale.layout import Layout
from tianti.scale.matrices import SharedMatrices
from tianti.scale.rows import SharedRow
from tianti.train.muon import MatrixPart
from tianti.train.parts import Part, Region
from tianti.train.ranks import Ranks

REPLICATE, SHARD = "replicate", "shard"


class ManyRanks(Ranks):
    """One rank of many.

    Args:
        layout: of all.
        device: that this rank computes on; the process group is joined.
        precision: of products; see `tianti.device.product_dtype`.
    """

    def __init__(self, layout: Layout, device: torch.device, precision: str = "auto"):
        self.layout, self.device = layout, device
        self._dtype = product_dtype(device, precision)
        # Who shares a row holds other weights all the same: these are cut over all of a copy.
        self.mesh: DeviceMesh = init_device_mesh(
            device.type,
            (layout.replicate, layout.shard * layout.context),
            mesh_dim_names=(REPLICATE, SHARD),
        )
        self.degrees = layout.degrees()
        self.rank = dist.get_rank()
        self.number, self.count = self.rank // layout.context, layout.row_groups
        self.first = self.rank == 0
        self._row = SharedRow(layout, device) if layout.context > 1 else None
        self.regions: dict[str, Region] = {}
        self._model: Transformer | None = None
        self._matrices = SharedMatrices(self.mesh.get_group(SHARD), self.mesh.get_group(REPLICATE))
        self._held: list[tuple[Tensor, Tensor]] = []
        self._alike: dict[str, Tensor] = {}

    @property
    def alone(self) -> bool:
        """Tells whether there is nobody to agree with."""
        return self.layout.devices == 1

    def columns(self, length: int) -> Columns | None:
        """Gives which tokens of each row this rank computes; None for all."""
        return None if self._row is None else self._row.columns(length)

    def lay_out(self, model: Transformer, seed: int) -> dict[str, Tensor]:
        """Cuts the network, gives it memory and weights, and gives what this rank holds."""
        self._model = model
        # Where nothing is cut, nothing need be put together again for the backward pass.
        options: dict[str, Any] = {
            "mesh": self.mesh,
            "reshard_after_forward": self.mesh.size(1) > 1,
        }
        # On a CPU autocast rounds, one layer after the other.
        if self.device.type == "cuda" and self._dtype == torch.bfloat16:
            options["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        if self._row is not None:
            self._row.lay_over(model)
        for layer in model.layers:
            fully_shard(layer, **options)
        # The output layer is used after the forward pass of the whole.
        fully_shard(model, **options | {"reshard_after_forward": False})
        for module in self._cut_modules():
            # Losses are divided by the tokens of the whole batch: gradients are sums.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        model.to_empty(device=self.device)
        model.fill_buffers()
        initialize(model, seed, _fill)
        held = {}
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor)
            local = parameter.to_local().detach()
            self.regions[name] = _region(parameter, self.mesh)
            self._held.append((parameter, local))
            held[name] = local
        # Every rank has these whole, and moves them alike.
        self._alike = model.routing_state()
        return held | self._alike

    def _cut_modules(self) -> list[FSDPModule]:
        assert self._model is not None
        return [module for module in self._model.modules() if isinstance(module, FSDPModule)]

    def part(self) -> Part | None:
        """Gives which part of a checkpoint this rank writes: of copies the first alone writes."""
        copy = self.mesh.get_local_rank(REPLICATE)
        extra = frozenset(self.regions if copy else ())
        if not self.first:
            extra |= self._alike.keys()
        return Part(self.rank, dist.get_world_size(), self.regions, extra)

    def collect_gradients(self) -> None:
        """Has what is held point at its part of the gradient."""
        for parameter, local in self._held:
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                local.grad = gradient.to_local()

    def drop_gradients(self) -> None:
        """Forgets the gradients of the network."""
        for parameter, _ in self._held:
            parameter.grad = None

    def before_backward(self, last: bool) -> None:
        """Copies add their gradients up once a step; what is cut is added up at once."""
        if self.layout.replicate > 1:
            for module in self._cut_modules():
                module.set_requires_all_reduce(last, recurse=False)

    def settle(self) -> None:
        """Lets go of what passes without gradient put together."""
        for module in self._cut_modules():
            module.reshard()

    def total(self, value: Tensor) -> Tensor:
        """Gives the sum of a tensor over all ranks."""
        value = value.clone()
        dist.all_reduce(value)
        return value

    def gradient_norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """Gives the norm of the whole gradient: squares are added up once for each part."""
        gradients = [p.grad for p in parameters if p.grad is not None and p.numel()]
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients))
            squares = norms.double().square().sum()
        # Copies hold the same parts.
        return (self.total(squares) / self.layout.replicate).sqrt().float()

    def greatest(self, *values: int) -> list[int]:
        """Gives for each value the greatest that any rank says; over the CPUs' own group."""
        said = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return said.tolist()

    def orthogonalize(self, parts: list[MatrixPart]) -> list[Tensor]:
        """Gives what is held of the orthogonalised matrices; each rank computes some."""
        return self._matrices.orthogonalize(parts)

    def fill(self, parameter: Tensor, values: Tensor) -> None:
        """Fills what is held of a parameter with its part of the values of the whole."""
        _fill(parameter, values)


@torch.no_grad()
def _fill(parameter: Tensor, values: Tensor) -> None:
    """Fills what is held of a parameter with its part of the values of the whole."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(values)
        return
    region = _region(parameter, parameter.device_mesh)
    at = tuple(slice(a, a + n) for a, n in zip(region.start, region.size, strict=True))
    parameter.to_local().copy_(values[at])


def _region(parameter: DTensor, mesh: DeviceMesh) -> Region:
    """Gives which part of a parameter that is cut by its first dimension is held here."""
    number = mesh.get_local_rank(SHARD)
    height = parameter.shape[0]
    size = -(-height // mesh.size(1))
    start = min(number * size, height)
    held = tuple(parameter.to_local().shape)
    assert held[0] == min(start + size, height) - start
    rest = (0,) * (parameter.ndim - 1)
    return Region((start, *rest), held, tuple(parameter.shape))
