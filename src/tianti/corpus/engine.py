"""Carries tasks out on Daft's runners: this machine's processes, or a Ray cluster.

The only file that imports Daft. A task is small (names of files and settings), reads and writes
files itself, and leaves the same files whoever carries it out: a lost worker costs its task only.
Daft runs in a process of its own, because Ctrl-C while it calls Python can abort the interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from tianti.errors import UserError, not_installed
from tianti.messages import tr

Task = dict[str, Any]
_MAX_DEATHS = 3
# Below so many bytes of text, starting workers costs more than they save: of text that takes long
# (pages, quality, languages, encoding), and of text that is hardly looked at.
WORTH_WORKERS = 48 << 20
WORTH_WORKERS_LIGHT = 512 << 20


def run_tasks(
    function: str,
    tasks: list[Task],
    *,
    runner: str = "native",
    workers: int = 1,
    on_result: Callable[[Any], None] = lambda result: None,
) -> None:
    """Calls a function once for every task, in any order.

    Args:
        function: `module:function`, of one task, giving JSON values.
        tasks: what it is called with: JSON values, each with a `name`.
        runner: `native` or `ray`.
        workers: processes; with one, or one task, the native runner stays in this process.
        on_result: called with what each task gave, as it comes.

    Raises:
        UserError: what a task raised, or a worker died again and again.
    """
    if runner == "native" and (workers == 1 or len(tasks) <= 1):
        for task in tasks:
            on_result(load(function)(task))
        return
    if runner == "ray" and importlib.util.find_spec("ray") is None:
        raise not_installed("ray", "ray", "corpus.engine")
    deaths = 0
    while tasks:
        done = set()
        # After a death without any result, one at a time: so the task that kills is known.
        now = tasks[:1] if deaths else tasks
        for index, result in _in_child(function, now, runner, workers):
            done.add(index)
            on_result(result)
        tasks = [task for index, task in enumerate(tasks) if index not in done]
        deaths = 0 if done else deaths + 1
        if tasks and deaths >= _MAX_DEATHS:
            raise UserError(
                tr("a worker died {count} times", count=deaths),
                where=_place(tasks[0]),
                remedy=tr("If memory ran out, lower corpus.workers"),
            )


def _place(task: Task) -> str:
    """Gives the first file of a task, by which a person knows it; else its name."""
    files = task.get("files") or [{}]
    return files[0].get("path") or task["name"]


def load(function: str) -> Callable[[Task], Any]:
    """Gives the function of a `module:function` name."""
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def _in_child(
    function: str, tasks: list[Task], runner: str, workers: int
) -> Iterator[tuple[int, Any]]:
    """Gives `(index, result)` of the tasks that were done before the child ended."""
    environment = os.environ | {
        "DAFT_ANALYTICS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "true",
        "DAFT_PROGRESS_BAR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The runner shares the cores among processes; threads inside each would only crowd them.
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tianti.corpus.engine"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    order = {"function": function, "tasks": tasks, "runner": runner, "workers": workers}
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(order))
            child.stdin.close()
        for line in child.stdout:
            if not line.startswith("{"):
                continue
            answer = json.loads(line)
            if "user_error" in answer:
                what, where, remedy = answer["user_error"]
                raise UserError(what, where=where, remedy=remedy)
            if "error" in answer:
                raise RuntimeError(answer["error"])
            yield answer["index"], answer["result"]
    finally:
        # The whole session: Daft's workers are the child's own children.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        child.stderr.close()


def _die_with_parent() -> None:
    """Ends this process when its parent does, where the system can (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _carry_out(function: str, text: str) -> str:
    """Does one task in a worker; what it raises comes back as a value."""
    import traceback

    order = json.loads(text)
    try:
        answer = {"index": order["index"], "result": load(function)(order["task"])}
    except UserError as error:
        answer = {"user_error": [error.what, str(error.where), error.remedy]}
    except Exception:  # noqa: BLE001 - it is raised again where it can be seen
        answer = {"error": traceback.format_exc()}
    return json.dumps(answer)


def _main() -> None:
    _die_with_parent()
    order = json.loads(sys.stdin.read())
    import daft

    if order["runner"] == "ray":
        daft.set_runner_ray(os.environ.get("RAY_ADDRESS"))
    else:
        daft.set_runner_native()
    function = order["function"]

    @daft.cls(max_concurrency=order["workers"], use_process=True)
    class Worker:
        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
        def work(self, tasks: daft.Series) -> list[str]:
            _die_with_parent()
            return [_carry_out(function, task) for task in tasks.to_pylist()]

    texts = [
        json.dumps({"index": index, "task": task}) for index, task in enumerate(order["tasks"])
    ]
    frame = daft.from_pydict({"task": texts})
    on_ray = order["runner"] == "ray"
    frame = frame.into_partitions(len(texts)) if on_ray else frame.into_batches(1)
    work: Any = Worker().work
    for row in frame.select(work(frame["task"]).alias("answer")).iter_rows():
        print(row["answer"], flush=True)


if __name__ == "__main__":
    _main()
