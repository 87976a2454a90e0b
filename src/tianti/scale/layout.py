"""How a network is laid out over many devices, with nothing left open."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.errors import UserError
from tianti.messages import tr
from tianti.train.config import LayoutConfig


@dataclass(frozen=True)
class Layout:
    """A layout with nothing left open.

    Args:
        replicate: copies of the network that share a batch.
        shard: devices over which each copy is cut.
        context: devices that share the tokens of each row; a copy is cut over these too.
        tensor: devices that share each product of a layer. This and what follows is reckoned with
            by the planner alone: training does not have it yet.
        pipeline: stages of layers.
        expert: of the devices of `shard` and `context`, those that share the experts.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    pipeline: int = 1
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

    def degrees(self) -> dict[str, int]:
        """Gives what is shared by more than one device, by name."""
        return {name: value for name, value in vars(self).items() if value > 1}

    def describe(self) -> str:
        """Gives the layout in a few words."""
        parts = [f"{name} {value}" for name, value in self.degrees().items()]
        return " × ".join(parts) or tr("one device")


ONE_DEVICE = Layout()


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
    groups = max(devices // config.context, 1)
    if config.shard != "auto":
        shard = config.shard
    else:
        # Cut within a machine, copied between machines: what is cut travels at every layer.
        within = max(per_machine // config.context, 1)
        shard = max(groups // copies, 1) if copies else min(groups, within)
    layout = Layout(copies or max(groups // shard, 1), shard, config.context)
    if layout.devices != devices:
        raise UserError(
            tr(
                "layout {layout} is for {wanted} devices, there are {devices}",
                layout=" × ".join(
                    f"{name} {getattr(layout, name)}" for name in LayoutConfig.model_fields
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
