"""How a network is laid out over many devices, with nothing left open."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.errors import UserError
from tianti.messages import tr
from tianti.train.config import LayoutConfig


@dataclass(frozen=True)
class Place:
    """Where a rank stands in a layout: its number among those that share something.

    Args:
        pipeline: of its stages.
        replicate: of its copy.
        cut: among those over which its copy is cut.
        tensor: among those who share products.
        rows: of the rows of a batch that it computes.
    """

    pipeline: int
    replicate: int
    cut: int
    tensor: int
    rows: int


@dataclass(frozen=True)
class Layout:
    """A layout with nothing left open.

    Args:
        replicate: copies of the network that share a batch.
        shard: devices over which each copy is cut.
        context: devices that share the tokens of each row; a copy is cut over these too.
        tensor: devices that share each product of a layer.
        pipeline: devices among which layers are shared out.
        stages: pieces into which the layers of each of these are cut.
        expert: of the devices of `shard`, `context` and `tensor`, those that share out experts.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    pipeline: int = 1
    stages: int = 1
    expert: int = 1

    @property
    def devices(self) -> int:
        """Gives the number of all."""
        return self.replicate * self.shard * self.context * self.tensor * self.pipeline

    @property
    def cut(self) -> int:
        """Gives over how many devices the weights of a copy are cut."""
        return self.shard * self.context

    @property
    def row_groups(self) -> int:
        """Gives into how many parts the rows of a step are shared."""
        return self.replicate * self.shard

    @property
    def spread_experts(self) -> bool:
        """Tells whether experts are cut over other devices than what all tokens pass through."""
        return self.expert > 1 or self.tensor > 1

    def place(self, rank: int) -> Place:
        """Gives where a rank stands; `tianti.scale.mesh` numbers them alike."""
        inner, tensor = divmod(rank, self.tensor)
        outer, cut = divmod(inner, self.cut)
        pipeline, replicate = divmod(outer, self.replicate)
        rows = replicate * self.shard + cut // self.context
        return Place(pipeline, replicate, cut, tensor, rows)

    def degrees(self) -> dict[str, int]:
        """Gives what is shared by more than one device, by name."""
        return {name: value for name, value in vars(self).items() if value > 1}

    def describe(self) -> str:
        """Gives the layout in a few words."""
        parts = [f"{name} {value}" for name, value in self.degrees().items()]
        return " × ".join(parts) or tr("one device")


ONE_DEVICE = Layout()
_AS_SAID = ("context", "tensor", "pipeline", "stages", "expert")


def settle(config: LayoutConfig, devices: int, per_machine: int) -> Layout:
    """Gives the layout for so many devices.

    Args:
        config: what was said.
        devices: of all machines.
        per_machine: of one, between which links are fast.

    Raises:
        UserError: no layout of that many devices is what was said.
    """
    copies = None if config.replicate == "auto" else config.replicate
    model = config.tensor * config.pipeline
    groups = max(devices // (config.context * model), 1)
    if config.shard != "auto":
        shard = config.shard
    else:
        # Cut within a machine, copied between machines: what is cut travels at every layer.
        within = max(per_machine // (config.context * config.tensor), 1)
        shard = max(groups // copies, 1) if copies else min(groups, within)
    fixed = {name: getattr(config, name) for name in _AS_SAID}
    layout = Layout(copies or max(groups // shard, 1), shard, **fixed)
    if layout.devices != devices:
        raise UserError(
            tr(
                "layout {layout} is for {wanted} devices, there are {devices}",
                layout=" × ".join(
                    f"{name} {value}"
                    for name, value in vars(layout).items()
                    if value > 1 or name in ("replicate", "shard")
                ),
                wanted=layout.devices,
                devices=devices,
            ),
            where="layout",
            remedy=tr("Their product must be the number of devices; leave one of them at auto"),
        )
    return layout


def refuse_nonsense(layout: Layout, batch_rows: int, context: int) -> None:
    """Refuses what cannot be trained in this layout, before anything is begun.

    Args:
        layout: the layout.
        batch_rows: rows of a step.
        context: tokens of a row.

    Raises:
        UserError: it cannot.
    """
    if context % (2 * layout.context):
        raise UserError(
            tr(
                "{tokens} tokens of a row cannot be shared evenly by {parts} devices",
                tokens=context,
                parts=layout.context,
            ),
            where="layout.context",
            remedy=tr("model.context must be a multiple of {number}", number=2 * layout.context),
        )
    if batch_rows % layout.row_groups:
        upper = batch_rows + -batch_rows % layout.row_groups
        raise UserError(
            tr(
                "{rows} rows of a step cannot be shared evenly by {parts} devices",
                rows=batch_rows,
                parts=layout.row_groups,
            ),
            where="train.batch_tokens",
            remedy=tr(
                "Set train.batch_tokens={tokens}, or take fewer devices", tokens=upper * context
            ),
        )
