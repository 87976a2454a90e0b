"""What a training descends, and by which figure its validation steers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from tianti.objective.causal import Rows


@dataclass(frozen=True)
class Steering:
    """The figure of a validation that says which weights are the best.

    Args:
        name: of the figure; the log has it as `validation_NAME`.
        shown: what the progress bar calls it.
        more_is_better: whether a higher one is.
    """

    name: str
    shown: str
    more_is_better: bool = False

    def cost(self, figures: dict[str, float]) -> float:
        """Gives what is the less the better."""
        return -figures[self.name] if self.more_is_better else figures[self.name]

    def value(self, cost: float | None) -> float | None:
        """Gives the figure of a cost."""
        return -cost if cost is not None and self.more_is_better else cost


class RowsLoss(Protocol):
    """What an objective finds of some rows.

    Attributes:
        total: what is descended, summed, a scalar tensor.
        nats: what is reported of it: the plain cross-entropy, or of numbers the squared error.
    """

    @property
    def total(self) -> Tensor: ...  # noqa: D102 - see above
    @property
    def nats(self) -> Tensor: ...  # noqa: D102


class Objective(Protocol):
    """A network with what it is trained for; all it gives are sums over rows.

    Attributes:
        steering: the figure that validation steers by.
    """

    steering: Steering

    def __call__(self, rows: Rows) -> Any:
        """Gives the loss of some rows, a `RowsLoss`."""
        ...

    def tally(self, found: Any, rows: Rows) -> Tensor:
        """Gives what figures are computed from, numbers that add up over rows, float64.

        Args:
            found: what the objective gave for the rows.
            rows: they.
        """
        ...

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Gives the figures of a validation from the sum of all tallies."""
        ...
