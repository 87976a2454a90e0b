"""Works in forked processes that a test kills: torch is imported once for hundreds of them.

Called with token splits it trains, called with a recipe it carries that out. Reads a folder a line,
works there, and says the process's number, then how it ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from tests.train.test_trainer import trainer
from tianti import interruption
from tianti.recipe import Recipe
from tianti.runs import runner

STEPS, SAVED_EVERY = 40, 1e-9
STOPPED = 43


def train(splits: Path, out: Path) -> None:
    """Trains to the end, from what lies in the folder."""
    made = trainer(splits, out, budget=f"{STEPS} steps", save_every=SAVED_EVERY, validate_every=7)
    with interruption.signals_handled():
        made.fit()


def carry_out(recipe: Path, out: Path) -> None:
    """Carries out what is left of a recipe."""
    runner.carry_out(Recipe.load(recipe), out)


def main() -> None:
    """Serves until its input ends."""
    torch.set_num_threads(1)
    given = Path(sys.argv[1])
    work = carry_out if given.is_file() else train
    for line in sys.stdin:
        out = Path(line.strip())
        out.mkdir(exist_ok=True)
        process = os.fork()
        if not process:
            try:
                work(given, out)
            except interruption.Interrupted:
                os._exit(STOPPED)
            os._exit(0)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
