"""Which steps must not touch the weights: those that are not finite, and sudden spikes."""

from __future__ import annotations

import math
import statistics
from typing import Literal

from tianti.train.checkpoint import TrainState

Verdict = Literal["not finite", "spike"]
# As in OLMo 2 (arXiv:2501.00656, section 3.1): six standard deviations above the last 128 steps.
WINDOW, LEAST, DEVIATIONS = 128, 64, 6.0
# Less than this above the mean is no spike, however even the steps before were.
_RISE = 0.1


def judge(state: TrainState, loss: float, norm: float) -> Verdict | None:
    """Says what is wrong with a step, and takes what is right into the running statistics.

    Args:
        state: holds the last good losses and norms; extended here.
        loss: nats per token.
        norm: of the gradient, before clipping.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return "not finite"
    if _is_spike(state.losses, loss) or _is_spike(state.norms, norm):
        return "spike"
    for window, value in ((state.losses, loss), (state.norms, norm)):
        window.append(value)
        del window[:-WINDOW]
    return None


def _is_spike(window: list[float], value: float) -> bool:
    if len(window) < LEAST:
        return False
    mean = statistics.fmean(window)
    return value > mean + max(DEVIATIONS * statistics.pstdev(window, mean), _RISE * mean)
