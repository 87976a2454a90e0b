"""Devices whose figures are known: a table that comes along, and files that extend it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tianti.errors import UserError
from tianti.messages import tr

TABLE = Path(__file__).with_name("hardware.json")
# What can be said of a device by itself.
FIGURES = (
    "memory_gib",
    "bf16_tflops",
    "float8_tflops",
    "memory_gbps",
    "link_gbps",
    "network_gbps",
    "per_machine",
    "watts",
    "products",
    "attention",
    "orthogonalizing",
)
# How far from the table's a driver's memory may be: it keeps some for itself.
MEMORY_SAID = 0.1
_NUMBERED = re.compile(r"(?:(\d+)\s*[x×*]\s*)?(\S.*)")


@dataclass(frozen=True)
class Device:
    """A device as its maker describes it: peaks that none reaches.

    Args:
        name: as in the table.
        kind: `gpu`, `tpu` or `cpu`.
        memory_gib: memory in GiB.
        bf16_tflops: 10¹² floating-point operations a second of dense products in bfloat16; of a
            CPU in float32.
        memory_gbps: 10⁹ bytes a second between memory and processor.
        link_gbps: 10⁹ bytes a second that one device sends to those of its machine.
        network_gbps: the same to other machines.
        per_machine: devices in a machine.
        watts: power; 0 where the maker says none.
        float8_tflops: of products in 8 bits; None where there are none.
        domain: devices that `link_gbps` joins, where more than a machine's.
        products: share of the peak that large matrix products reach.
        attention: share of their speed that attention reaches; None for what its kind does.
        orthogonalizing: share of it that Muon's products reach; None for what is usual.
        source: where the figures are from.
    """

    name: str
    kind: str
    memory_gib: float
    bf16_tflops: float
    memory_gbps: float
    link_gbps: float
    network_gbps: float
    per_machine: int
    watts: float = 0.0
    float8_tflops: float | None = None
    domain: int | None = None
    products: float = 0.77
    attention: float | None = None
    orthogonalizing: float | None = None
    source: str = ""

    @property
    def memory(self) -> float:
        """Gives the memory in bytes."""
        return self.memory_gib * 2**30

    def bandwidth(self, span: int) -> float:
        """Gives the bytes a second that each of `span` neighbouring devices can send.

        Args:
            span: devices from the first to the last of those that speak with each other.
        """
        within = span <= (self.domain or self.per_machine)
        return (self.link_gbps if within else self.network_gbps) * 1e9


def load_table(extra: Path | None = None) -> dict[str, Device]:
    """Gives all known devices by name.

    Args:
        extra: a JSON file in the form of `hardware.json`, whose devices come first.

    Raises:
        UserError: the file is none.
    """
    table = {name: Device(name, **values) for name, values in _read(TABLE).items()}
    if extra is not None:
        for name, values in _read(extra).items():
            table[name] = _device(name, values, extra)
    return table


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            tr("the hardware table cannot be read: {reason}", reason=error), where=path
        ) from error
    if not isinstance(found, dict):
        raise UserError(tr("a mapping of keys is wanted"), where=path)
    return found


def _device(name: str, values: Any, path: Path) -> Device:
    try:
        device = Device(name, **{"kind": "gpu", "source": str(path), **values})
        for figure in FIGURES:
            value = getattr(device, figure)
            if value is not None and not float(value) > 0 and figure != "watts":
                raise ValueError(f"{figure} = {value}")
    except (TypeError, ValueError) as error:
        raise UserError(
            tr("the figures of {name} are wrong: {reason}", name=name, reason=error),
            where=path,
            remedy=tr("Wanted: {names}", names=", ".join(FIGURES)),
        ) from error
    return device


def parse_devices(
    text: str, table: dict[str, Device], figures: dict[str, float] | None = None
) -> tuple[int, Device]:
    """Gives how many devices of which kind `64xH100-80GB` names.

    Args:
        text: a number, `x`, and a name of the table, of which the beginning will do.
        table: known devices.
        figures: of the device, in place of the table's; all that are needed describe an unknown
            one.

    Raises:
        UserError: the device is not known, or its name is that of several.
    """
    matched = _NUMBERED.fullmatch(text.strip())
    if matched is None or not int(matched[1] or 1):
        raise UserError(
            tr("{text!r} names no devices", text=text),
            where="--devices",
            remedy=tr("Write such as 64xH100-80GB"),
        )
    return int(matched[1] or 1), _named(matched[2], table, figures or {})


def _named(name: str, table: dict[str, Device], figures: dict[str, float]) -> Device:
    wanted = _plain(name)
    found = [device for known, device in table.items() if _plain(known) == wanted]
    # The first is the usual one: H100 is the one of 80 GB.
    if not found and len(wanted) > 2:
        found = [device for known, device in table.items() if wanted in _plain(known)]
    if found:
        return replace(found[0], **figures)  # type: ignore[arg-type]
    needed = ("memory_gib", "bf16_tflops", "memory_gbps", "link_gbps")
    if all(key in figures for key in needed):
        usual = {"network_gbps": figures["link_gbps"], "per_machine": 8}
        return Device(name=name, kind="gpu", source="", **usual | figures)  # type: ignore[arg-type]
    raise UserError(
        tr("the device {name} is not known", name=name),
        where="--devices",
        remedy=tr(
            "Known: {names}; or describe it: --figure memory_gib=… --figure bf16_tflops=… "
            "--figure memory_gbps=… --figure link_gbps=…",
            names=", ".join(table),
        ),
    )


def recognize(name: str, memory: float, table: dict[str, Device]) -> Device | None:
    """Gives the device that a driver calls so, or None.

    Args:
        name: such as `NVIDIA H100 80GB HBM3`.
        memory: that it says to have, in bytes.
        table: known devices.
    """
    for known, device in table.items():
        if _plain(known.split("-")[0]) in _plain(name) and (
            abs(memory / device.memory - 1) < MEMORY_SAID
        ):
            return device
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("nvidia").removeprefix("amd"))
