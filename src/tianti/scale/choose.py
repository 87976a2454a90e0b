"""The layout of devices that are there, where the recipe leaves it open."""

from __future__ import annotations

from dataclasses import replace

from tianti.model.config import TransformerConfig
from tianti.scale.estimate import estimate
from tianti.scale.hardware import Device
from tianti.scale.layout import Layout, fills, settle
from tianti.scale.planner import layouts
from tianti.scale.work import Work
from tianti.train.config import LayoutConfig, TrainSettings

# How much faster than the plain one another layout must be.
WORTH = 1.05


def choose_layout(
    config: LayoutConfig,
    shape: TransformerConfig,
    settings: TrainSettings,
    devices: int,
    per_machine: int,
    device: Device | None,
) -> Layout:
    """Gives the layout as it was said or, of known devices and with nothing said, the best.

    The plain one, cut within a machine and copied between machines, is taken where it fits and
    none is faster by more than estimates err.

    Args:
        config: what was said.
        shape: the network.
        settings: of training, which stay as they are.
        devices: of all machines.
        per_machine: of one.
        device: their kind; None when it is not in the table.

    Raises:
        UserError: no layout of that many devices is what was said.
    """
    plain = settle(config, devices, per_machine)
    if device is None or config != LayoutConfig():
        return plain
    device = replace(device, per_machine=per_machine)
    tried = [
        estimate(Work(shape, settings, layout), device)
        for layout in layouts(devices, shape, per_machine)
        if _shares_rows(layout, settings)
    ]
    tried = [found for found in tried if found.fits]
    if not tried:
        return plain
    best = min(tried, key=lambda found: found.seconds.total)
    usual = [found for found in tried if found.work.layout == plain]
    if usual and usual[0].seconds.total <= WORTH * best.seconds.total:
        return plain
    return best.work.layout


def _shares_rows(layout: Layout, settings: TrainSettings) -> bool:
    """Tells whether the rows of a step can be shared out as they are."""
    rows, over = divmod(settings.batch_rows, layout.row_groups)
    if over:
        return False
    at_once = min(settings.micro_batch_rows, rows)
    return layout.pipeline == 1 or (rows % at_once == 0 and fills(rows // at_once, layout))
