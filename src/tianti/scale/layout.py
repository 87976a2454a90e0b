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
    """

    replicate: int = 1
    shard: int = 1

    @property
    def devices(self) -> int:
        """Gives the number of all."""
        return self.replicate * self.shard

    def describe(self) -> str:
        """Gives the layout in a few words."""
        parts = [f"{name} {value}" for name, value in vars(self).items() if value > 1]
        return " × ".join(parts) or tr("one device")


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
    if config.shard != "auto":
        shard = config.shard
    else:
        # Cut within a machine, copied between machines: what is cut travels at every layer.
        shard = max(devices // copies, 1) if copies else min(devices, per_machine)
    layout = Layout(copies or max(devices // shard, 1), shard)
    if layout.devices != devices:
        raise UserError(
            tr(
                "layout {layout} is for {wanted} devices, there are {devices}",
                layout=f"replicate {layout.replicate} × shard {layout.shard}",
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
    if batch_rows % layout.devices:
        upper = batch_rows + -batch_rows % layout.devices
        raise UserError(
            tr(
                "{rows} rows of a step cannot be shared evenly by {parts} devices",
                rows=batch_rows,
                parts=layout.devices,
            ),
            where="train.batch_tokens",
            remedy=tr(
                "Set train.batch_tokens={tokens}, or take fewer devices", tokens=upper * context
            ),
        )
