"""Who trains together: found in the environment, joined, left."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

from tianti.errors import UserError
from tianti.messages import tr

TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that train together.

    Args:
        rank: its number among all.
        world: how many there are.
        local_rank: its number on this machine.
        local_world: how many are on this machine.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int


def place_in(environment: Mapping[str, str]) -> Place | None:
    """Gives the place that torchrun or Slurm's srun set; None where there is none.

    Raises:
        UserError: what is set is no place.
    """
    names = {
        "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    }
    for launcher, keys in names.items():
        if not all(key in environment for key in keys):
            continue
        try:
            place = Place(*(int(environment[key]) for key in keys))
        except ValueError:
            place = None
        if place is None or not (0 <= place.rank < place.world):
            given = ", ".join(f"{key}={environment[key]}" for key in keys)
            raise UserError(tr("{launcher} set no place: {given}", launcher=launcher, given=given))
        return place
    return None


def join(place: Place, device: torch.device, timeout: datetime.timedelta = TIMEOUT) -> None:
    """Joins the others: NCCL between GPUs, Gloo between CPUs and for what is agreed on.

    Args:
        place: of this process.
        device: it computes on.
        timeout: after which who waits for another gives up.
    """
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    dist.init_process_group(backend, rank=place.rank, world_size=place.world, timeout=timeout)


def leave() -> None:
    """Leaves the others."""
    if dist.is_initialized():
        dist.destroy_process_group()
