"""The stages of a tuning: the settings each gets, and what it has to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tianti.corpus.sources import file_hash
from tianti.exchange.config_file import load_config, model_folder
from tianti.messages import tr
from tianti.recipe import Recipe
from tianti.runs.stages import helpers_of, known_hashes
from tianti.tune.config import (
    READ,
    ExamplesStageConfig,
    JudgeStageConfig,
    TuneConfig,
    TunedTokenizerConfig,
    local_path,
)
from tianti.tune.derive import TuneDerivation, TuneStageConfig, derive_tuning, vocabulary_of

# What of a model directory decides what comes of it.
_BASE_FILES = ("*.safetensors", "*.json", "*.jinja")
# What decides which examples there are.
_READING = {"task", "columns", "labels", "several", "examples_per_class", "augment"}
_FILES = {"train", "validation", "test"}
_ENCODING = {"task", "several", "template", "pattern", "more_tokens"}
_JUDGING = {"test_examples", "max_tokens"}


def base_of(recipe: Recipe) -> Path | None:
    """Gives the directory that weights come from.

    Raises:
        UserError: it is no model.
    """
    if recipe.base is None:
        return None
    path = model_folder(local_path(recipe.base))
    load_config(path)
    return path


def tuning_config(
    stage: str, recipe: Recipe, run: Path, metrics: dict[str, dict[str, Any]]
) -> tuple[Any, Any]:
    """Gives the settings of a stage, and what its fingerprint covers; see `stage_config`."""
    tune, base = recipe.tune, base_of(recipe)
    assert tune is not None
    if stage == "examples":
        said = tune.model_dump(mode="json", include=_READING) | _shape_of(tune)
        if helpers := [files for files in helpers_of(tune.augment or ()) if files]:
            said["augmented_by"] = helpers
        # Of files what they hold counts, not where they lie; of the test a share alone.
        read = [_read(where, tune, run) for where in (tune.train, tune.validation)]
        read.append(tune.test if isinstance(tune.test, float) else None)
        return ExamplesStageConfig(tune, recipe.seed), [said, recipe.seed, read]
    if stage == "test":
        said = tune.model_dump(mode="json", include={"columns"}) | _shape_of(tune)
        return ExamplesStageConfig(tune, recipe.seed), [said, _read(tune.test, tune, run)]
    if stage == "tokenizer":
        train_bytes = metrics["examples"]["train"]["bytes"]
        size = recipe.tokenizer.vocab_size or vocabulary_of(train_bytes)
        said = tune.model_dump(mode="json", include=_ENCODING)
        identity = [said, size if base is None else _content(base, run)]
        return TunedTokenizerConfig(tune, base, size), identity
    if stage == "evaluate":
        said = tune.model_dump(mode="json", include=_JUDGING) | _search_of(tune)
        return JudgeStageConfig(tune, recipe.device), said
    derivation = derive_tuning_from(recipe, metrics)
    settings = derivation.train
    call = TuneStageConfig(derivation.model, settings, tune, derivation.form, base, recipe.device)
    covered = {
        "model": derivation.model,
        "context": derivation.form.context,
        "tune": _used(tune, stage),
        "base": None if base is None else _content(base, run),
        "settings": settings.model_dump(mode="json", exclude={"save_every", "keep_checkpoints"}),
    }
    return call, covered


def _search_of(tune: TuneConfig) -> dict[str, Any]:
    """Gives how text is searched for, where any is written."""
    return {"beams": tune.searched} if tune.searched > 1 and tune.task not in READ else {}


def _shape_of(tune: TuneConfig) -> dict[str, Any]:
    """Gives what of the objective decides which examples there are: pairs, or single answers."""
    return {"single": tune.preference == "kto"} if tune.task == "prefer" else {}


def _read(where: str | list[str] | float | None, tune: TuneConfig, run: Path) -> Any:
    """Gives what of some files counts: what they hold, or a share of others."""
    if not isinstance(where, str | list):
        return where
    with known_hashes(run) as known:
        return [file_hash(path, known) for path in tune.files(where)]


def _used(tune: TuneConfig, stage: str) -> dict[str, Any]:
    """Gives the settings that training goes by; of the model stage what it writes down too."""
    # The network and the form of examples stand beside it.
    left_out = _READING | _FILES | _JUDGING
    left_out |= {"attention", "context", "template", "thresholds", "beams"}
    if tune.method not in ("lora", "dora"):
        left_out |= {"lora"}
    if stage == "model":
        left_out -= {"columns", "max_tokens", "thresholds"}
    searched = _search_of(tune) if stage == "model" else {}
    return tune.model_dump(mode="json", exclude=left_out) | searched


def derive_tuning_from(recipe: Recipe, metrics: dict[str, dict[str, Any]]) -> TuneDerivation:
    """Gives every open setting from what finished stages found."""
    assert recipe.tune is not None
    return derive_tuning(
        recipe.tune,
        base_of(recipe),
        recipe.model,
        recipe.train,
        recipe.seed,
        metrics["examples"],
        metrics["tokenizer"],
    )


def _content(base: Path, run: Path) -> list[str]:
    files = sorted({path for pattern in _BASE_FILES for path in base.glob(pattern)})
    with known_hashes(run) as known:
        return [f"{path.name} {file_hash(str(path), known)}" for path in files]


def tuning_summary(stage: str, metrics: dict[str, Any]) -> str:
    """Gives what a finished stage has to say in one line."""
    if stage == "examples":
        parts = [
            tr("{split} {count} examples", split=tr(name), count=f"{metrics[name]['examples']:,}")
            for name in ("train", "validation")
        ]
        if metrics["labels"]:
            parts.append(tr("{count} classes", count=len(metrics["labels"])))
        return "  ".join(parts)
    if stage == "test" and metrics["examples"]:
        return tr("{count} examples", count=f"{metrics['examples']:,}")
    if stage == "train":
        name = metrics["steered_by"]
        return tr(
            "{steps} steps, {speed} tokens/s, validation {name} {value}, step {best}",
            steps=f"{metrics['steps']:,}",
            speed=f"{metrics['tokens_per_second']:,.0f}",
            name=name,
            value=f"{metrics[f'validation_{name}']:.4f}",
            best=metrics["best_step"],
        )
    if stage == "test" or not metrics.get("figures"):
        return tr("no test examples")
    return "  ".join(f"{name} {figure['value']:.4f}" for name, figure in metrics["figures"].items())
