"""From a budget to a number of steps."""

from __future__ import annotations

import time
from statistics import median

from tianti.units import Budget

WARM_STEPS = 3
MEASURED_STEPS = 12
RESERVED_SHARE = 0.05


def steps_of_budget(budget: Budget, *, tokens_per_step: int, epoch_tokens: int) -> int | None:
    """Gives the steps of a budget in steps, tokens or epochs; None for wall time.

    Args:
        budget: the budget.
        tokens_per_step: tokens of one step.
        epoch_tokens: tokens of one pass over the training split.
    """
    if budget.kind == "seconds":
        return None
    if budget.kind == "steps":
        return max(1, round(budget.amount))
    tokens = budget.amount * (epoch_tokens if budget.kind == "epochs" else 1)
    return max(1, round(tokens / tokens_per_step))


class StepClock:
    """Turns a wall-time budget into steps by timing the first ones.

    The first `WARM_STEPS` do not count (allocation, compilation); the median of the next
    `MEASURED_STEPS` is what a step takes. From then on the number of steps is fixed, so that the
    schedule, the end and every resume are as exact as with a budget in steps. `RESERVED_SHARE` of
    the time is held back for validation and saving.
    """

    def __init__(self, seconds: float):
        self._deadline_seconds = seconds
        self._begin = self._last = time.perf_counter()
        self._durations: list[float] = []

    def after_step(self, steps_done: int) -> int | None:
        """Says that a step ended; gives the number of steps in all once it is known."""
        now = time.perf_counter()
        self._durations.append(now - self._last)
        self._last = now
        elapsed = now - self._begin
        measured = self._durations[WARM_STEPS:]
        if len(measured) < MEASURED_STEPS and elapsed < self._deadline_seconds / 3:
            return None
        usable = (self._deadline_seconds - elapsed) * (1 - RESERVED_SHARE)
        return steps_done + max(0, int(usable / median(measured or self._durations)))
