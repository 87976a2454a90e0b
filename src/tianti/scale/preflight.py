"""What must be alike on all ranks before the first step: recipe, data, code, versions."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tianti.errors import UserError
from tianti.files import MANIFEST, json_text, sha256_file
from tianti.messages import tr


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
                    ranks=", ".join(map(str, others)),
                ),
                where="train",
                remedy=tr("Give all ranks the same files and the same installation"),
            )


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
