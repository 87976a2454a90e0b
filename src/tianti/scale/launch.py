"""Training by several processes of this machine: started, watched, started anew when one dies."""

from __future__ import annotations

import os
import signal
import socket
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
from tianti.scale.choose import choose_layout
from tianti.scale.cost import refuse_what_cannot_fit
from tianti.scale.hardware import Device, load_table, recognize
from tianti.scale.layout import Layout, refuse_nonsense, refuse_untunable, settle
from tianti.train.checkpoint import newest_step
from tianti.train.config import LayoutConfig, TrainStageConfig
from tianti.train.trainer import CHECKPOINTS
from tianti.tune.derive import TuneStageConfig

TASK, RESULT, FAILURE = "task.json", "result.json", "failure.json"
# How often processes are started anew without any getting further before that is an error.
MOST_IN_VAIN = 3
_POLL_SECONDS = 0.1
# How long who has lost another may take to end.
_GRACE_SECONDS = 3.0


def train_on_many(
    config: TrainStageConfig | TuneStageConfig,
    layout: LayoutConfig,
    processes: int,
    inputs: dict[str, Path],
    out: Path,
    display: Display = SILENT,
) -> dict[str, Any]:
    """Does the train stage in several processes; see `tianti.train.stage.train`, and
    `tianti.tune.stage.tune`.

    Args:
        config: shape and settings; of a tuning what for, too.
        layout: as in the recipe.
        processes: how many.
        inputs: folders that it reads.
        out: where checkpoints and the log go.
        display: shows that it goes on; the first process shows the rest.

    Raises:
        UserError: something the user can mend, as any of the processes found it.
        Interrupted: a signal asked to stop; everything done is saved.
    """
    wanted = settled_task(config, layout, processes, processes, inputs, display)
    task = out / TASK
    for name in (RESULT, FAILURE):
        (out / name).unlink(missing_ok=True)
    write_json(task, wanted)
    code = _watched(processes, task, display)
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


def settled_task(
    config: TrainStageConfig | TuneStageConfig,
    layout: LayoutConfig,
    processes: int,
    per_machine: int,
    inputs: dict[str, Path],
    display: Display,
) -> dict[str, Any]:
    """Gives as plain values what every process is to do, and says how many there are.

    Args:
        config: shape and settings; of a tuning what for, too.
        layout: as in the recipe.
        processes: of all machines.
        per_machine: of this one.
        inputs: folders that it reads.
        display: is told.

    Raises:
        UserError: so many processes cannot do it.
    """
    settled = _settled(config, layout, processes, per_machine)
    display.say(
        tr("{processes} processes: {layout}", processes=processes, layout=settled.describe()), "dim"
    )
    return {
        "model": config.model.as_dict(),
        "settings": config.settings.model_dump(mode="json"),
        "device": config.device,
        "layout": asdict(settled),
        "inputs": {name: str(path.resolve()) for name, path in inputs.items()},
        **({"tune": config.as_dict()} if isinstance(config, TuneStageConfig) else {}),
    }


def _settled(
    config: TrainStageConfig | TuneStageConfig,
    layout: LayoutConfig,
    processes: int,
    per_machine: int,
) -> Layout:
    """Gives the layout of so many processes; see `settled_task`."""
    if isinstance(config, TuneStageConfig):
        # Rows are shared out unevenly too, and of what adapters stand beside little is held.
        settled = settle(layout, processes, per_machine)
        refuse_untunable(settled)
        return settled
    shape, settings, kind = config.model, config.settings, _kind(config.device)
    settled = choose_layout(layout, shape, settings, processes, per_machine, kind)
    refuse_nonsense(settled, shape, settings)
    refuse_what_cannot_fit(config, settled, per_machine)
    return settled


def _kind(name: str) -> Device | None:
    """Gives the figures of the GPUs that train, where they are known."""
    # Here, because a run with nothing to do can be spared it.
    import torch

    from tianti.device import choose_device, memory_bytes

    device = choose_device(name)
    if device.type != "cuda":
        return None
    return recognize(torch.cuda.get_device_name(device), memory_bytes(device), load_table())


def _watched(processes: int, task: Path, display: Display) -> int:
    """Starts the processes and waits for them; gives 0, or the exit code of who failed last."""
    out, vain, code = task.parent, 0, 1
    while vain < MOST_IN_VAIN:
        before = newest_step(out / CHECKPOINTS)
        with interruption.deferred():
            group = _Group(processes, task)
            try:
                code = group.wait()
            finally:
                group.end()
        if (number := interruption.requested()) is not None:
            raise interruption.Interrupted(number)
        if not code or (out / FAILURE).is_file():
            return code
        step = newest_step(out / CHECKPOINTS)
        vain = vain + 1 if step == before else 0
        display.say(
            tr(
                "A process was lost (exit code {code}): going on from step {step}",
                code=code,
                step=step,
            ),
            "yellow",
        )
    return code


class _Group:
    """Processes that train together, each told its place as torchrun tells it.

    Args:
        processes: how many.
        task: what they are to do.
    """

    def __init__(self, processes: int, task: Path):
        cores = max(1, (os.cpu_count() or 1) // processes)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "tianti.scale.worker", str(task.resolve())]
        self.members = []
        for rank in range(processes):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
            place |= {"LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
            environment = {"OMP_NUM_THREADS": str(cores)} | os.environ
            environment |= {name: str(value) for name, value in place.items()}
            environment["MASTER_ADDR"] = "127.0.0.1"
            # Ctrl-C is for this process, which passes it on once.
            member = subprocess.Popen(command, env=environment, start_new_session=True)
            self.members.append(member)

    def wait(self) -> int:
        """Waits until all have ended, or one has failed; passes on a request to stop.

        Returns:
            0, or the exit code of who failed.
        """
        stopped = None
        while True:
            codes = [member.poll() for member in self.members]
            # Who was told to stop may end before another has saved.
            if failed := [code for code in codes if code not in (None, 0, stopped)]:
                return failed[0] or 0
            if None not in codes:
                return 0
            if stopped is None and interruption.requested() is not None:
                stopped = 128 + signal.SIGTERM
                for member in self.members:
                    member.terminate()
            time.sleep(_POLL_SECONDS)

    def end(self) -> None:
        """Ends who is left: what it holds is saved already, or would be of no use alone."""
        until = time.monotonic() + _GRACE_SECONDS
        for member in self.members:
            try:
                # Who was told to stop, or found the same mistake, ends by itself.
                member.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.kill()
                member.wait()
