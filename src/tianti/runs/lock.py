"""One writer a run: a lock of the operating system, which a killed process cannot leave behind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tianti.errors import UserError, os_errors_named
from tianti.messages import tr

LOCK = ".lock"
OWNER = ".lock-owner"


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Holds the run while the block runs.

    The lock is the kernel's (flock), so it ends with its process however that ends; the owner file
    is only there to name who holds it.

    Raises:
        UserError: another process holds it.
    """
    with os_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                tr("another process is writing this run ({owner})", owner=_owner(folder)),
                where=folder,
                remedy=tr("Wait for it, stop it, or choose another folder with --out"),
            ) from error
    try:
        with os_errors_named(folder):
            (folder / OWNER).write_text(f"{socket.gethostname()}:{os.getpid()}", "utf-8")
        yield
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER).read_text("utf-8")
    except OSError:
        return "?"
