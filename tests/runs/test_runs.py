from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys

import pytest

from tests.conftest import tiny_recipe
from tianti.errors import UserError
from tianti.files import read_json
from tianti.recipe import Recipe
from tianti.runs.fingerprint import changes, fingerprint, plain
from tianti.runs.lock import one_writer
from tianti.runs.manifest import Manifest
from tianti.runs.plan import plan
from tianti.runs.runner import carry_out
from tianti.runs.stages import STAGES

STAGE_NAMES = tuple(stage.name for stage in STAGES)


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run that may be changed."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def recipe(text_folder):
    return lambda *overrides: Recipe.parse(tiny_recipe(text_folder), overrides)


def test_the_same_recipe_again_does_nothing(run, recipe):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = carry_out(recipe(), run)
    assert again.done == ()
    assert again.kept == STAGE_NAMES
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {"recipe.yaml", ".lock-owner", ".lock"}


def test_a_second_time_does_not_import_torch(run, text_folder, tmp_path):
    (tmp_path / "r.yaml").write_text(tiny_recipe(text_folder))
    code = (
        "import sys; from tianti.cli import app;"
        f"app(['run', {str(tmp_path / 'r.yaml')!r}, '--out', {str(run)!r}], standalone_mode=False);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert "Nothing to do" in done.stdout


def test_a_changed_learning_rate_redoes_training_and_what_hangs_on_it(run, recipe):
    again = carry_out(recipe("train.learning_rate=0.001"), run, until="model")
    assert again.done == ("train", "model")
    assert again.kept == ("documents", "corpus", "machine", "tokenizer", "tokens")


def test_changed_samples_redo_the_samples_alone(run, recipe):
    assert carry_out(recipe("generate.samples=1"), run).done == ("generate",)


def test_how_often_is_saved_changes_nothing(run, recipe):
    assert carry_out(recipe("train.save_every=5s"), run).done == ()


def test_a_changed_file_redoes_everything_but_the_machine(run, recipe, tmp_path, texts):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text + " changed", "utf-8")
    again = carry_out(recipe(f"corpus.sources.0.path={folder}"), run, until="tokens")
    assert again.done == ("documents", "corpus", "tokenizer", "tokens")


def test_until_and_from_choose_stages(run, recipe):
    assert carry_out(recipe(), run, redo_from="evaluate", until="evaluate").done == ("evaluate",)
    with pytest.raises(UserError, match=r"no stage 'trian'.*Stages: documents, corpus"):
        carry_out(recipe(), run, until="trian")


@pytest.mark.parametrize(
    "name", ["corpus/train/000000.parquet", "tokens/train/00000.tokens", "model/model.safetensors"]
)
def test_a_torn_file_is_named_and_its_stage_made_again(run, recipe, name):
    path = run / name
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    again = carry_out(recipe(), run)
    assert again.done[0] == name.split("/")[0]
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("corpus/test/000000.parquet", "evaluate.baselines=false"),
        ("tokens/train/00000.tokens", "train.learning_rate=0.002"),
        ("model/model.safetensors", "evaluate.baselines=false"),
    ],
)
def test_a_flipped_bit_in_an_input_is_found_before_it_is_used(run, recipe, name, override):
    path = run / name
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{path.name}: file is damaged \(checksum"):
        carry_out(recipe(override), run)


def test_results_hold_metrics_with_intervals_under_stage_and_split(finished_run):
    results = read_json(finished_run / "results.json")
    for split in ("train", "validation", "test"):
        metric = results["evaluate"][split]["bits_per_byte"]
        assert set(metric) == {"value", "low", "high", "n"}
        assert metric["n"] >= 1
        assert 0 < metric["value"] < 9
    for baseline in ("xz_bits_per_byte", "byte_trigram_bits_per_byte"):
        assert set(results["evaluate"]["test"][baseline]) == {"value", "low", "high", "n"}
    assert results["train"]["steps"] == 24
    assert {row["setting"] for row in results["settings"]} >= {"train.learning_rate", "model"}


def test_manifests_say_what_made_each_stage(finished_run):
    fingerprints = {}
    for name in STAGE_NAMES:
        manifest = Manifest.read(finished_run / name)
        assert manifest is not None
        manifest.check(finished_run / name, hashes=True)
        assert manifest.versions["torch"]
        assert manifest.wall_seconds >= 0
        for other, value in manifest.inputs.items():
            assert fingerprints[other] == value
        fingerprints[name] = manifest.fingerprint
    assert not list(finished_run.rglob("*.tmp"))
    assert not list((finished_run / ".partial").iterdir())


def test_the_test_split_is_read_only_by_the_last_stages():
    readers = [
        stage.name for stage in STAGES if "corpus" in stage.inputs or "tokens" in stage.inputs
    ]
    assert readers == ["tokenizer", "tokens", "train", "evaluate", "generate"]


def hold(folder, ready, release):
    with one_writer(folder):
        ready.set()
        release.wait(30)


def test_one_writer_and_a_killed_one_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, release))
    process.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match=f":{process.pid}") as caught, one_writer(tmp_path):
        pass
    assert "--out" in str(caught.value)
    process.kill()
    process.join()
    with one_writer(tmp_path):
        pass


