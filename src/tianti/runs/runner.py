"""Carries a recipe out: what is up to date is kept, the rest is done, nothing is half-written."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tianti import interruption
from tianti.errors import Damaged, UserError, os_errors_named
from tianti.files import publish_folder, read_json, write_json, write_text
from tianti.messages import tr
from tianti.progress import SILENT, Display
from tianti.recipe import Recipe
from tianti.runs.fingerprint import changes, fingerprint, plain
from tianti.runs.lock import one_writer
from tianti.runs.manifest import MARK, Manifest, library_versions, peak_memory_bytes
from tianti.runs.reads import count_read
from tianti.runs.results import RESULTS, collect_results, without_nan, write_results
from tianti.runs.stages import (
    Stage,
    StageConfig,
    derived_reasons,
    stage_config,
    stages_of,
    summary,
)
from tianti.runs.verify import PARTIAL, seal
from tianti.scale.place import Place, place_in
from tianti.units import format_duration

if TYPE_CHECKING:
    from tianti.scale.together import Others

REPORT = "report.html"


@dataclass(frozen=True)
class Run:
    """What carrying out a recipe left.

    Args:
        path: the folder.
        results: what `results.json` holds.
        done: stages that were done this time.
        kept: stages that were up to date.
    """

    path: Path
    results: dict[str, Any]
    done: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def default_folder(recipe: Recipe) -> Path:
    """Gives where a run goes when no place is named."""
    return Path("runs") / recipe.name


def carry_out(
    recipe: Recipe,
    out: Path | None = None,
    *,
    until: str | None = None,
    redo_from: str | None = None,
    display: Display = SILENT,
    processes: int = 1,
) -> Run:
    """Carries a recipe out.

    Args:
        recipe: what to do.
        out: folder of the run; `runs/NAME` when not given.
        until: last stage to do.
        redo_from: first stage to do again even if it is up to date.
        display: shows progress.
        processes: of this machine that train together.

    Raises:
        UserError: something the user can mend; what is finished stays.
        Interrupted: a signal asked to stop; what is finished stays.
    """
    names = [stage.name for stage in stages_of(recipe)]
    for name in (until, redo_from):
        if name is not None and name not in names:
            raise UserError(
                tr("there is no stage {name!r}", name=name),
                remedy=tr("Stages: {names}", names=", ".join(names)),
            )
    place = place_in(os.environ) if processes == 1 else None
    folder = out or default_folder(recipe)
    if place is not None and place.world > 1:
        return _by_all_ranks(recipe, folder, place, until, redo_from, display)
    with one_writer(folder), interruption.signals_handled():
        return _Runner(recipe, folder, display, processes).run(until, redo_from)


def _by_all_ranks(
    recipe: Recipe,
    folder: Path,
    place: Place,
    until: str | None,
    redo_from: str | None,
    display: Display,
) -> Run:
    """Carries a recipe out as one of several ranks: the first does all, the others train too."""
    # Here, because it imports torch, which a run with nothing to do can be spared.
    from tianti.scale.together import Others

    with interruption.signals_handled():
        others = Others(place)
        if place.rank:
            others.wait_and_train()
            return Run(folder, {}, (), ())
        error: str | None = None
        try:
            with one_writer(folder):
                return _Runner(recipe, folder, display, others=others).run(until, redo_from)
        except UserError as mistake:
            error = str(mistake)
            raise
        finally:
            others.dismiss(error)


class _Runner:
    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        display: Display,
        processes: int = 1,
        others: Others | None = None,
    ):
        self.recipe, self.folder, self.display = recipe, folder, display
        self.processes, self.others = processes, others
        self.manifests: dict[str, Manifest] = {}
        self.done: list[str] = []
        self.kept: list[str] = []

    def run(self, until: str | None, redo_from: str | None) -> Run:
        write_text(self.folder / "recipe.yaml", self.recipe.as_yaml())
        redo = False
        for stage in stages_of(self.recipe):
            redo = redo or stage.name == redo_from
            self._bring_up_to_date(stage, redo)
            if stage.name == until:
                break
        return self._conclude()

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return {name: manifest.metrics for name, manifest in self.manifests.items()}

    def _bring_up_to_date(self, stage: Stage, redo: bool) -> None:
        config = stage_config(stage, self.recipe, self.folder, self.metrics)
        identity = plain(config.identity)
        inputs = {name: self.manifests[name].fingerprint for name in stage.inputs}
        wanted = fingerprint(stage.name, stage.version, identity, inputs)
        old, reason = self._existing(stage)
        if old is not None and old.fingerprint == wanted and not redo:
            self.manifests[stage.name] = old
            self.kept.append(stage.name)
            self.display.say(
                tr("{stage}: up to date, kept", stage=stage.name)
                + f"  ({summary(stage.name, old.metrics)})",
                "dim",
            )
            return
        if old is not None:
            reason = (
                tr("asked to redo") if redo else self._why(old, identity, inputs, stage.version)
            )
        self.display.say(f"{stage.name}: {reason}", "bold")
        self.manifests[stage.name] = self._do(stage, config, identity, inputs, wanted, redo)
        self.done.append(stage.name)

    def _existing(self, stage: Stage) -> tuple[Manifest | None, str]:
        """Gives the manifest of a finished stage, or None and why there is none that counts."""
        try:
            manifest = Manifest.read(self.folder / stage.name)
            if manifest is not None:
                manifest.check(self.folder / stage.name, hashes=False)
        except Damaged as error:
            return None, tr("{error}; it is made again", error=error)
        return manifest, tr("starting")

    @staticmethod
    def _why(old: Manifest, identity: Any, inputs: dict[str, str], version: int) -> str:
        """Gives in words what makes a finished stage out of date."""
        if lines := changes(old.config, identity):
            more = f" (+{len(lines) - 3})" if len(lines) > 3 else ""
            return "; ".join(lines[:3]) + more
        changed = [name for name, value in inputs.items() if old.inputs.get(name) != value]
        if changed:
            return tr("{inputs} changed", inputs=", ".join(changed))
        return tr("its code has a new version ({old} → {new})", old=old.version, new=version)

    def _do(
        self,
        stage: Stage,
        config: StageConfig,
        identity: Any,
        inputs: dict[str, str],
        wanted: str,
        redo: bool,
    ) -> Manifest:
        partial = self._partial_folder(stage, wanted, redo)
        folders = {name: self.folder / name for name in stage.inputs}
        for name, path in folders.items():
            self.manifests[name].check(path, hashes=True)
        reads = count_read(self.folder, inputs[stage.inputs[0]]) if stage.reads_test else 0
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            metrics = self._carry_out(stage, config, folders, partial)
        except (MemoryError, RuntimeError) as error:
            if (known := _out_of_memory(error, stage)) is not None:
                raise known from error
            raise
        manifest = Manifest(
            stage=stage.name,
            fingerprint=wanted,
            version=stage.version,
            config=identity,
            inputs=inputs,
            metrics=without_nan(metrics),
            seed=self.recipe.seed,
            started=started,
            wall_seconds=round(time.perf_counter() - wall, 3),
            cpu_seconds=round(time.process_time() - cpu, 3),
            peak_memory_bytes=peak_memory_bytes(),
            versions=library_versions(),
            test_reads=reads,
        )
        manifest.write(partial)
        publish_folder(partial, self.folder / stage.name)
        # Only now: a process killed while it published goes on from what lies here.
        (self.folder / stage.name / MARK).unlink()
        self.display.say(
            f"  {summary(stage.name, manifest.metrics)}"
            f"  [{format_duration(manifest.wall_seconds)}]",
            "green",
        )
        finished = Manifest.read(self.folder / stage.name)
        assert finished is not None
        return finished

    def _carry_out(
        self, stage: Stage, config: StageConfig, folders: dict[str, Path], partial: Path
    ) -> dict[str, Any]:
        """Does what a stage does: training alone, by several processes, or with other ranks."""
        if stage.name != "train":
            return stage.load()(config.call, folders, partial, self.display)
        layout = self.recipe.layout
        if self.others is not None:
            return self.others.train(config.call, layout, folders, partial, self.display)
        if self.processes > 1:
            from tianti.scale.launch import train_on_many

            return train_on_many(
                config.call, layout, self.processes, folders, partial, self.display
            )
        if self.recipe.tune is None:
            from tianti.scale.cost import refuse_what_cannot_fit

            refuse_what_cannot_fit(config.call)
        return stage.load()(config.call, folders, partial, self.display)

    def _partial_folder(self, stage: Stage, wanted: str, redo: bool) -> Path:
        """Gives the folder an unfinished stage works in, emptied unless it can go on there."""
        partial = self.folder / PARTIAL / stage.name
        mark = partial / MARK
        keep = False
        if stage.resumable and mark.is_file() and not redo:
            try:
                keep = read_json(mark).get("fingerprint") == wanted
            except Damaged:
                keep = False
        with os_errors_named(partial):
            if not keep:
                shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
        if not keep:
            write_json(mark, {"fingerprint": wanted})
        return partial

    def _conclude(self) -> Run:
        reasons = derived_reasons(self.recipe, self.metrics)
        results = collect_results(self.recipe, self.folder, self.manifests, reasons)
        if self.done or not (self.folder / REPORT).is_file():
            from tianti.runs.report import write_report

            write_results(self.folder, results)
            write_report(self.folder / REPORT, self.folder, results)
        elif not (self.folder / RESULTS).is_file():
            write_results(self.folder, results)
        seal(self.folder, ("recipe.yaml", RESULTS, REPORT))
        return Run(self.folder, results, tuple(self.done), tuple(self.kept))


def _out_of_memory(error: Exception, stage: Stage) -> UserError | None:
    """Gives the `UserError` for an error that says memory ran out, None for any other."""
    from tianti.device import is_out_of_memory

    if not is_out_of_memory(error):
        return None
    return UserError(
        tr("there is not enough memory"),
        where=stage.name,
        remedy=tr("Lower train.micro_batch_rows or model.size"),
    )
