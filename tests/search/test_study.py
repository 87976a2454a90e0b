from __future__ import annotations

import json
import math
import shutil
import signal

import pytest
import yaml

from tests.conftest import tiny_recipe
from tests.tune.conftest import pairs, reviews
from tests.tune.conftest import recipe as tuning
from tianti import interruption
from tianti.errors import UserError
from tianti.recipe import Recipe
from tianti.search import study as study_module
from tianti.search.study import search
from tianti.search.trial import Pruned, TrialFailed

SETTINGS = ["train.learning_rate=0.001..0.1", "train.optimizer=muon,adamw"]
BEST_RATE = 0.01


class Trainer:
    """Stands in for training: a loss that is least at one rate, with Muon."""

    def __init__(self):
        self.calls = []
        self.fail = self.stop_at = None

    def __call__(self, recipe, settings, folder, watch, figure):
        assert figure == "bits_per_byte"
        values = dict(item.split("=") for item in settings)
        self.calls.append((folder, values))
        assert (folder / "tokens" / "train").is_dir()
        if self.fail is not None:
            raise TrialFailed(self.fail)
        if self.stop_at == len(self.calls):
            raise interruption.Interrupted(signal.SIGINT)
        far = abs(math.log(float(values["train.learning_rate"]) / BEST_RATE))
        last = 2 + far + (values["train.optimizer"] == "adamw") * 0.3
        for number in range(1, 11):
            if watch(number, last + (10 - number) * 0.1):
                raise Pruned
        (folder / "train").mkdir(exist_ok=True)
        (folder / "train" / "log.jsonl").write_text("{}\n")
        return {
            "validation_bits_per_byte": last,
            "parameters": 1,
            "tokens": 1,
            "tokens_per_second": 1.0,
            "train_seconds": 1.0,
        }


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr(study_module, "train", trainer)
    return trainer


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, text_folder):
    """A recipe, and a search of nothing yet whose text is prepared."""
    from tianti.runs.runner import carry_out

    folder = tmp_path_factory.mktemp("prepared")
    (folder / "recipe.yaml").write_text(tiny_recipe(text_folder))
    carry_out(Recipe.load(folder / "recipe.yaml"), folder / "out" / "base", until="tokens")
    return folder


