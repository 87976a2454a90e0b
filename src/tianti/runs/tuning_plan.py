"""The dry run of a tuning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tianti.recipe import Recipe
from tianti.runs.plan import Planned, status_of, warnings_of
from tianti.runs.runner import default_folder
from tianti.runs.tuning import base_of, derive_tuning_from
from tianti.scale.cost import training_cost
from tianti.scale.derive import BYTES_PER_TOKEN, UTILISATION
from tianti.tune.derive import vocabulary_of
from tianti.tune.prepare import read_splits


@dataclass(frozen=True)
class TuningPlan(Planned):
    """What a tuning would do.

    Args:
        examples: of each split, and the classes.
    """

    examples: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Gives the plan as plain values; see `Planned`."""
        return super().as_dict() | {"examples": self.examples}


def plan_tuning(recipe: Recipe, out: Path | None = None) -> TuningPlan:
    """Foretells a tuning; reads the examples and times a matrix product, writes nothing.

    Args:
        recipe: what to do.
        out: folder of the run, which may hold finished stages.

    Raises:
        UserError: an example cannot be read, or the base is no model.
    """
    from tianti.device import choose_device
    from tianti.scale.machine import speeds
    from tianti.train.budget import steps_of_budget

    folder = out or default_folder(recipe)
    stages, metrics = status_of(recipe, folder)
    estimated = not {"examples", "tokenizer"} <= set(metrics)
    if estimated:
        metrics = _estimated(recipe) | metrics
    derivation = derive_tuning_from(recipe, metrics)
    settings, shape = derivation.train, derivation.model
    device = choose_device(recipe.device)
    flops = speeds(device)["matmul_flops"]
    assert flops is not None
    speed = flops * UTILISATION / shape.flops_per_token(derivation.form.row)
    step_tokens = settings.batch_rows * derivation.form.row
    epoch_tokens = metrics["tokenizer"]["tokens"]
    steps = steps_of_budget(settings.budget, tokens_per_step=step_tokens, epoch_tokens=epoch_tokens)
    tokens = settings.budget.amount * speed if steps is None else float(steps * step_tokens)
    # A base's context may be far longer than the rows it is tuned on.
    trained = replace(shape, context=derivation.form.row)
    cost = training_cost(trained, settings, tokens, 0, device.type)
    return TuningPlan(
        stages,
        derivation,
        tokens,
        tokens / speed,
        cost,
        estimated,
        warnings_of(cost, folder),
        metrics["examples"],
    )


def _estimated(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Gives about what the first stages would find, by reading the examples."""
    tune, base = recipe.tune, base_of(recipe)
    assert tune is not None
    examples = read_splits(tune, recipe.seed)[1]
    train = examples["train"]
    size = recipe.tokenizer.vocab_size or vocabulary_of(train["bytes"])
    tokenizer = {
        "vocab_size": size if base is None else 0,
        "tokens": int(train["bytes"] / BYTES_PER_TOKEN) + 3 * train["examples"],
        "longest": int(train["longest_bytes"] / BYTES_PER_TOKEN) + 3,
    }
    return {"examples": examples, "tokenizer": tokenizer}
