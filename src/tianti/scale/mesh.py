"""The groups of ranks that share something, in one fixed order.

Ranks are numbered with the devices of one product next to each other, because these say most to
each other: pipeline stages are the outermost, then copies, then what a copy is cut over, the tokens
of a row, and the products of a layer.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tianti.scale.layout import Layout

PIPELINE, REPLICATE, CUT, TENSOR, EXPERT = "pipeline", "replicate", "cut", "tensor", "expert"


class Groups:
    """The groups that a rank belongs to.

    Args:
        layout: of all.
        device: that this rank computes on.

    Attributes:
        dense: copies, and what each is cut over.
        sparse: the same of experts, which are shared out before they are cut.
        tensor: who shares products.
        pipeline: who has the other stages.
        expert: who has the other experts.
        row: who has the other tokens of a row.
        holders: who has the other weights of a stage.
        copies: who has the same.
    """

    def __init__(self, layout: Layout, device: torch.device):
        self._device = device.type
        cut, tensor = layout.cut, layout.tensor
        first = self._mesh(layout.pipeline, layout.replicate, cut, tensor)
        self.dense: DeviceMesh = first[REPLICATE, CUT]
        self.tensor: dist.ProcessGroup = first.get_group(TENSOR)
        self.pipeline: dist.ProcessGroup = first.get_group(PIPELINE)
        self.copies: dist.ProcessGroup = first.get_group(REPLICATE)
        self.holders: dist.ProcessGroup = first.get_group(CUT)
        self.sparse, self.expert = self.dense, None
        self.row: dist.ProcessGroup | None = None
        if tensor > 1:
            self.holders = self._mesh(layout.pipeline, layout.replicate, cut * tensor).get_group(
                CUT
            )
        if layout.spread_experts:
            shape = layout.pipeline, layout.replicate, cut * tensor // layout.expert, layout.expert
            spread = init_device_mesh(
                self._device, shape, mesh_dim_names=(PIPELINE, REPLICATE, CUT, EXPERT)
            )
            self.sparse, self.expert = spread[REPLICATE, CUT], spread.get_group(EXPERT)
        if layout.context > 1:
            outer = layout.pipeline * layout.row_groups
            rows = init_device_mesh(
                self._device, (outer, layout.context, tensor), mesh_dim_names=("rows", "row", "in")
            )
            self.row = rows.get_group("row")

    def _mesh(self, *shape: int) -> DeviceMesh:
        names = (PIPELINE, REPLICATE, CUT, TENSOR)
        return init_device_mesh(self._device, shape, mesh_dim_names=names[: len(shape)])
