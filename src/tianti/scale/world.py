"""Joining those who train together, and leaving them."""

from __future__ import annotations

import datetime

import torch
import torch.distributed as dist

from tianti.scale.place import Place

TIMEOUT = datetime.timedelta(minutes=10)


def join(
    place: Place,
    device: torch.device,
    timeout: datetime.timedelta = TIMEOUT,
    store: dist.Store | None = None,
) -> None:
    """Joins the others: NCCL between GPUs, Gloo between CPUs and for what is agreed on.

    Args:
        place: of this process.
        device: it computes on.
        timeout: after which who waits for another gives up.
        store: that they have in common already; found by the environment when not given.
    """
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=place.rank, world_size=place.world, timeout=timeout
    )


def leave() -> None:
    """Leaves the others."""
    if dist.is_initialized():
        dist.destroy_process_group()