@pytest.fixture
def place(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(place, trials, settings=SETTINGS, **options):
    return search(
        place / "recipe.yaml", list(settings), trials=trials, out=place / "out", **options
    ).results


def test_a_search_finds_the_best_and_says_what_mattered(place, trainer):
    results = run(place, 24)
    assert len(results["trials"]) == 24
    first = results["trials"][0]
    assert first["default"], "the recipe's own settings come first"
    assert first["settings"] == {"train.learning_rate": 0.028, "train.optimizer": "muon"}
    assert any(row["state"] == "pruned" for row in results["trials"])
    assert results["best"]["validation"] < first["validation"]
    assert results["best"]["settings"]["train.optimizer"] == "muon"
    assert results["importance"]["train.learning_rate"] > 0.5
    best = Recipe.load(results["best"]["recipe"])
    assert best.train.learning_rate == results["best"]["settings"]["train.learning_rate"]
    assert json.loads((place / "out" / "search.json").read_text()) == results
    html = (place / "out" / "search.html").read_text("utf-8")
    assert "What mattered" in html
    assert "起作用的设置" in html


def test_what_is_derived_is_the_first_trial_and_a_folder_may_be_gone(place, trainer):
    settings = [*SETTINGS, "train.start=random,bigrams"]
    first = run(place, 3, settings)["trials"][0]
    assert first["default"]
    assert first["settings"]["train.start"] == "random"
    shutil.rmtree(place / "out" / "trials")
    assert len(run(place, 4, settings)["trials"]) == 4


def test_only_the_best_trial_keeps_what_takes_room(place, trainer):
    results = run(place, 8)
    kept = {path.name for path in (place / "out" / "trials").iterdir() if (path / "train").is_dir()}
    assert kept == {f"{results['best']['number']:04d}"}
    ended = [row for row in results["trials"] if row["state"] == "complete"]
    for row in ended:
        folder = place / "out" / "trials" / f"{row['number']:04d}"
        assert (folder / "log.jsonl").is_file() or (folder / "train" / "log.jsonl").is_file()


def test_a_search_goes_on_where_it_was_stopped(place, trainer):
    trainer.stop_at = 3
    with pytest.raises(interruption.Interrupted):
        run(place, 6)
    stopped = trainer.calls[-1]
    results = run(place, 6)
    assert trainer.calls[3] == stopped, "the same settings, in the same folder"
    assert len(results["trials"]) == 6
    assert len({row["number"] for row in results["trials"]}) == 6
    calls = len(trainer.calls)
    assert run(place, 6) == results
    assert len(trainer.calls) == calls, "nothing is left to do"
    assert len(run(place, 8)["trials"]) == 8


def test_trials_that_fail_are_passed_over_and_three_in_a_row_end_the_search(place, trainer):
    trainer.fail = "train: there is not enough memory"
    with pytest.raises(UserError, match=r"3 trials in a row failed.*not enough memory"):
        run(place, 9)
    trainer.fail = None
    results = run(place, 5)
    assert [row["state"] for row in results["trials"]].count("fail") == 3
    assert results["best"] is not None


def test_another_search_in_the_same_folder_is_refused(place, trainer):
    run(place, 1)
    with pytest.raises(UserError, match="searches other settings"):
        run(place, 2, ["train.learning_rate=0.001..0.2"])


def test_two_folders_share_one_storage(place, prepared, trainer, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(prepared, other, dirs_exist_ok=True)
    shutil.copy(place / "recipe.yaml", other)
    url = f"sqlite:///{place / 'shared.db'}"
    run(place, 3, storage=url)
    results = run(other, 6, storage=url)
    assert len(results["trials"]) == 6
    assert len(trainer.calls) == 6
    assert not (other / "out" / "study.db").exists()


def test_a_storage_that_is_none(place, trainer):
    with pytest.raises(UserError, match="cannot be opened"):
        run(place, 1, storage="nothing://there")


def test_settings_are_checked_at_both_ends_before_anything_is_done(place, trainer):
    with pytest.raises(UserError, match="less than 1"):
        run(place, 1, ["train.dropout=0..3"])
    assert not trainer.calls


def test_the_command_trains_in_processes_and_the_test_split_stays_unread(place, call):
    rates = "train.learning_rate=0.01,0.02"
    code, out, _ = call(
        "search", place / "recipe.yaml", rates, "--trials", "2", "--out", place / "out", "--json"
    )
    assert code == 0
    results = json.loads(out)
    assert [row["state"] for row in results["trials"]] == ["complete"] * 2
    assert all(len(row["validations"]) == 3 for row in results["trials"])
    folder = place / "out" / "trials" / f"{results['best']['number']:04d}"
    assert not (folder / "evaluate").exists()
    code, _, said = call("run", results["best"]["recipe"], "--out", folder, "--until", "model")
    assert code == 0
    assert "train: up to date" in said


def test_settings_of_a_tuning_are_searched_by_the_figure_that_steers_it(tmp_path):
    made = tuning("classify", tmp_path, reviews, steps=40)
    (tmp_path / "recipe.yaml").write_text(made.as_yaml(), "utf-8")
    settings = ["train.learning_rate=0.000001,0.02", "tune.noise=0..0.2"]
    results = run(tmp_path, 3, settings)
    assert (results["figure"], results["more_is_better"]) == ("macro_f1", True)
    assert [row["state"] for row in results["trials"]] == ["complete"] * 3
    best = results["best"]
    assert best["validation"] == max(row["validation"] for row in results["trials"])
    assert best["settings"]["train.learning_rate"] == 0.02
    page = (tmp_path / "out" / "search.html").read_text("utf-8")
    assert "macro_f1" in page
    assert "&lt;span" not in page
    # What is the same for all is there once.
    folder = tmp_path / "out" / "trials" / f"{best['number']:04d}"
    inode = (folder / "tokenizer" / "tokenizer.json").stat().st_ino
    assert (tmp_path / "out" / "base" / "tokenizer" / "tokenizer.json").stat().st_ino == inode
    for setting, wrong in (
        ("tune.steer=loss,accuracy", "cannot be compared"),
        ("tune.preference=dpo,kto", "cannot be compared"),
    ):
        with pytest.raises(UserError, match=wrong):
            run(tmp_path, 3, [setting])


def test_a_tuning_begins_with_its_own_settings_and_all_learn_as_long(tmp_path, monkeypatch):
    made = tuning("classify", tmp_path, reviews)
    values = made.model_dump(exclude_unset=True)
    values["train"] = {}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values), "utf-8")
    seen = []

    def train(recipe, settings, folder, watch, figure):
        seen.append(dict(item.split("=") for item in settings))
        told = ("parameters", "tokens", "tokens_per_second", "train_seconds")
        return dict.fromkeys(told, 1.0) | {f"validation_{figure}": None}

    monkeypatch.setattr(study_module, "train", train)
    settings = [
        "train.batch_tokens=64..1024",
        "train.dropout=0..0.5",
        "train.optimizer=muon,adamw",
    ]
    with pytest.raises(UserError, match="no finite number"):
        run(tmp_path, 4, settings)
    first = seen[0]
    own = {"train.batch_tokens": "64", "train.dropout": "0.1", "train.optimizer": "muon"}
    assert {name: first[name] for name in own} == own
    assert len({one["train.budget"] for one in seen}) == 1
    for one in seen:
        tokens = int(one["train.batch_tokens"]) * int(one["train.validate_every"])
        assert tokens == pytest.approx(64 * int(first["train.validate_every"]), abs=1024)


@pytest.mark.parametrize(
    ("task", "rows", "base", "setting"),
    [
        ("translate", pairs, None, "tokenizer.vocab_size=300,400"),
        ("translate", pairs, None, "tune.context=64,128"),
        ("classify", reviews, "base", "model.width=32,64"),
    ],
)
def test_settings_of_a_tuning_that_say_nothing_are_refused(tmp_path, task, rows, base, setting):
    made = tuning(task, tmp_path, rows, base=base)
    (tmp_path / "recipe.yaml").write_text(made.as_yaml(), "utf-8")
    with pytest.raises(UserError, match=r"different kinds|change nothing"):
        run(tmp_path, 3, [setting])


def test_without_optuna_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"optuna is not installed.*tianti\[search\]"):
        search(tmp_path / "recipe.yaml", SETTINGS, trials=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
