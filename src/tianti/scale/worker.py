"""One of the processes that train together: `python -m tianti.scale.worker TASK`."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tianti import interruption
from tianti.device import choose_device, is_out_of_memory
from tianti.errors import UserError
from tianti.files import read_json, write_json
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.progress import SILENT, Display
from tianti.scale.cost import training_cost
from tianti.scale.launch import FAILURE, RESULT
from tianti.scale.layout import Layout
from tianti.scale.parallel import ManyRanks
from tianti.scale.place import Place, place_in
from tianti.scale.preflight import refuse_what_differs, refuse_what_is_wrong, tell_speed
from tianti.scale.world import TIMEOUT, join, leave
from tianti.train.config import TrainSettings, TrainStageConfig
from tianti.train.stage import train
from tianti.tune.derive import TuneStageConfig
from tianti.tune.stage import tune

# Seconds that who waits for another waits; for tests and slow disks.
PATIENCE = "TIANTI_RANKS_TIMEOUT"
# What Gloo and NCCL say when the other end is gone.
GONE = (
    "connection reset",
    "connection closed",
    "connection refused",
    "broken pipe",
    "remote process exited",
)


class RankLost(Exception):
    """Another rank is gone; all start anew from the last checkpoint."""


def main() -> None:
    """Does this process's share; what the user can mend goes into a file for who started it."""
    task = Path(sys.argv[1])
    out = task.parent
    if (out / FAILURE).is_file():
        # Started anew after an error that starting anew does not mend.
        sys.exit(2)
    place = place_in(os.environ)
    assert place is not None
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # None waits for a save that waits for others: each exit is at once.
    try:
        with interruption.signals_handled():
            metrics = take_part(read_json(task), out, place)
        if place.rank == 0:
            write_json(out / RESULT, metrics)
        leave()
    except interruption.Interrupted as stopped:
        os._exit(stopped.exit_code)
    except UserError as error:
        _tell(out, error)
        os._exit(2)
    except RankLost as lost:
        print(lost, file=sys.stderr, flush=True)
        os._exit(1)
    except Exception:  # noqa: BLE001 -- whatever it is, the others wait
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def take_part(
    task: dict[str, Any], out: Path, place: Place, store: dist.Store | None = None
) -> dict[str, Any]:
    """Joins the others and trains with them; see `tianti.train.stage.train`.

    Args:
        task: what to do, as `tianti.scale.launch.settled_task` gives it.
        out: where checkpoints and the log go.
        place: of this rank.
        store: that the ranks have in common already.

    Raises:
        UserError: something the user can mend.
        RankLost: another rank is gone.
        Interrupted: a signal asked to stop; everything done is saved.
    """
    ranks: ManyRanks | None = None
    try:
        device = device_of(task["device"], place)
        seconds = os.environ.get(PATIENCE)
        timeout = datetime.timedelta(seconds=float(seconds)) if seconds else TIMEOUT
        join(place, device, timeout, store)
        precision, vocabulary = task["settings"]["precision"], task["model"]["vocab_size"]
        ranks = ManyRanks(Layout(**task["layout"]), device, vocabulary, precision)
        return share(task, out, ranks, device)
    except RuntimeError as error:
        raise _understood(error, place, 0 if ranks is None else ranks.step) from error


def _understood(error: RuntimeError, place: Place, step: int) -> Exception:
    """Gives the error that says what happened between the ranks; any other as it is."""
    if is_out_of_memory(error):
        return UserError(
            tr("there is not enough memory"),
            where=f"train, rank {place.rank}",
            remedy=tr("Lower train.micro_batch_rows or model.size"),
        )
    text = str(error).lower()
    if any(words in text for words in GONE):
        return RankLost(tr("rank {rank} lost another at step {step}", rank=place.rank, step=step))
    if "timed out" in text or "timeout" in text:
        return UserError(
            tr("rank {rank} waited in vain for another", rank=place.rank),
            where=f"train, step {step}",
            remedy=tr("See which rank is silent; the same command goes on from the last save"),
        )
    return error


def _end_with(parent: int) -> None:
    """Ends this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def share(
    task: dict[str, Any], out: Path, ranks: ManyRanks, device: torch.device
) -> dict[str, Any]:
    """Trains with the others.

    Args:
        task: what to do.
        out: where checkpoints and the log go.
        ranks: this one of them.
        device: that it computes on.
    """
    inputs = {name: Path(path) for name, path in task["inputs"].items()}
    refuse_what_differs(task, inputs)
    settings = TrainSettings(**task["settings"])
    if settings.check_memory_every:
        raise UserError(
            tr("check_memory_every is for one process"),
            where="train.check_memory_every",
            remedy=tr("Leave it out, or train with one process"),
        )
    shape = TransformerConfig(**task["model"])
    display = Display() if ranks.first else SILENT
    tuned = (
        TuneStageConfig.of(task["tune"], shape, settings, str(device)) if "tune" in task else None
    )
    # Adapters are a small part of what all weights would take.
    small = tuned is not None and tuned.tune.method != "full"
    cost = training_cost(shape, settings, 0.0, 0.0)
    refuse_what_is_wrong(out, 0.0 if small else cost.checkpoint_disk)
    tell_speed(device, display)
    if tuned is not None:
        return tune(tuned, inputs, out, display, ranks)
    return train(TrainStageConfig(shape, settings, str(device)), inputs, out, display, ranks)


def device_of(name: str, place: Place) -> torch.device:
    """Gives the device a rank computes on: of several GPUs, the one of its number."""
    device = choose_device(name)
    if device.type == "cuda":
        if place.local_rank >= (there := torch.cuda.device_count()):
            raise UserError(
                tr(
                    "{processes} processes, but {there} GPUs here",
                    processes=place.local_world,
                    there=there,
                ),
                where="train",
                remedy=tr("Start one process for each GPU"),
            )
        device = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(device)
    return device


def _tell(out: Path, error: UserError) -> None:
    # All ranks may fail alike: any one's words will do.
    if not (out / FAILURE).is_file():
        where = None if error.where is None else str(error.where)
        write_json(out / FAILURE, {"what": error.what, "where": where, "remedy": error.remedy})


if __name__ == "__main__":
    main()
