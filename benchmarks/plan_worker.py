"""Trains a few steps of one configuration and says what they took; see `plan.py`."""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from typing import Any


def main() -> None:
    """Prints seconds of a step, peak resident memory, and that before there was a network."""
    import torch
    from train_peers import Shape
    from train_speed import our_step

    given: dict[str, Any] = json.loads(sys.argv[1])
    shape = Shape(**given["shape"])
    torch.set_num_threads(given["threads"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = our_step(shape, **given["options"])
    for _ in range(3):
        step(None, None)
    times: list[float] = []
    until = time.perf_counter() + given["seconds"]
    while time.perf_counter() < until or len(times) < 3:
        begun = time.perf_counter()
        step(None, None)
        times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": statistics.median(times), "peak": peak, "before": before}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
