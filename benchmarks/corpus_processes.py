"""Runs a command and counts what all its processes take."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil

_SUBREAPER = 36


@dataclass
class Run:
    """What a command took.

    Args:
        wall: seconds.
        cpu: seconds, user and system, of all its processes.
        rss: peak of the sum of resident memory over its processes, bytes.
        output: what it printed.
    """

    wall: float
    cpu: float
    rss: int
    output: str

    def figures(self, documents: int) -> dict[str, Any]:
        """Gives the row of the table."""
        return {
            "documents": documents,
            "wall_seconds": round(self.wall, 2),
            "cpu_seconds": round(self.cpu, 2),
            "documents_per_second": round(documents / self.wall, 1),
            "documents_per_cpu_second": round(documents / self.cpu, 1),
            "peak_rss_mb": round(self.rss / 1e6, 1),
        }


def measured(command: list[str]) -> Run:
    """Runs a command and counts what all its processes take, killed ones too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0]
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(child.pid, peak, done))
    watcher.start()
    output, errors = child.communicate()
    wall = time.perf_counter() - started
    done.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors[-4000:]}")
    _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu, peak[0], output)


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(0.05):
        total = 0
        try:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], total)


def adopt_orphans() -> None:
    """Makes orphaned grandchildren ours, so that what killed workers took is counted (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)


def _reap() -> None:
    """Waits for the adopted ones."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        process.send_signal(signal.SIGKILL)
