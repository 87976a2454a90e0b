"""The figures that validations of tunings steer by."""

from tianti.train.objective import Steering

STEERINGS = {
    "loss": Steering("loss", "val loss"),
    "accuracy": Steering("accuracy", "val acc", more_is_better=True),
    "macro_f1": Steering("macro_f1", "val F1", more_is_better=True),
    "micro_f1": Steering("micro_f1", "val F1", more_is_better=True),
    "span_f1": Steering("span_f1", "val F1", more_is_better=True),
}
