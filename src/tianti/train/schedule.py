"""The learning rate of each step as a share of its peak: a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then what `kind` says, ending at `final`.

    Args:
        kind: `wsd` stays at the peak and falls linearly over the last `decay_share` of the steps
            (Hu et al. 2024, arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392); `cosine` falls
            all the way; `constant` stays.
        total_steps: steps in all.
        warmup_steps: steps of warm-up.
        decay_share: share of all steps that decay, for `wsd`.
        final: share of the peak at the end.
    """

    kind: Literal["wsd", "cosine", "constant"]
    total_steps: int
    warmup_steps: int
    decay_share: float
    final: float

    def at(self, step: int) -> float:
        """Gives the share of the peak learning rate for a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            length = max(self.total_steps - self.warmup_steps, 1)
            done = min((step - self.warmup_steps) / length, 1.0)
            return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))
        decay_steps = max(round(self.total_steps * self.decay_share), 1)
        left = min((self.total_steps - step) / decay_steps, 1.0)
        return self.final + (1 - self.final) * max(left, 0.0)
