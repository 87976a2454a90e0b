"""One of the processes that train together: `python -m tianti.scale.worker TASK`."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch

from tianti import interruption
from tianti.device import choose_device, is_out_of_memory
from tianti.errors import UserError
from tianti.files import read_json, write_json
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.progress import SILENT, Display
from tianti.scale.launch import FAILURE, RESULT
from tianti.scale.layout import Layout
from tianti.scale.parallel import ManyRanks
from tianti.scale.preflight import refuse_what_differs
from tianti.scale.world import TIMEOUT, Place, join, leave, place_in
from tianti.train.config import TrainSettings, TrainStageConfig
from tianti.train.stage import train

# Seconds that who waits for another waits; for tests and slow disks.
PATIENCE = "TIANTI_RANKS_TIMEOUT"


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
    ranks: ManyRanks | None = None
    try:
        with interruption.signals_handled():
            device = device_of(read_json(task)["device"], place)
            seconds = os.environ.get(PATIENCE)
            join(place, device, datetime.timedelta(seconds=float(seconds)) if seconds else TIMEOUT)
            ranks = ManyRanks(Layout(**read_json(task)["layout"]), device)
            metrics = share(task, ranks, device, place)
        if ranks.first:
            write_json(out / RESULT, metrics)
        leave()
    except interruption.Interrupted as stopped:
        # The others leave too, each with what it holds saved.
        os._exit(stopped.exit_code)
    except UserError as error:
        _tell(out, error)
        os._exit(2)
    except RuntimeError as error:
        step = 0 if ranks is None else ranks.step
        if is_out_of_memory(error):
            _tell(
                out,
                UserError(
                    tr("there is not enough memory"),
                    where=f"train, rank {place.rank}",
                    remedy=tr("Lower train.micro_batch_rows or model.size"),
                ),
            )
            os._exit(2)
        if _is_a_loss(error):
            lost = tr("rank {rank} lost another at step {step}", rank=place.rank, step=step)
            print(lost, file=sys.stderr, flush=True)
            os._exit(1)
        if not _is_a_wait(error):
            _leave_at_once()
        _tell(
            out,
            UserError(
                tr("rank {rank} waited in vain for another", rank=place.rank),
                where=f"train, step {step}",
                remedy=tr(
                    "See which rank says nothing; the same command goes on from the last save"
                ),
            ),
        )
        os._exit(2)
    except Exception:  # noqa: BLE001 -- whatever it is, the others wait
        _leave_at_once()


def _end_with(parent: int) -> None:
    """Ends this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _leave_at_once() -> NoReturn:
    """Ends with a traceback, without waiting for a save that waits for others."""
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def share(task: Path, ranks: ManyRanks, device: torch.device, place: Place) -> dict[str, Any]:
    """Trains with the others.

    Args:
        task: what to do, as `tianti.scale.launch` wrote it.
        ranks: this one of them.
        device: that it computes on.
        place: where it stands.
    """
    wanted = read_json(task)
    inputs = {name: Path(path) for name, path in wanted["inputs"].items()}
    refuse_what_differs(wanted, inputs)
    settings = TrainSettings(**wanted["settings"])
    if settings.check_memory_every:
        raise UserError(
            tr("check_memory_every is for one process"),
            where="train.check_memory_every",
            remedy=tr("Leave it out, or train with one process"),
        )
    config = TrainStageConfig(TransformerConfig(**wanted["model"]), settings, str(device))
    display = Display() if ranks.first else SILENT
    return train(config, inputs, task.parent, display, ranks)


def device_of(name: str, place: Place) -> torch.device:
    """Gives the device a rank computes on: of several GPUs, the one of its number."""
    device = choose_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(device)
    return device


def _tell(out: Path, error: UserError) -> None:
    # All ranks may fail alike: any one's words will do.
    if not (out / FAILURE).is_file():
        where = None if error.where is None else str(error.where)
        write_json(out / FAILURE, {"what": error.what, "where": where, "remedy": error.remedy})


def _is_a_loss(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(
        words in text
        for words in ("connection reset", "connection closed", "connection refused", "broken pipe")
    )


def _is_a_wait(error: RuntimeError) -> bool:
    text = str(error).lower()
    return "timed out" in text or "timeout" in text


if __name__ == "__main__":
    main()
