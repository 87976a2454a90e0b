"""A run whose processes others start, on one machine or many: torchrun, or Slurm's srun.

The first rank carries out all stages; at training it writes down what is to be done, and the
others, who have waited for that, join it. All see the same files.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tianti import interruption
from tianti.errors import UserError
from tianti.files import read_json, write_json
from tianti.messages import tr
from tianti.progress import Display
from tianti.scale.launch import task_of
from tianti.scale.layout import refuse_nonsense, settle
from tianti.scale.place import Place, attempt_in
from tianti.scale.world import leave
from tianti.train.config import LayoutConfig, TrainStageConfig

# In the folder of the run: what all ranks of a start are to do.
CALL = ".ranks.json"
_POLL_SECONDS = 0.2


def train_with_others(
    config: TrainStageConfig,
    layout: LayoutConfig,
    place: Place,
    inputs: dict[str, Path],
    out: Path,
    run: Path,
    display: Display,
) -> dict[str, Any]:
    """Calls the other ranks and trains with them; see `tianti.train.stage.train`.

    Args:
        config: shape and settings.
        layout: as in the recipe.
        place: of this rank, the first.
        inputs: folders of `tokenizer` and `tokens`.
        out: where checkpoints and the log go.
        run: folder of the run, where the others wait.
        display: shows progress.

    Raises:
        UserError: something the user can mend, on every rank.
    """
    from tianti.scale.worker import take_part

    try:
        settled = settle(layout, place.world, place.local_world)
        refuse_nonsense(settled, config.settings.batch_rows)
    except UserError as error:
        dismiss_others(run, str(error))
        raise
    display.say(
        tr("{processes} processes: {layout}", processes=place.world, layout=settled.describe()),
        "dim",
    )
    task = task_of(config, settled, inputs)
    call = {"attempt": attempt_in(os.environ), "task": task, "out": str(out.resolve())}
    write_json(run / CALL, call)
    with _ended_when_another_is_gone():
        metrics = take_part(task, out, place)
    leave()
    return metrics


def dismiss_others(run: Path, error: str | None = None) -> None:
    """Tells the other ranks that there is nothing to train, or why it cannot be.

    Args:
        run: folder of the run.
        error: what is wrong.
    """
    call = {"attempt": attempt_in(os.environ), "task": None, "error": error}
    write_json(run / CALL, call)


def wait_and_take_part(run: Path, place: Place) -> None:
    """Waits until the first rank calls, and trains with it.

    Args:
        run: folder of the run.
        place: of this rank, not the first.

    Raises:
        UserError: something the user can mend, on every rank.
    """
    from tianti.scale.worker import take_part

    attempt = attempt_in(os.environ)
    while True:
        if (run / CALL).is_file():
            call = read_json(run / CALL)
            if call["attempt"] == attempt:
                break
        if (number := interruption.requested()) is not None:
            raise interruption.Interrupted(number)
        time.sleep(_POLL_SECONDS)
    if call["task"] is None:
        if call["error"]:
            raise UserError(call["error"])
        return
    with _ended_when_another_is_gone():
        take_part(call["task"], Path(call["out"]), place)
    leave()


@contextlib.contextmanager
def _ended_when_another_is_gone() -> Iterator[None]:
    from tianti.scale.worker import RankLost

    try:
        yield
    except RankLost as lost:
        # Who started the ranks starts them anew.
        print(lost, file=sys.stderr, flush=True)
        os._exit(1)
