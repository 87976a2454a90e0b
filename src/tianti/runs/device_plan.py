"""What a recipe takes on devices that are not here: the best layouts, in memory, time and money."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tianti.errors import UserError
from tianti.messages import tr
from tianti.recipe import Recipe
from tianti.runs.fingerprint import plain
from tianti.runs.plan import text_bytes
from tianti.scale.derive import Derivation, Facts, derive
from tianti.scale.hardware import Device, load_table, parse_devices
from tianti.scale.planner import (
    MEMORY_ERROR,
    TIME_ERROR,
    Choice,
    plan_layouts,
    what_would_fit,
)


@dataclass(frozen=True)
class DevicePlan:
    """The best layouts of a recipe on some devices.

    Args:
        count: devices.
        device: their kind.
        derivation: every setting with its reason.
        choices: the best layouts, the best one first.
        price: of a device and hour, in whatever money.
        remedy: what would fit, where nothing does.
    """

    count: int
    device: Device
    derivation: Derivation
    choices: list[Choice]
    price: float | None = None
    remedy: str | None = None

    @property
    def fits(self) -> bool:
        """Tells whether any layout does."""
        return self.choices[0].estimate.fits

    def settings(self) -> list[str]:
        """Gives what the best layout has to be told, as `a.b=c`."""
        work = self.choices[0].estimate.work
        tokens = work.settings.batch_rows * work.shape.context
        return [
            f"train.batch_tokens={tokens}",
            f"layout.replicate={work.layout.replicate}",
            f"layout.shard={work.layout.shard}",
            f"layout.context={work.layout.context}",
            f"train.micro_batch_rows={work.micro_rows}",
            f"train.activation_checkpointing={work.checkpointing}",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Gives the plan as plain values."""
        derivation = self.derivation
        return {
            "devices": {"count": self.count, **asdict(self.device)},
            "model": derivation.model.as_dict()
            | {
                "parameters": derivation.model.num_parameters(),
                "active_parameters": derivation.model.num_active_parameters(),
            },
            "train": plain(derivation.train),
            "tokens": derivation.tokens,
            "flops": derivation.model.flops_per_token() * derivation.tokens,
            "fits": self.fits,
            "layouts": [choice.as_dict(derivation.tokens, self.price) for choice in self.choices],
            "settings": self.settings(),
            "remedy": self.remedy,
            "error": {"time": TIME_ERROR, "memory": MEMORY_ERROR},
        }


def plan_for_devices(
    recipe: Recipe,
    devices: str,
    *,
    hardware: Path | None = None,
    figures: dict[str, float] | None = None,
    price: float | None = None,
) -> DevicePlan:
    """Foretells a training on devices of the hardware table.

    Args:
        recipe: what to train.
        devices: such as `64xH100-80GB`; `4xCPU` are machines like this one, which is measured.
        hardware: a JSON file of further devices.
        figures: of the device, in place of the table's.
        price: of a device and hour.

    Raises:
        UserError: an unknown device, or a step that so many cannot share.
    """
    if recipe.tune is not None:
        raise UserError(
            tr("a tuning is planned for this machine alone"),
            where="--devices",
            remedy=tr("Leave it out"),
        )
    table = load_table(hardware)
    if devices.lower().endswith("cpu"):
        table["cpu"] = _this_processor(recipe)
    count, device = parse_devices(devices, table, figures)
    # Peaks are in bfloat16, and steps are derived from what products reach.
    speed = device.bf16_tflops * 1e12 * device.products * count
    facts = Facts(text_bytes(recipe), speed, "cuda" if device.kind != "cpu" else "cpu", True)
    derivation = derive(recipe, facts)
    shape, settings = derivation.model, derivation.train
    choices = plan_layouts(shape, settings, count, device)
    fits = choices[0].estimate.fits
    remedy = None if fits else what_would_fit(shape, settings, count, device)
    return DevicePlan(count, device, derivation, choices, price, remedy)


def _this_processor(recipe: Recipe) -> Device:
    """Gives this machine's processor as it is with a network of the size that will be derived."""
    import torch

    from tianti.scale.machine import speeds, this_processor

    measured = speeds(torch.device("cpu"))["matmul_flops"]
    assert measured is not None
    facts = Facts(text_bytes(recipe), measured, "cpu", True)
    return this_processor(derive(recipe, facts).model, recipe.train.precision)
