"""SIGINT and SIGTERM as a request that long work answers at a safe point."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """The user or the system asked to stop, and the work has been put away safely."""

    def __init__(self, signal_number: int):
        self.exit_code = 128 + signal_number
        super().__init__(signal.Signals(signal_number).name)


_received: int | None = None
_deferred = 0


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None or not _deferred:
        # The second request, or one outside of work that can put itself away: stop right here.
        _received = number
        raise Interrupted(number)
    _received = number


@contextlib.contextmanager
def signals_handled() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into `Interrupted` while the block runs (main thread only)."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _received = None
    for number in previous:
        signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _received = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Holds a first request back while the block runs; the block asks `requested()` itself."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


def requested() -> int | None:
    """Gives the signal that asked to stop, if one did."""
    return _received
