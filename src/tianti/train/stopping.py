"""Early stopping: which validation was the best, and when no better one is to be hoped for."""

from __future__ import annotations

from tianti.train.checkpoint import TrainState


def note_validation(state: TrainState, bits_per_byte: float, patience: int | None) -> bool:
    """Takes a validation into the state; tells whether it is the best so far.

    Args:
        state: holds the best validation and how many came since; changed here.
        bits_per_byte: of this one.
        patience: after so many without a better one training stops; None for never.
    """
    if state.best_validation is None or bits_per_byte < state.best_validation:
        state.best_validation, state.best_step = bits_per_byte, state.step
        state.validations_since_best = 0
        return True
    state.validations_since_best += 1
    if patience is not None and state.validations_since_best >= patience:
        state.stopped = True
    return False
