"""Trains in forked processes that a test kills: torch is imported once for hundreds of them.

Reads a folder a line, trains there, and says the process's number, then how it ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from tests.train.test_trainer import trainer

STEPS, SAVED_EVERY = 40, 1e-9


def train(splits: Path, out: Path) -> None:
    """Trains to the end, from what lies in the folder."""
    trainer(splits, out, budget=f"{STEPS} steps", save_every=SAVED_EVERY, validate_every=7).fit()


def main() -> None:
    """Serves until its input ends."""
    torch.set_num_threads(1)
    splits = Path(sys.argv[1])
    for line in sys.stdin:
        out = Path(line.strip())
        out.mkdir(exist_ok=True)
        process = os.fork()
        if not process:
            train(splits, out)
            os._exit(0)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
