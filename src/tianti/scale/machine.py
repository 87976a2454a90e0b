"""How fast this machine is, measured."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from tianti.progress import SILENT, Display

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
        training uses), `cores`, `memory_bytes`.
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
        "matmul_flops": matmul_flops(device.type),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def matmul_flops(device: str) -> float:
    """Gives the best of some timed matrix products, in floating-point operations a second."""
    import torch

    from tianti.model.products import matmul_transposed

    size = _SIZE[device]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    durations = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        matmul_transposed(a, a)
        if device == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - begin)
    return 2 * size**3 / min(durations)
