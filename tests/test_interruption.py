from __future__ import annotations

import os
import signal

import pytest

from tianti import interruption
from tianti.interruption import Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_ordinary_work_at_once(number, code):
    with pytest.raises(Interrupted) as caught, interruption.signals_handled():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code


def test_deferring_work_is_asked_once_and_stopped_by_the_second_signal():
    with interruption.signals_handled(), interruption.deferred():
        assert interruption.requested() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested() == signal.SIGTERM
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruption.signals_handled():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert interruption.requested() is None
