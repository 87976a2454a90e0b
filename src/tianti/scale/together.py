"""A run whose processes others start, on one machine or many: torchrun, or Slurm's srun.

The first rank carries out all stages; at training it says in the ranks' common store what is to be
done, and the others, who have waited for that, join it. All see the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tianti.errors import UserError
from tianti.progress import Display
from tianti.scale.launch import settled_task
from tianti.scale.place import Place
from tianti.scale.worker import RankLost, take_part
from tianti.scale.world import leave
from tianti.train.config import LayoutConfig, TrainStageConfig
from tianti.tune.derive import TuneStageConfig

_CALL, _HEARD = "tianti-call", "tianti-heard"
_POLL_SECONDS = 0.2
# How long the first rank, which may keep the store, stays for the others to hear it.
_PATIENCE_SECONDS = 60.0


class Others:
    """The other ranks of one start, as each rank sees them.

    Args:
        place: of this rank.
    """

    def __init__(self, place: Place):
        self.place = place
        self._said = False
        # Every start has a store of its own, so nobody hears what was said in an earlier one.
        self._store, *_ = next(dist.rendezvous("env://", place.rank, place.world))

    def train(
        self,
        config: TrainStageConfig | TuneStageConfig,
        layout: LayoutConfig,
        inputs: dict[str, Path],
        out: Path,
        display: Display,
    ) -> dict[str, Any]:
        """Calls the other ranks and trains with them; see `tianti.scale.launch.train_on_many`.

        Args:
            config: shape and settings; of a tuning what for, too.
            layout: as in the recipe.
            inputs: folders that it reads.
            out: where checkpoints and the log go.
            display: shows progress.

        Raises:
            UserError: something the user can mend.
        """
        place = self.place
        task = settled_task(config, layout, place.world, place.local_world, inputs, display)
        self._say({"task": task, "out": str(out.resolve())})
        with _ended_when_another_is_gone():
            metrics = take_part(task, out, place, self._store)
        leave()
        return metrics

    def dismiss(self, error: str | None = None) -> None:
        """Tells the others, if they still wait, that there is nothing to train, or what is wrong.

        Args:
            error: what is wrong.
        """
        if not self._said:
            self._say({"task": None, "error": error})

    def wait_and_train(self) -> None:
        """Waits until the first rank calls, and trains with it.

        Raises:
            UserError: something the user can mend.
            Interrupted: a signal asked to stop.
        """
        with _ended_when_another_is_gone():
            call = self._heard()
            if call["task"] is not None:
                take_part(call["task"], Path(call["out"]), self.place, self._store)
                leave()
            elif call["error"]:
                raise UserError(call["error"])

    def _say(self, call: dict[str, Any]) -> None:
        self._said = True
        self._store.set(_CALL, json.dumps(call))
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._store.add(_HEARD, 0) < self.place.world - 1 and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _heard(self) -> dict[str, Any]:
        try:
            while not self._store.check([_CALL]):
                time.sleep(_POLL_SECONDS)
            call = json.loads(self._store.get(_CALL))
            self._store.add(_HEARD, 1)
        except dist.DistError as error:
            raise RankLost(str(error)) from error
        return call


@contextlib.contextmanager
def _ended_when_another_is_gone() -> Iterator[None]:
    try:
        yield
    except RankLost as lost:
        # Who started the ranks starts them anew.
        print(lost, file=sys.stderr, flush=True)
        os._exit(1)