def test_a_training_killed_while_it_is_published_is_not_done_again(run, recipe, monkeypatch):
    from tianti.runs import runner

    weights = (run / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "train")

    def killed(partial, final):
        if final.name == "train":
            raise KeyboardInterrupt
        publish(partial, final)

    publish = runner.publish_folder
    monkeypatch.setattr(runner, "publish_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        carry_out(recipe(), run)
    monkeypatch.setattr(runner, "publish_folder", publish)
    from tianti.train.trainer import Trainer

    steps = []
    monkeypatch.setattr(Trainer, "one_step", lambda *_: steps.append(1))
    again = carry_out(recipe(), run, until="model")
    assert "train" in again.done
    assert steps == []
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    assert not (run / "train" / "fingerprint.json").exists()


@pytest.mark.parametrize("override", ["model.depth=100000", "model.context=1G"])
def test_what_cannot_fit_is_refused_before_training(run, recipe, override):
    with pytest.raises(UserError, match=r"training needs about .* of memory"):
        carry_out(recipe(override), run)


def test_memory_that_runs_out_is_one_line(run, recipe, monkeypatch):
    def hungry(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 TB")

    monkeypatch.setattr("tianti.evaluate.stage.evaluate_model", hungry)
    with pytest.raises(UserError, match="evaluate: there is not enough memory"):
        carry_out(recipe("evaluate.stride=8"), run)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.stride=100000", "evaluate.stride: a stride of 100000 does not fit"),
        ("model.num_kv_heads=7", "must be a multiple of num_kv_heads"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told_before_training(
    recipe, tmp_path, override, message
):
    with pytest.raises(UserError, match=message):
        plan(recipe(override), tmp_path)


def test_others_may_read_the_weights_as_the_umask_says(finished_run):
    modes = {path.name: path.stat().st_mode for path in (finished_run / "model").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_a_stage_that_fails_leaves_nothing_that_counts(run, recipe, monkeypatch):
    def broken(*_):
        raise UserError("no")

    monkeypatch.setattr("tianti.generate.stage.generate_samples", broken)
    with pytest.raises(UserError):
        carry_out(recipe("generate.samples=1"), run)
    monkeypatch.undo()
    assert carry_out(recipe(), run).done == ()


def test_fingerprints_follow_config_inputs_and_version():
    base = fingerprint("train", 1, {"a": 1}, {"tokens": "x"})
    assert base == fingerprint("train", 1, {"a": 1}, {"tokens": "x"})
    others = [
        fingerprint("train", 2, {"a": 1}, {"tokens": "x"}),
        fingerprint("train", 1, {"a": 2}, {"tokens": "x"}),
        fingerprint("train", 1, {"a": 1}, {"tokens": "y"}),
        fingerprint("model", 1, {"a": 1}, {"tokens": "x"}),
    ]
    assert len({base, *others}) == 5
    with pytest.raises(TypeError):
        plain(object())


def test_changes_are_told_as_paths():
    assert changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}) == ["a.b: 1 → 3"]
    assert changes({"a": 1}, {"a": 1}) == []


def test_a_plan_foretells_without_doing(recipe, tmp_path):
    planned = plan(recipe(), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert [status for _, status in planned.stages] == ["to do"] * len(STAGE_NAMES)
    values = planned.as_dict()
    assert values["estimated"]
    assert values["model"]["parameters"] == planned.derivation.model.num_parameters()
    assert values["tokens"] == 24 * 512
    json.dumps(values)


def test_a_plan_knows_what_is_up_to_date(run, recipe):
    planned = plan(recipe("train.learning_rate=0.5"), run)
    status = dict(planned.stages)
    assert [status[name] for name in ("corpus", "machine", "tokenizer", "tokens")] == [
        "up to date"
    ] * 4
    assert status["train"] == status["evaluate"] == "to do again"
    assert not planned.as_dict()["estimated"]
    results = read_json(run / "results.json")
    assert planned.as_dict()["model"]["parameters"] == results["train"]["parameters"]


def test_the_plan_estimates_the_size_of_the_sources(recipe, tmp_path):
    (tmp_path / "zh").mkdir()
    for n in range(50):
        (tmp_path / "zh" / f"{n}.txt").write_text("春眠不觉晓，处处闻啼鸟。" * 50, "utf-8")
    planned = plan(recipe(f"corpus.sources.0.path={tmp_path / 'zh'}"), tmp_path / "none")
    assert planned.facts.train_bytes == pytest.approx(50 * 50 * 36)


def test_every_reading_of_the_test_split_is_counted(run, recipe):
    before = carry_out(recipe(), run).results["stages"]
    carry_out(recipe(), run, redo_from="evaluate")
    again = carry_out(recipe(), run).results["stages"]
    assert again["evaluate"]["test_reads"] == before["evaluate"]["test_reads"] + 1 == 2
    assert [name for name, stage in again.items() if "test_reads" in stage] == ["evaluate"]
    assert "makes it less of a test" in (run / "report.html").read_text("utf-8")
