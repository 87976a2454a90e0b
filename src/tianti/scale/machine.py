"""How fast this machine is, measured."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tianti.progress import SILENT, Display
from tianti.scale.hardware import Device

if TYPE_CHECKING:
    import torch

_SIZE = {"cpu": 1536, "cuda": 8192}
_REPEATS = 10


def measure_machine(
    config: str, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Measures the matrix-product speed of a device.

    Args:
        config: the device, as in the recipe.
        inputs: none.
        out: not written to; the manifest holds the figures.
        display: shows progress.

    Returns:
        `device`, `name`, `matmul_flops` (floating-point operations a second in the precision
        training uses where nothing is said), `bfloat16_flops` (None where the device has no
        instructions for it), `cores`, `memory_bytes`.
    """
    import psutil
    import torch

    from tianti.device import choose_device

    device = choose_device(config)
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": str(device),
        "name": name,
        **speeds(device),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def speeds(device: torch.device) -> dict[str, float | None]:
    """Gives `matmul_flops` and `bfloat16_flops` of a device."""
    import torch

    from tianti.device import multiplies_bfloat16_fast, product_dtype

    usual = product_dtype(device)
    found: dict[str, float | None] = {"matmul_flops": matmul_flops(device.type, usual)}
    found["bfloat16_flops"] = None
    if multiplies_bfloat16_fast(device):
        half = torch.bfloat16
        again = usual == half
        found["bfloat16_flops"] = found["matmul_flops"] if again else matmul_flops("cpu", half)
    return found


def matmul_flops(device: str, dtype: torch.dtype) -> float:
    """Gives the best of some timed matrix products, in floating-point operations a second.

    Args:
        device: type of the device.
        dtype: of the factors.
    """
    import torch

    from tianti.model.products import matmul_transposed

    size = _SIZE[device]
    a = torch.randn(size, size, device=device, dtype=dtype)
    durations = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        matmul_transposed(a, a)
        if device == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - begin)
    return 2 * size**3 / min(durations)


def this_processor(precision: str = "float32") -> Device:
    """Gives this machine's processor, measured, as a device to plan for.

    Args:
        precision: of products.
    """
    import psutil
    import torch

    # What is measured is what a step computes with.
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    memory = psutil.virtual_memory().total / 2**30
    bandwidth = _copied_bytes() / 1e9
    return Device(
        name="cpu",
        kind="cpu",
        memory_gib=memory,
        bf16_tflops=matmul_flops("cpu", dtype) / 1e12,
        memory_gbps=bandwidth,
        # Several are several machines; 10 Gbit/s between them.
        link_gbps=1.25,
        network_gbps=1.25,
        per_machine=1,
        products=0.8,
        source="measured",
    )


def _copied_bytes() -> float:
    """Gives the bytes a second that copying reads and writes."""
    import torch

    source = torch.randn(1 << 24)
    target = torch.empty_like(source)
    durations = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        target.copy_(source)
        durations.append(time.perf_counter() - begin)
    return 2 * source.nbytes / sorted(durations)[len(durations) // 2]
