"""Early stopping: which validation was the best, and when no better one is to be hoped for."""

from __future__ import annotations

import math

from tianti.train.checkpoint import TrainState


def note_validation(state: TrainState, cost: float, patience: int | None) -> bool:
    """Takes a validation into the state; tells whether it is the best so far.

    Args:
        state: holds the best validation and how many came since; changed here.
        cost: of this one, the less the better; see `tianti.train.objective.Steering`.
        patience: after so many without a better one training stops; None for never.
    """
    best = state.best_validation
    if best is None or math.isnan(best) or cost < best:
        state.best_validation, state.best_step = cost, state.step
        state.validations_since_best = 0
        return True
    state.validations_since_best += 1
    if patience is not None and state.validations_since_best >= patience:
        state.stopped = True
    return False
