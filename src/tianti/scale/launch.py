"""Training by several processes of this machine: started, watched, started anew when one dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tianti import interruption
from tianti.errors import UserError
from tianti.files import read_json, write_json
from tianti.messages import tr
from tianti.progress import SILENT, Display
from tianti.scale.layout import refuse_nonsense, settle
from tianti.train.config import LayoutConfig, TrainStageConfig

TASK, RESULT, FAILURE = "task.json", "result.json", "failure.json"
# How often processes that were lost are started anew before that is taken for an error.
RESTARTS = 20
_POLL_SECONDS = 0.1


def train_on_many(
    config: TrainStageConfig,
    layout: LayoutConfig,
    processes: int,
    inputs: dict[str, Path],
    out: Path,
    display: Display = SILENT,
) -> dict[str, Any]:
    """Does the train stage in several processes; see `tianti.train.stage.train`.

    Args:
        config: shape and settings.
        layout: as in the recipe.
        processes: how many.
        inputs: folders of `tokenizer` and `tokens`.
        out: where checkpoints and the log go.
        display: shows that it goes on; the first process shows the rest.

    Raises:
        UserError: something the user can mend, as any of the processes found it.
        Interrupted: a signal asked to stop; everything done is saved.
    """
    settled = settle(layout, processes, processes)
    refuse_nonsense(settled, config.settings.batch_rows)
    display.say(
        tr("{processes} processes: {layout}", processes=processes, layout=settled.describe()), "dim"
    )
    task = out / TASK
    for name in (RESULT, FAILURE):
        (out / name).unlink(missing_ok=True)
    write_json(
        task,
        {
            "model": config.model.as_dict(),
            "settings": config.settings.model_dump(mode="json"),
            "device": config.device,
            "layout": asdict(settled),
            "inputs": {name: str(path.resolve()) for name, path in inputs.items()},
        },
    )
    code = _watched(processes, task)
    if (out / FAILURE).is_file():
        failure = read_json(out / FAILURE)
        raise UserError(failure["what"], where=failure["where"], remedy=failure["remedy"])
    if code or not (out / RESULT).is_file():
        raise UserError(
            tr("processes were lost again and again (exit code {code})", code=code),
            where="train",
            remedy=tr("What they said stands above; the same command goes on from the last save"),
        )
    metrics = read_json(out / RESULT)
    for name in (TASK, RESULT):
        (out / name).unlink()
    return metrics


def _watched(processes: int, task: Path) -> int:
    """Starts the processes and waits for them; gives the exit code of who watches them."""
    cores = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(cores)} | os.environ
    command = [sys.executable, "-m", "tianti.scale.agent", str(processes), str(task.resolve())]
    with interruption.deferred():
        agent = subprocess.Popen(command, env=environment)
        told = False
        while (code := agent.poll()) is None:
            if interruption.requested() is not None and not told:
                agent.terminate()
                told = True
            time.sleep(_POLL_SECONDS)
        number = interruption.requested()
    if number is not None:
        raise interruption.Interrupted(number)
    return code
