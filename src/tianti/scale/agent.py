"""Starts the processes that train together, by torchrun's own agent: `python -m …agent N TASK`."""

from __future__ import annotations

import logging
import sys
import uuid

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tianti.scale.launch import RESTARTS


def main() -> None:
    """Watches the processes; exits with 1 when they were lost too often."""
    processes, task = int(sys.argv[1]), sys.argv[2]
    # What a process has to say it says itself.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=RESTARTS,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "tianti.scale.worker", task)
    except ChildFailedError:
        sys.exit(1)
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)


if __name__ == "__main__":
    main()
