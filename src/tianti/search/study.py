"""A search: trials are drawn by Optuna, kept in its storage, and gone on with after any stop."""

from __future__ import annotations

import importlib.util
import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tianti import interruption
from tianti.errors import UserError, not_installed
from tianti.files import read_json, write_json, write_text
from tianti.messages import tr
from tianti.progress import SILENT, Display, Task
from tianti.recipe import Recipe
from tianti.runs.lock import one_writer
from tianti.runs.runner import carry_out
from tianti.runs.stages import derive_from_metrics
from tianti.runs.tuning import derive_tuning_from
from tianti.scale.derive import Derivation
from tianti.search.space import CHANGES_LOSS, Space, Value, parse_space
from tianti.search.trial import Pruned, TrialFailed, forget, link_stages, train
from tianti.train.objective import Steering
from tianti.tune.config import TuneConfig
from tianti.tune.derive import TuneDerivation
from tianti.tune.steering import steering_of

# What a pretraining's validation says.
BITS = Steering("bits_per_byte", "val BPB")
DATABASE, BEST, RESULTS, PAGE = "study.db", "best.yaml", "search.json", "search.html"
STARTUP_TRIALS = 5
MOST_FAILURES = 3


@dataclass(frozen=True)
class Search:
    """What a search found so far.

    Args:
        path: its folder.
        results: what `search.json` holds.
    """

    path: Path
    results: dict[str, Any]


def search(
    recipe: str | Path,
    settings: list[str],
    *,
    trials: int,
    out: Path | None = None,
    storage: str | None = None,
    display: Display = SILENT,
) -> Search:
    """Tries settings of a recipe and says which give the best validation, by bits per byte or, of a
    tuning, by the figure that steers it.

    The text is prepared once; every trial trains in a process of its own and is stopped when its
    validation is worse than the median of the others at the same share of the training. The test
    split is never read.

    Args:
        recipe: path of the recipe.
        settings: `a.b=low..high` and `a.b=x,y` are searched, `a.b=c` holds for all trials.
        trials: how many the study should have in all.
        out: folder; `runs/NAME-search` when not given.
        storage: URL of an Optuna storage that several machines share; a file in `out` when None.
        display: shows progress.

    Raises:
        UserError: optuna is not installed, wrong settings, a study over other settings, or trials
            that fail in a row.
        Interrupted: a signal asked to stop; finished trials stay, the one at work goes on later.
    """
    if importlib.util.find_spec("optuna") is None:
        raise not_installed("optuna", "search")
    space, fixed = parse_space(settings)
    base = Recipe.load(recipe, fixed)
    if base.tune is not None:
        _refuse_of_tuning(space, base, base.tune)
    for setting, values in space.items():
        for value in values.examples():
            Recipe.load(recipe, [*fixed, f"{setting}={_text(value)}"])
    folder = out or Path("runs") / f"{base.name}-search"
    with one_writer(folder), interruption.signals_handled():
        derived = _prepared(base, folder / "base", display)
        alike = None if base.tune is None else partial(_alike, base, derived)
        study = _Study(Path(recipe), base, space, fixed, folder, storage, display, alike)
        study.begin(_defaults(space, base, derived))
        study.run(trials)
        return Search(folder, study.conclude())


def _refuse_of_tuning(space: Space, recipe: Recipe, tune: TuneConfig) -> None:
    """Refuses what trials of a tuning cannot be compared by, or what changes nothing.

    Raises:
        UserError: the setting, and what to do.
    """
    for setting in space:
        if recipe.base is not None and setting.split(".")[0] in ("model", "tokenizer"):
            raise UserError(
                tr("the base decides this: it would change nothing"),
                where=setting,
                remedy=tr("Leave it out"),
            )
        smoothed = setting == "train.label_smoothing" and tune.task != "prefer"
        if steering_of(tune).name == "loss" and setting in CHANGES_LOSS and not smoothed:
            raise UserError(
                tr("trials that differ in this have losses of different kinds"),
                where=setting,
                remedy=tr("Give it one value"),
            )


def _alike(recipe: Recipe, derived: Callable[[str], Any], values: dict[str, Value]) -> list[str]:
    """Gives what has all trials of a tuning learn as long, and be validated as often."""
    found = []
    if "budget" not in recipe.train.model_fields_set:
        found.append(f"train.budget={derived('train.budget')}")
    if "validate_every" not in recipe.train.model_fields_set:
        ours = int(values.get("train.batch_tokens", 0)) or derived("train.batch_tokens")
        between = derived("train.validate_every") * derived("train.batch_tokens")
        found.append(f"train.validate_every={max(1, round(between / ours))}")
    return found


