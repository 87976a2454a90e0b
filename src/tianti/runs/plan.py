"""The dry run: what a recipe will do and take, said before anything is done."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tianti.corpus.readers.opening import COMPRESSIONS
from tianti.corpus.sources import file_state, list_files, read_source
from tianti.errors import Damaged
from tianti.messages import tr
from tianti.recipe import Recipe
from tianti.runs.fingerprint import fingerprint, plain
from tianti.runs.manifest import Manifest
from tianti.runs.runner import default_folder
from tianti.runs.stages import derive_from_metrics, stage_config, stages_of
from tianti.scale.cost import Cost, training_cost
from tianti.scale.derive import (
    BYTES_PER_TOKEN,
    Derivation,
    Facts,
    derive,
    facts_of,
)
from tianti.tune.derive import TuneDerivation
from tianti.units import format_bytes

COMPRESSED_FACTOR = 3.4
PYTHON_DOCS_BYTES = 2_500_000


@dataclass(frozen=True)
class Planned:
    """What a run would do, whatever its recipe is for.

    Args:
        stages: each stage and whether it is up to date.
        derivation: every setting with its reason.
        tokens: that will be trained on.
        seconds: how long that takes.
        cost: what it needs.
        estimated: text or examples have not been counted yet.
        warnings: what will not fit here.
    """

    stages: list[tuple[str, str]]
    derivation: Derivation | TuneDerivation
    tokens: float
    seconds: float
    cost: Cost
    estimated: bool
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Gives the plan as plain values; memory by kind and disk in bytes."""
        return {
            "stages": dict(self.stages),
            "estimated": self.estimated,
            "settings": [
                {"setting": setting, "value": value, "reason": reason}
                for setting, value, reason in self.derivation.reasons
            ],
            "model": self.derivation.model.as_dict()
            | {"parameters": self.derivation.model.num_parameters()},
            "train": plain(self.derivation.train),
            "tokens": self.tokens,
            "seconds": self.seconds,
            "flops": self.cost.flops,
            "memory": asdict(self.cost.memory) | {"total": self.cost.memory.total},
            "disk": {
                "checkpoints": self.cost.checkpoint_disk,
                "tokens": self.cost.tokens_disk,
            },
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class Plan(Planned):
    """What a run from text would do.

    Args:
        facts: text and machine.
    """

    facts: Facts


def plan(recipe: Recipe, out: Path | None = None) -> Planned:
    """Foretells a run; reads a little text and times a matrix product, writes nothing.

    Args:
        recipe: what to do.
        out: folder of the run, which may hold finished stages.

    Raises:
        UserError: a source, or an example, cannot be read.
    """
    if recipe.tune is not None:
        from tianti.runs.tuning_plan import plan_tuning

        return plan_tuning(recipe, out)
    folder = out or default_folder(recipe)
    stages, metrics = status_of(recipe, folder)
    if {"corpus", "machine"} <= set(metrics):
        derivation = derive_from_metrics(recipe, metrics)
        train_bytes = metrics["corpus"]["splits"]["train"]["bytes"]
        facts = facts_of(recipe, train_bytes, metrics["machine"])
    else:
        facts = _estimate(recipe)
        derivation = derive(recipe, facts)
    corpus_tokens = (
        metrics["tokens"]["train"]["tokens"]
        if "tokens" in metrics
        else facts.train_bytes / BYTES_PER_TOKEN
    )
    cost = training_cost(
        derivation.model, derivation.train, derivation.tokens, corpus_tokens, facts.device
    )
    return Plan(
        stages,
        derivation,
        derivation.tokens,
        derivation.train_seconds,
        cost,
        facts.estimated,
        warnings_of(cost, folder),
        facts,
    )


def status_of(recipe: Recipe, folder: Path) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Gives which stages are up to date, and the metrics of those."""
    stages: list[tuple[str, str]] = []
    metrics: dict[str, Any] = {}
    fingerprints: dict[str, str] = {}
    for stage in stages_of(recipe):
        known = set(stage.inputs) <= set(fingerprints)
        if recipe.tune is None and stage.name not in ("documents", "corpus", "machine"):
            known = known and {"corpus", "machine"} <= set(metrics)
        manifest = _read_manifest(folder / stage.name)
        if known and manifest is not None:
            identity = plain(stage_config(stage, recipe, folder, metrics).identity)
            inputs = {name: fingerprints[name] for name in stage.inputs}
            if manifest.fingerprint == fingerprint(stage.name, stage.version, identity, inputs):
                fingerprints[stage.name] = manifest.fingerprint
                metrics[stage.name] = manifest.metrics
                stages.append((stage.name, tr("up to date")))
                continue
        stages.append((stage.name, tr("to do") if manifest is None else tr("to do again")))
    return stages, metrics


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.read(folder)
    except Damaged:
        return None


def _estimate(recipe: Recipe) -> Facts:
    """Gives facts from file sizes, the beginnings of the sources and a timed matrix product."""
    from tianti.device import choose_device
    from tianti.scale.machine import speeds

    device = choose_device(recipe.device)
    machine = {"device": str(device), **speeds(device)}
    return facts_of(recipe, text_bytes(recipe), machine, estimated=True)


def text_bytes(recipe: Recipe) -> float:
    """Gives about how many bytes of training text there are, from file sizes.

    Raises:
        UserError: a source cannot be read.
    """
    num_bytes = 0.0
    for source in recipe.corpus.sources:
        # A source that cannot be read is better known before the run than in it.
        next(iter(read_source(source)), None)
        if source.split in ("validation", "test"):
            continue
        if source.builtin:
            num_bytes += PYTHON_DOCS_BYTES
            continue
        for path in list_files(source):
            packed = path.lower().endswith((*COMPRESSIONS, ".parquet", ".epub", ".zip", ".tgz"))
            num_bytes += file_state(path)["bytes"] * (COMPRESSED_FACTOR if packed else 1)
    return num_bytes


def warnings_of(cost: Cost, folder: Path) -> list[str]:
    """Gives what will not fit into this machine's memory or disk."""
    import psutil

    warnings: list[str] = []
    memory = psutil.virtual_memory().available
    if cost.memory.total > memory:
        warnings.append(
            tr(
                "Memory: {needed} needed, {there} free. Lower train.micro_batch_rows or model.size",
                needed=format_bytes(cost.memory.total),
                there=format_bytes(memory),
            )
        )
    place = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    disk = shutil.disk_usage(place).free
    if cost.checkpoint_disk + cost.tokens_disk > disk:
        warnings.append(
            tr(
                "Disk: {needed} needed, {there} free. Choose another place with --out",
                needed=format_bytes(cost.checkpoint_disk + cost.tokens_disk),
                there=format_bytes(disk),
            )
        )
    return warnings
