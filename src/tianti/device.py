"""Where and in which precision training runs, and whether the step is compiled."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from contextlib import AbstractContextManager

import torch

from tianti.errors import UserError
from tianti.messages import tr


def choose_device(name: str) -> torch.device:
    """Gives the device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(
            tr("there is no device {name!r}", name=name),
            where="device",
            remedy=tr("Use auto, cpu, cuda or cuda:N"),
        )
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            tr("there is no CUDA device here"), where=f"device={name}", remedy=tr("Use device=cpu")
        )
    return device


def product_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Gives the precision of matrix products.

    Args:
        device: that computes.
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 on a GPU that has it, else float32.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if able else torch.float32


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager[object]:
    """Has forward passes compute products in the precision of `product_dtype`."""
    if product_dtype(device, precision) == torch.bfloat16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Tells whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compute_deterministically() -> None:
    """Has every operation of this process give the same bits each time, at some speed."""
    # cuBLAS may use several streams otherwise, each with what is free of one workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def memory_bytes(device: torch.device) -> int:
    """Gives the memory of a device in bytes, whether free or not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    import psutil

    return psutil.virtual_memory().total


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that memory ran out; PyTorch has no one type for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def why_not_compiled(device: torch.device) -> str | None:
    """Gives why steps cannot be compiled here, or None when they can; compiles a trifle to know."""
    if device.type == "cpu" and not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name
    ):
        return tr("no C++ compiler found")
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 -- whatever the compiler's reason, it is the answer
        return str(error).strip().splitlines()[0][:200]
    return None