def _text(value: Value) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _prepared(recipe: Recipe, folder: Path, display: Display) -> Callable[[str], Any]:
    """Does once what trials have in common; gives what settings are when nothing is said."""
    if recipe.tune is not None:
        done = carry_out(recipe, folder, until="tokenizer", display=display)
        return partial(_derived_tuning, derive_tuning_from(recipe, done.results), done.results)
    done = carry_out(recipe, folder, until="tokens", display=display)
    machine = read_json(folder / "machine" / "manifest.json")["metrics"]
    metrics = {"corpus": done.results["corpus"], "machine": machine}
    return partial(_derived, derive_from_metrics(recipe, metrics))


def _defaults(
    space: Space, recipe: Recipe, derived: Callable[[str], Any]
) -> dict[str, Value] | None:
    """Gives what the recipe itself would use, where the space holds all of it."""
    found = {}
    for setting, values in space.items():
        section, _, name = setting.partition(".")
        said: Any = getattr(recipe, section)
        for part in name.split("."):
            said = getattr(said, part, None)
        # Of a tuning's training what is not said is derived, whatever pretraining's default is.
        open_ = recipe.tune is not None and section == "train"
        if said in (None, "auto") or (open_ and name not in recipe.train.model_fields_set):
            said = derived(setting)
        if not values.holds(said):
            return None
        found[setting] = said
    return found


def _derived_tuning(derivation: TuneDerivation, metrics: dict[str, Any], setting: str) -> Any:
    section, _, name = setting.partition(".")
    if setting == "train.batch_tokens":
        return derivation.train.batch_rows * derivation.form.row
    if setting == "tokenizer.vocab_size":
        return metrics["tokenizer"]["vocab_size"]
    if setting == "tune.context":
        return derivation.form.context
    return getattr(getattr(derivation, section, None), name, None)


def _derived(derivation: Derivation, setting: str) -> Any:
    section, _, name = setting.partition(".")
    if setting == "train.batch_tokens":
        return derivation.train.batch_rows * derivation.model.context
    if setting == "tokenizer.vocab_size":
        return derivation.vocab_size
    return getattr(getattr(derivation, section, None), name, None)


