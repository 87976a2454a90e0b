"""How fast this machine is, measured."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tianti.progress import SILENT, Display
from tianti.scale.hardware import Device

if TYPE_CHECKING:
    import torch

    from tianti.model.config import TransformerConfig

_SIZE = {"cpu": 1536, "cuda": 8192}
_REPEATS = 10
# Of what a processor is measured by: rows of products, and operations of one repetition.
MEASURED_ROWS, MEASURED_FLOPS = 4096, 2e10


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


def this_processor(shape: TransformerConfig, precision: str = "float32") -> Device:
    """Gives this machine's processor, measured, as a device to plan for.

    Args:
        shape: of the network: how fast products are depends on their widths.
        precision: of products.
    """
    import psutil
    import torch

    # What is measured is what a step computes with.
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    peak, products = matmul_flops("cpu", dtype), _layer_flops(shape, dtype)
    return Device(
        name="cpu",
        kind="cpu",
        memory_gib=psutil.virtual_memory().total / 2**30,
        bf16_tflops=peak / 1e12,
        memory_gbps=_copied_bytes() / 1e9,
        # Several are several machines; 10 Gbit/s between them.
        link_gbps=1.25,
        network_gbps=1.25,
        per_machine=1,
        products=products / peak,
        attention=_attention_flops(shape, dtype) / products,
        orthogonalizing=_batched_flops(shape, dtype) / products,
        source="measured",
    )


def _layer_flops(shape: TransformerConfig, dtype: torch.dtype) -> float:
    """Gives the floating-point operations a second of a feed-forward's products, there and back."""
    import torch

    from tianti.model.products import linear

    width, inner = shape.width, shape.expert_width or shape.mlp_width
    each = 6 * 3 * inner * width
    rows = int(min(max(MEASURED_FLOPS / each, 64), MEASURED_ROWS))
    inputs = [torch.randn(rows, size, dtype=dtype, requires_grad=True) for size in (width, inner)]
    weights = [torch.randn(2 * inner, width, dtype=dtype), torch.randn(width, inner, dtype=dtype)]
    slopes = [torch.randn(rows, len(weight), dtype=dtype) for weight in weights]

    def pass_through() -> None:
        for x, weight, slope in zip(inputs, weights, slopes, strict=True):
            weight.requires_grad_()
            torch.autograd.grad(linear(x, weight), (x, weight), slope)

    return rows * each / _usual_seconds(pass_through)


def _attention_flops(shape: TransformerConfig, dtype: torch.dtype) -> float:
    """Gives the same of causal attention, whose half that is looked at counts."""
    import torch

    time_ = min(shape.context, MEASURED_ROWS)
    each = 6 * shape.attention_width * time_**2
    batch = int(min(max(MEASURED_FLOPS / each / 4, 1), MEASURED_ROWS / time_))
    sizes = (batch, shape.num_heads, time_, shape.head_dim)
    query, key, value = (torch.randn(sizes, dtype=dtype, requires_grad=True) for _ in range(3))
    slope = torch.randn(sizes, dtype=dtype)

    def attend() -> None:
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        torch.autograd.grad(found, (query, key, value), slope)

    return batch * each / _usual_seconds(attend)


def _batched_flops(shape: TransformerConfig, dtype: torch.dtype) -> float:
    """Gives the same of Muon's products, of several square matrices at once."""
    import torch

    side = min(shape.width, 2048)
    matrices = torch.randn(2, side, side, dtype=dtype)
    return 2 * 2 * side**3 / _usual_seconds(lambda: torch.bmm(matrices, matrices))


def _usual_seconds(work: Callable[[], object]) -> float:
    """Gives the middle one of some durations, after the first."""
    durations = []
    for _ in range(_REPEATS + 1):
        begin = time.perf_counter()
        work()
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations[1:])


def _copied_bytes() -> float:
    """Gives the bytes a second that copying reads and writes."""
    import torch

    source = torch.randn(1 << 24)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _usual_seconds(lambda: target.copy_(source))
