"""One trial: the recipe with some settings, trained by a process of its own and watched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tianti import interruption
from tianti.files import read_json
from tianti.runs.lock import LOCK
from tianti.runs.stages import STAGES, TUNE_STAGES
from tianti.runs.verify import PARTIAL
from tianti.train.log import read_log

POLL_SECONDS = 0.25
MESSAGES = "messages.txt"
KEPT = ("recipe.yaml", "log.jsonl", MESSAGES)
Watch = Callable[[int, float], bool]


class Pruned(Exception):
    """The watcher has seen enough."""


class TrialFailed(Exception):
    """The training ended with an error, which the message says."""


def link_stages(base: Path, folder: Path) -> None:
    """Makes what is prepared once a part of a trial's run, without a copy."""
    for stage in (*STAGES, *TUNE_STAGES):
        if (base / stage.name).is_dir() and not (folder / stage.name).exists():
            partial = folder / f".{stage.name}.linking"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(base / stage.name, partial, copy_function=_link)
            partial.rename(folder / stage.name)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without links.
        shutil.copy2(source, target)


def train(
    recipe: Path, settings: list[str], folder: Path, watch: Watch, figure: str
) -> dict[str, Any]:
    """Trains with some settings, and lets go as soon as `watch` says so.

    Args:
        recipe: the recipe.
        settings: overrides.
        folder: of the trial's run; what lies there is gone on with.
        watch: called with number and figure of each validation; gives whether to stop.
        figure: what of a validation counts, such as `bits_per_byte`.

    Returns:
        The metrics of the train stage.

    Raises:
        Pruned: `watch` said to stop.
        TrialFailed: training ended with an error.
        Interrupted: a signal asked to stop; the training has been put away.
    """
    _wait_for_another_process(folder)
    command = [sys.executable, "-m", "tianti", "run", str(recipe), *settings]
    command += ["--out", str(folder), "--until", "train"]
    with open(folder / MESSAGES, "wb") as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            # A group of its own: Ctrl-C reaches it through us, and all it started ends with it.
            start_new_session=True,
        )
        with _ended_in_any_case(process):
            _follow(process, folder, watch, figure)
    if process.returncode:
        raise TrialFailed(_last_words(folder))
    return read_json(folder / "train" / "manifest.json")["metrics"]


def _follow(process: subprocess.Popen, folder: Path, watch: Watch, figure: str) -> None:
    seen = 0
    while True:
        ended = process.poll() is not None
        values = validations(folder, figure)
        for place, value in enumerate(values[seen:], seen + 1):
            if watch(place, value):
                raise Pruned
        seen = max(seen, len(values))
        if ended:
            return
        if (number := interruption.requested()) is not None:
            process.terminate()
            process.wait()
            raise interruption.Interrupted(number)
        time.sleep(POLL_SECONDS)


def validations(folder: Path, figure: str) -> list[float]:
    """Gives a figure of each validation of a trial so far."""
    key = f"validation_{figure}"
    return [row[key] for row in _log(folder) if key in row]


def _log(folder: Path) -> list[dict[str, Any]]:
    finished = folder / "train" / "log.jsonl"
    return read_log(finished if finished.is_file() else folder / PARTIAL / "train" / "log.jsonl")


@contextlib.contextmanager
def _ended_in_any_case(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_another_process(folder: Path) -> None:
    """Waits while a process that a killed search left behind still trains here."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    while True:
        try:
            lock.acquire()
        except Timeout:
            if (number := interruption.requested()) is not None:
                raise interruption.Interrupted(number) from None
            time.sleep(POLL_SECONDS)
        else:
            lock.release()
            return


def _last_words(folder: Path) -> str:
    lines = (folder / MESSAGES).read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "?"


def forget(folder: Path) -> None:
    """Deletes all of a trial that takes room; its log stays."""
    if not folder.is_dir():
        return
    log = folder / "train" / "log.jsonl"
    kept = log if log.is_file() else folder / PARTIAL / "train" / "log.jsonl"
    if kept.is_file():
        shutil.copy2(kept, folder / "log.jsonl")
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in KEPT:
            path.unlink()
