"""The figures that validations of tunings steer by."""

from tianti.train.objective import Steering
from tianti.tune.config import TuneConfig

STEERINGS = {
    "loss": Steering("loss", "val loss"),
    "accuracy": Steering("accuracy", "val acc", more_is_better=True),
    "macro_f1": Steering("macro_f1", "val F1", more_is_better=True),
    "micro_f1": Steering("micro_f1", "val F1", more_is_better=True),
    "span_f1": Steering("span_f1", "val F1", more_is_better=True),
}
_USUAL = {"classify": "macro_f1", "tag": "span_f1", "reward": "accuracy", "prefer": "accuracy"}


def steering_of(tune: TuneConfig) -> Steering:
    """Gives the figure that the validation of a tuning steers by."""
    if tune.steer != "auto":
        return STEERINGS[tune.steer]
    if tune.task == "prefer" and tune.preference == "kto":
        # Single answers are in no order.
        return STEERINGS["loss"]
    return STEERINGS[_USUAL.get(tune.task, "loss")]