class _Study:
    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        space: Space,
        fixed: list[str],
        folder: Path,
        storage: str | None,
        display: Display,
        alike: Callable[[dict[str, Value]], list[str]] | None = None,
    ):
        self.path, self.recipe, self.space, self.fixed = path, recipe, space, fixed
        self.folder, self.display = folder, display
        self.figure = BITS if recipe.tune is None else steering_of(recipe.tune)
        # Gives what else a trial is told.
        self.alike = alike or (lambda values: [])
        self.owner = f"{socket.gethostname()}:{folder.resolve()}"
        self.study = self._open(storage)

    def _open(self, storage: str | None) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Its own samplers are marked experimental one by one.
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        url = storage or f"sqlite:///{(self.folder / DATABASE).resolve()}"
        try:
            study = optuna.create_study(
                study_name=self.recipe.name,
                storage=url,
                direction="maximize" if self.figure.more_is_better else "minimize",
                load_if_exists=True,
            )
        except Exception as error:
            raise UserError(
                tr("the study cannot be opened: {error}", error=str(error).splitlines()[0]),
                where=storage or self.folder / DATABASE,
                remedy=tr("Check --storage, or delete the file to begin again"),
            ) from error
        searched = {name: repr(values) for name, values in sorted(self.space.items())}
        kept = {"searched": searched, "recipe": self.recipe.model_dump(mode="json")}
        known = study.user_attrs
        if "searched" not in known:
            for name, value in kept.items():
                study.set_user_attr(name, value)
        elif any(known.get(name) != value for name, value in kept.items()):
            raise UserError(
                tr("the study here searches other settings, or of another recipe"),
                where=self.folder,
                remedy=tr("Choose another folder with --out, or delete this one"),
            )
        # Drawn anew after each stop, and not the same by several machines.
        drawn = None if storage else self.recipe.seed * 1_000_003 + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(
            seed=drawn, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS
        )
        study.pruner = optuna.pruners.MedianPruner(
            n_startup_trials=STARTUP_TRIALS, n_warmup_steps=2
        )
        return study

    def begin(self, defaults: dict[str, Value] | None) -> None:
        """Takes up what a stopped search left, or begins with the recipe's own settings."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("owner") == self.owner:
                self.study.tell(trial.number, state=TrialState.FAIL)
                goes_on = {"folder": trial.user_attrs["folder"]}
                self.study.enqueue_trial(trial.params, user_attrs=goes_on)
        if defaults is not None and not self.study.trials:
            self.study.enqueue_trial(defaults, user_attrs={"default": True})

    def run(self, trials: int) -> None:
        """Tries until the study has so many trials."""
        with (
            interruption.deferred(),
            self.display.task("search", trials, "trials") as task,
        ):
            task.start_at(len(self._counted()))
            failures = 0
            while len(self._counted()) < trials:
                failures = 0 if self._one(task) else failures + 1
                if failures >= MOST_FAILURES:
                    last = self._counted()[-1]
                    raise UserError(
                        tr("{count} trials in a row failed", count=failures),
                        where=self.folder / last.user_attrs["folder"],
                        remedy=last.user_attrs["error"],
                    )
                self._keep_the_best_only()
                task.update(len(self._counted()), facts=self._best_fact())

    def _one(self, task: Task) -> bool:
        from optuna.trial import TrialState

        trial = self.study.ask()
        values = {name: part.suggest(trial, name) for name, part in self.space.items()}
        if "folder" not in trial.user_attrs:
            trial.set_user_attr("folder", f"trials/{trial.number:04d}")
        trial.set_user_attr("owner", self.owner)
        folder = self.folder / trial.user_attrs["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        link_stages(self.folder / "base", folder)
        settings = [*self.fixed, *(f"{name}={_text(value)}" for name, value in values.items())]
        settings += self.alike(values)
        started = time.perf_counter()

        def watch(number: int, value: float) -> bool:
            trial.report(value, number)
            shown = {tr("trial {number}", number=trial.number): f"{value:.3f}"}
            task.facts = self._best_fact() | shown
            task.update(task.done)
            return trial.should_prune()

        try:
            metrics = train(self.path, settings, folder, watch, self.figure.name)
        except Pruned:
            trial.set_user_attr("seconds", time.perf_counter() - started)
            self.study.tell(trial, state=TrialState.PRUNED)
            forget(folder)
            return True
        except TrialFailed as error:
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            forget(folder)
            return False
        for name in ("parameters", "tokens", "tokens_per_second", "train_seconds"):
            trial.set_user_attr(name, metrics[name])
        trial.set_user_attr("seconds", time.perf_counter() - started)
        figure = metrics[f"validation_{self.figure.name}"]
        if figure is None:
            trial.set_user_attr("error", tr("its validation is no finite number"))
            self.study.tell(trial, state=TrialState.FAIL)
            forget(folder)
            return False
        self.study.tell(trial, figure)
        return True

    def _counted(self) -> list[Any]:
        """Gives the trials that came to an end of their own."""
        from optuna.trial import TrialState

        return [
            trial
            for trial in self.study.trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            or (trial.state == TrialState.FAIL and "error" in trial.user_attrs)
        ]

    def _complete(self) -> list[Any]:
        from optuna.trial import TrialState

        found = self.study.get_trials(states=(TrialState.COMPLETE,))
        return sorted(found, key=lambda trial: self.figure.cost({self.figure.name: trial.value}))

    def _best_fact(self) -> dict[str, str]:
        complete = self._complete()
        return {tr("best"): f"{complete[0].value:.3f}"} if complete else {}

    def _keep_the_best_only(self) -> None:
        for trial in self._complete()[1:]:
            if trial.user_attrs["owner"] == self.owner:
                forget(self.folder / trial.user_attrs["folder"])

    def conclude(self) -> dict[str, Any]:
        """Writes what was found: `search.json`, `search.html` and the best recipe."""
        from tianti.search.page import write_page

        complete = self._complete()
        results: dict[str, Any] = {
            "name": self.recipe.name,
            "figure": self.figure.name,
            "more_is_better": self.figure.more_is_better,
            "searched": {name: repr(values) for name, values in self.space.items()},
            "trials": [_row(trial) for trial in self._counted()],
            "importance": self._importance(),
            "best": None,
        }
        if complete:
            best = complete[0]
            settings = [f"{name}={_text(value)}" for name, value in best.params.items()]
            settings += self.alike(best.params)
            chosen = Recipe.load(self.path, [*self.fixed, *settings])
            write_text(self.folder / BEST, chosen.as_yaml(everything=False))
            folder = self.folder / best.user_attrs["folder"]
            ours = best.user_attrs["owner"] == self.owner
            results["best"] = _row(best) | {
                "recipe": str(self.folder / BEST),
                "run": str(folder) if ours else None,
            }
        write_json(self.folder / RESULTS, results)
        write_page(self.folder / PAGE, results)
        return results

    def _importance(self) -> dict[str, float]:
        """Gives which settings decided, as shares; nothing where trials are too few."""
        import optuna

        if len(self._complete()) < STARTUP_TRIALS or len(self.space) < 2:
            return {}
        try:
            found = optuna.importance.get_param_importances(
                self.study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        except (ValueError, RuntimeError):
            # All trials are equally good, or a setting never varied.
            return {}
        return {name: round(value, 4) for name, value in found.items()}


def _row(trial: Any) -> dict[str, Any]:
    attributes = trial.user_attrs
    # Optuna gives a trial that was stopped its last validation as its value.
    ended = trial.state.name == "COMPLETE"
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "validation": trial.value if ended else None,
        "settings": trial.params,
        "validations": [
            {"number": number, "value": value}
            for number, value in sorted(trial.intermediate_values.items())
        ],
        "default": attributes.get("default", False),
        "error": attributes.get("error"),
        "seconds": attributes.get("seconds"),
        "parameters": attributes.get("parameters"),
        "tokens_per_second": attributes.get("tokens_per_second"),
    }
