"""What is looked at before the first step: what must be alike on all ranks, their clocks, disks and
links."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import statistics
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tianti.errors import UserError
from tianti.files import MANIFEST, json_text, sha256_file
from tianti.messages import tr
from tianti.progress import Display
from tianti.units import format_bytes

# Seconds that a clock may differ, numbers that travel to measure a link, and how much slower than
# the others a rank is before that is said.
MOST_SKEW, LINK_NUMBERS, SLOW = 60.0, 1 << 20, 2.0


def refuse_what_differs(task: dict[str, Any], inputs: dict[str, Path]) -> None:
    """Compares every rank with the first.

    Args:
        task: what this rank is to do.
        inputs: folders it reads.

    Raises:
        UserError: on every rank, naming those that differ and in what.
    """
    here = {
        tr("recipe"): json_text(task),
        tr("data"): "".join(_described(path) for _, path in sorted(inputs.items())),
        tr("code"): _code(),
        "torch": torch.__version__,
    }
    mine = torch.tensor([_number(text) for text in here.values()])
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    for index, name in enumerate(here):
        others = [
            rank for rank, seen in enumerate(every) if seen[index].item() != every[0][index].item()
        ]
        if others:
            raise UserError(
                tr(
                    "{what} on rank {ranks} is not that on rank 0",
                    what=name,
                    ranks=_listed(others),
                ),
                where="train",
                remedy=tr("Give all ranks the same files and the same installation"),
            )


def refuse_what_is_wrong(out: Path, needed: float) -> None:
    """Looks at every rank's clock and disk.

    Args:
        out: where each writes its part of the checkpoints.
        needed: bytes of all of them together.

    Raises:
        UserError: on every rank, naming those where something is wrong.
    """
    dist.barrier()
    # What earlier checkpoints take, new ones get.
    earlier = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    room = float(shutil.disk_usage(out).free + earlier)
    seen = _of_all_ranks([time.time(), room])
    middle = statistics.median(clock for clock, _ in seen)
    late = [rank for rank, (clock, _) in enumerate(seen) if abs(clock - middle) > MOST_SKEW]
    if late:
        raise UserError(
            tr("the clock of rank {ranks} is wrong", ranks=_listed(late)),
            where="train",
            remedy=tr("Set it; the others' stands at {time}", time=_time(middle)),
        )
    full = [rank for rank, (_, room) in enumerate(seen) if room < needed]
    if full:
        raise UserError(
            tr(
                "rank {ranks} has no room for checkpoints of {needed}",
                ranks=_listed(full),
                needed=format_bytes(needed),
            ),
            where=out,
            remedy=tr("Free disk space, or lower train.keep_checkpoints"),
        )


def tell_speed(device: torch.device, display: Display) -> None:
    """Says how fast sums travel, and which ranks are slow."""
    speed, slow = slow_ranks(device)
    display.say(tr("Sums travel at {speed} a second", speed=format_bytes(speed)), "dim")
    if slow:
        display.say(
            tr("Rank {ranks} computes at less than half of the others' speed", ranks=_listed(slow)),
            "yellow",
        )


def slow_ranks(device: torch.device) -> tuple[float, list[int]]:
    """Measures how fast numbers travel, and how fast each rank computes.

    Args:
        device: of this rank.

    Returns:
        Bytes a second that a sum over all ranks passes through each, and the ranks that took more
        than `SLOW` times as long as the middle one for the same product.
    """
    numbers = torch.ones(LINK_NUMBERS, device=device)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        dist.all_reduce(numbers)
        numbers[0].item()
        times.append(time.perf_counter() - began)
        numbers.fill_(1.0)
    matrix = torch.ones(512, 512, device=device)
    alone = []
    for _ in range(4):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        alone.append(time.perf_counter() - began)
    seen = _of_all_ranks([min(alone)])
    middle = statistics.median(seconds for (seconds,) in seen)
    slow = [rank for rank, (seconds,) in enumerate(seen) if seconds > SLOW * middle]
    world = dist.get_world_size()
    return 2 * (world - 1) / world * 4 * LINK_NUMBERS / min(times), slow


def _of_all_ranks(values: list[float]) -> list[list[float]]:
    """Gives what every rank says, by rank."""
    mine = torch.tensor(values, dtype=torch.float64)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(every, mine)
    return [said.tolist() for said in every]


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(" ", "seconds")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _described(folder: Path) -> str:
    """Gives what tells a stage's folder from another: its manifest, which has its files' hashes."""
    manifest = folder / MANIFEST
    return sha256_file(manifest) if manifest.is_file() else ""


@cache
def _code() -> str:
    root = Path(__file__).parents[1]
    return "".join(sha256_file(path) for path in sorted(root.rglob("*.py")))
