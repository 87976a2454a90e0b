from __future__ import annotations

import pytest

from tianti import progress
from tianti.progress import Display


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_are_plain_lines_now_and_then(clock, capsys):
    with Display().task("train", 1000, "steps") as task:
        for _ in range(30):
            clock[0] += 1
            task.advance(10, loss="3.2")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"  train  {done}/1k steps ({done // 10}%)  ETA {eta}  loss 3.2"
        for done, eta in ((100, "1m 30s"), (200, "1m 20s"), (300, "1m 10s"))
    ]


def test_what_was_done_before_does_not_count_for_the_rate(clock):
    with Display(quiet=True).task("train", 100, "steps") as task:
        task.start_at(50)
        clock[0] += 10
        task.update(60)
        assert task.rate() == pytest.approx(1.0)
        assert "ETA 40s" in task.line()


def test_quiet_shows_nothing(clock, capsys):
    display = Display(quiet=True)
    display.say("hello")
    with display.task("x") as task:
        clock[0] += 60
        task.advance()
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar_and_it_goes_away(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    display = Display()
    assert display.live
    with display.task("train", 10, "steps") as task:
        task.advance(5, loss="1.0")
        display.say("a line above the bar")
        assert display._progress is not None
        assert display._progress.tasks[0].percentage == 50
    assert display._progress is None
    assert "a line above the bar" in capsys.readouterr().err


def test_an_error_inside_a_task_ends_its_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    display = Display()
    with pytest.raises(RuntimeError), display.task("x", 1):
        raise RuntimeError
    assert display._progress is None
    assert progress.SILENT.quiet
