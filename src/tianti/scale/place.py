"""Where a process stands among those that train together, as who started it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tianti.errors import UserError
from tianti.messages import tr

ADDRESS = {"MASTER_ADDR", "MASTER_PORT"}


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
        # Of the step that srun starts: a batch script alone has the places of its job without it.
        "srun": (
            "SLURM_PROCID",
            "SLURM_STEP_NUM_TASKS",
            "SLURM_LOCALID",
            "SLURM_STEP_TASKS_PER_NODE",
        ),
    }
    for launcher, keys in names.items():
        if not all(key in environment for key in keys):
            continue
        try:
            # "8(x4)" is 8 on each of 4 machines.
            place = Place(*(int(environment[key].split("(")[0].split(",")[0]) for key in keys))
        except ValueError:
            place = None
        if place is None or not (0 <= place.rank < place.world):
            given = ", ".join(f"{key}={environment[key]}" for key in keys)
            raise UserError(tr("{launcher} set no place: {given}", launcher=launcher, given=given))
        if place.world > 1 and not environment.keys() >= ADDRESS:
            raise UserError(
                tr("{launcher} does not say where the first rank is", launcher=launcher),
                remedy=tr("Set MASTER_ADDR and MASTER_PORT to the same for all"),
            )
        return place
    return None
