"""Tasks: every kind is asked and judged, kept, gone on with, and compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.judge.conftest import network_of, write_rows
from tianti.api import answering, evaluate, evaluate_steps, load_model
from tianti.errors import UserError
from tianti.evaluate.contamination import FILTER, TrainingText
from tianti.evaluate.models.base import Request
from tianti.evaluate.tasks.kinds import kind_of
from tianti.evaluate.tasks.load import library, load_task
from tianti.evaluate.tasks.rows import evenly, read_rows
from tianti.judge import evaluation
from tianti.judge.compare import compare
from tianti.judge.evaluation import ITEMS, RESULT, prepare
from tianti.progress import SILENT
from tianti.runs.manifest import Manifest
from tianti.train.checkpoint import load_checkpoint, save_checkpoint

KINDS = ("pairs", "choice", "classes", "cloze", "texts", "free")


def judged(model, tasks, out, names=KINDS, **changes):
    return evaluate(
        model, [str(tasks / f"{name}.yaml") for name in names], out=out, display=SILENT, **changes
    )


def items_of(out, name):
    [path] = (out / name).glob(f"*/{ITEMS}")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_kind_has_figures_with_intervals(network, tasks, tmp_path):
    found = judged(network, tasks, tmp_path / "out")
    assert set(found) == set(KINDS)
    for name, result in found.items():
        assert result["n"] == (6 if name == "free" else 24)
        for metric in result["figures"].values():
            assert metric["low"] <= metric["value"] <= metric["high"] or metric["low"] is None
        assert result["headline"] in result["figures"]
    assert {"g0", "g1", "g2"} == set(found["pairs"]["groups"])
    assert len(found["classes"]["details"]["confusion"]) == 2
    assert found["free"]["details"]["signatures"]["bleu"]
    page = (tmp_path / "out" / "evaluate.html").read_text("utf-8")
    assert all(name in page for name in KINDS)


def test_answers_are_those_of_the_likelihoods(network, tasks, tmp_path):
    found = judged(network, tasks, tmp_path / "out", ("pairs", "choice"))
    rows = [json.loads(line) for line in (tasks / "test.jsonl").read_text("utf-8").splitlines()]
    right = 0
    for row, item in zip(rows, items_of(tmp_path / "out", "pairs"), strict=True):
        good, bad = network.likelihoods([Request("", row["good"]), Request("", row["bad"])])
        right += good.nats < bad.nats
        assert item["predicted"] == int(good.nats >= bad.nats)
    assert found["pairs"]["figures"]["accuracy"]["value"] == pytest.approx(right / 24)
    for row, item in zip(rows, items_of(tmp_path / "out", "choice"), strict=True):
        asked = [Request(row["text"], f" {choice}") for choice in row["choices"]]
        scores = [one.nats / one.bytes for one in network.likelihoods(asked)]
        assert item["predicted"] == int(np.argmin(scores))
        assert item["gold"] == row["answer"]


def test_unconditional_choices_are_weighed_against_themselves(network, tasks, tmp_path):
    judged(network, tasks, tmp_path / "out", ("choice",), changes={"normalise": "unconditional"})
    rows = [json.loads(line) for line in (tasks / "test.jsonl").read_text("utf-8").splitlines()]
    for row, item in zip(rows, items_of(tmp_path / "out", "choice"), strict=True):
        after = network.likelihoods([Request(row["text"], f" {c}") for c in row["choices"]])
        alone = network.likelihoods([Request("", f" {c}") for c in row["choices"]])
        gains = [b.nats - a.nats for a, b in zip(after, alone, strict=True)]
        assert item["predicted"] == int(np.argmax(gains))


def test_what_was_answered_is_not_asked_again(network, tasks, tmp_path, monkeypatch):
    first = judged(network, tasks, tmp_path / "out")
    monkeypatch.setattr(type(network), "likelihoods", None)
    monkeypatch.setattr(type(network), "texts", None)
    monkeypatch.setattr(type(network), "generate", None)
    assert judged(network, tasks, tmp_path / "out") == first


def test_another_model_task_or_text_is_asked(network, other_folder, tasks, tmp_path):
    out = tmp_path / "out"
    one = judged(network, tasks, out, ("pairs",))["pairs"]
    two = judged(network_of(other_folder), tasks, out, ("pairs",))["pairs"]
    assert one["figures"] != two["figures"]
    judged(network, tasks, out, ("pairs",), changes={"normalise": "token"})
    rows = (tasks / "test.jsonl").read_text("utf-8").splitlines()
    (tasks / "test.jsonl").write_text("\n".join(rows[:-1]), "utf-8")
    judged(network, tasks, out, ("pairs",))
    assert len(list((out / "pairs").iterdir())) == 4
    assert one["test_reads"] == 1
    assert two["test_reads"] == 2


def test_it_goes_on_from_the_last_whole_items(network, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_CHUNK_ITEMS", 5)
    whole = judged(network, tasks, tmp_path / "out", ("pairs",))["pairs"]
    [folder] = (tmp_path / "out" / "pairs").iterdir()
    (folder / RESULT).unlink()
    data = (folder / ITEMS).read_bytes()
    for cut in (0, 100, len(data) // 2, len(data) - 1, len(data)):
        (folder / ITEMS).write_bytes(data[:cut])
        again = judged(network, tasks, tmp_path / "out", ("pairs",))["pairs"]
        assert again["figures"] == whole["figures"]
        assert (folder / ITEMS).read_bytes() == data
        (folder / RESULT).unlink()


def test_examples_stand_before_items_and_are_never_tested(network, tasks, tmp_path):
    for choose in ("random", "first", "similar"):
        changes = {"few_shot.k": 2, "few_shot.choose": choose}
        made = prepare(*load_task(str(tasks / "choice.yaml"), changes), None)
        for number in range(3):
            question = made.question(number)
            assert question.prefix.count("\n\n") == 2
            assert made.rows[number]["text"] not in question.prefix.split("\n\n")
        if choose == "similar":
            assert made.rows[0]["text"] in made.question(0).prefix
        # With a limit an item gets the same examples.
        fewer = prepare(*load_task(str(tasks / "choice.yaml"), changes | {"limit": 2}), None)
        assert fewer.rows[1] == made.rows[12]
        assert fewer.question(1).prefix == made.question(12).prefix
    test = [json.loads(line) for line in (tasks / "test.jsonl").read_text("utf-8").splitlines()]
    train = [json.loads(line) for line in (tasks / "train.jsonl").read_text("utf-8").splitlines()]
    # A leak: test items among the examples. They are left out, or refused where they are meant.
    write_rows(tasks / "train.jsonl", [*test[:5], *train])
    changes = {"few_shot.k": 2}
    found = judged(network, tasks, tmp_path / "out", ("choice",), changes=changes)["choice"]
    assert found["few_shot"]["left_out"] == 5
    # Also of items that only a limit leaves out: they are tested without it.
    fewer = prepare(*load_task(str(tasks / "choice.yaml"), changes | {"limit": 2}), None)
    assert fewer.examples.leaked == 5
    with pytest.raises(UserError, match="one of the items that are tested"):
        prepare(
            *load_task(str(tasks / "choice.yaml"), changes | {"few_shot.choose": "first"}), None
        )
    with pytest.raises(UserError, match="taken from the items that are tested"):
        prepare(
            *load_task(str(tasks / "choice.yaml"), changes | {"few_shot.data": "test.jsonl"}), None
        )
    write_rows(tasks / "train.jsonl", test[::-1])
    with pytest.raises(UserError, match="0 are left"):
        judged(network, tasks, tmp_path / "out", ("choice",), changes={"few_shot.k": 1})


def test_examples_are_chosen_by_what_is_asked_and_never_by_the_answer(tasks):
    rows = [{"text": f"text number {n}", "label": "ab"[n % 2]} for n in range(8)]
    pool = [{"text": f"another {n}", "label": "ab"[n // 20]} for n in range(40)]
    write_rows(tasks / "test.jsonl", rows)
    # The same item under another number, its answer another: it would still give itself away.
    write_rows(tasks / "train.jsonl", [*pool, {"id": 9, "text": "text number 3", "label": "a"}])
    (tasks / "few.yaml").write_text(
        "name: few\ndata: test.jsonl\nkind: classify\ncontext: '{{ text }} is'\n"
        "labels: {a: good, b: bad}\nfew_shot: {k: 4, data: train.jsonl, choose: similar}\n"
    )
    made = prepare(*load_task(str(tasks / "few.yaml"), {}), None)
    assert made.examples.leaked == 1
    prefixes = {made.question(number).prefix.split(" is ")[-1] for number in range(8)}
    assert len({prefix.split()[0] for prefix in prefixes}) == 1


def test_a_model_that_tells_nothing_apart_gets_nothing_right(network, tasks, tmp_path, monkeypatch):
    likelihoods = type(network).likelihoods

    def alike(self, requests):
        return [replace(one, nats=1.0) for one in likelihoods(self, requests)]

    monkeypatch.setattr(type(network), "likelihoods", alike)
    found = judged(network, tasks, tmp_path / "out", ("pairs",))["pairs"]
    assert found["figures"]["accuracy"]["value"] == 0

    def broken(self, requests):
        return [replace(one, nats=float("nan")) for one in likelihoods(self, requests)]

    monkeypatch.setattr(type(network), "likelihoods", broken)
    for name in ("pairs", "choice", "cloze"):
        with pytest.raises(UserError, match="likelihoods are no numbers"):
            judged(network, tasks, tmp_path / "other", (name,))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        (3, ["3"]),
        ([{"text": "a", "answer_start": 0}], ["a"]),
        ({"text": ["a", "b"], "answer_start": [0, 1]}, ["a", "b"]),
    ],
)
def test_references_are_read_in_the_forms_of_the_field(given, wanted):
    task = load_task("squad" if "squad" in library() else "cmrc2018")[0]
    kind = kind_of(task.model_copy(update={"prompt": "x", "references": "answers"}))
    assert kind.question({"answers": given}, "here").references == wanted
    with pytest.raises(UserError, match="no texts"):
        kind.question({"answers": [{"value": "a"}]}, "here")


def test_versions_and_the_training_text_are_part_of_the_key(network, tasks, monkeypatch):
    made = prepare(*load_task(str(tasks / "pairs.yaml"), {}), None)
    none, bits = np.zeros(128, np.uint64), np.zeros(128, np.uint64)
    keys = [
        evaluation.key_of(network, made),
        evaluation.key_of(network, made, TrainingText(none, "a")),
        evaluation.key_of(network, made, TrainingText(bits, "b")),
    ]
    monkeypatch.setattr(evaluation, "VERSION", 99)
    keys.append(evaluation.key_of(network, made))
    assert len(set(keys)) == 4


def test_the_worst_come_first(network, tasks, tmp_path):
    found = judged(network, tasks, tmp_path / "out", ("texts",))["texts"]
    scores = [one["score"] for one in found["worst"]]
    items = items_of(tmp_path / "out", "texts")
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(max(i["nats"] / np.log(2) / i["bytes"] for i in items))


def test_two_models_are_compared_on_the_same_items(network, other_folder, tasks, tmp_path, call):
    judged(network, tasks, tmp_path / "a")
    judged(network_of(other_folder), tasks, tmp_path / "b")
    one, other = tmp_path / "a", tmp_path / "b"
    found = compare([one, other])
    assert set(found["tasks"]) == set(KINDS)
    for name, task in found["tasks"].items():
        for key, difference in task["differences"][0].items():
            values = [figures[key]["value"] for figures in task["figures"]]
            assert difference["value"] == pytest.approx(values[0] - values[1]), (name, key)
            assert 0 < difference["p"] <= 1
    same, apart = compare([one, one, other], ["pairs"])["tasks"]["pairs"]["differences"]
    assert {difference["p"] for difference in same.values()} == {1.0}
    assert apart == found["tasks"]["pairs"]["differences"][0]
    code, out, _ = call(
        "compare", tmp_path / "a", tmp_path / "b", "--page", tmp_path / "c.html", "--json"
    )
    assert code == 0
    assert json.loads(out)["tasks"]["pairs"]["n"] == 24
    assert "pairs" in (tmp_path / "c.html").read_text("utf-8")
    code, out, err = call("compare", one, other, one)
    assert (code, "A−B" in out + err) == (0, True)
    # The newest that all have is compared, whatever was asked in between.
    judged(network_of(other_folder), tasks, tmp_path / "b", ("pairs",), changes={"limit": 5})
    assert compare([one, other], ["pairs"])["tasks"]["pairs"]["n"] == 24
    judged(network, tasks, tmp_path / "a", ("pairs",), changes={"limit": 5})
    assert compare([one, other], ["pairs"])["tasks"]["pairs"]["n"] == 5
    judged(network, tasks, tmp_path / "a", ("pairs",))
    assert compare([one, other], ["pairs"])["tasks"]["pairs"]["n"] == 24
    judged(network, tasks, tmp_path / "d", ("pairs",), changes={"limit": 4})
    with pytest.raises(UserError, match=r"d \(n=4\).*other items"):
        compare([tmp_path / "d", other], ["pairs"])
    with pytest.raises(UserError, match="no evaluations here"):
        compare([one, one / "nothing"])
    [items] = (tmp_path / "d").rglob(ITEMS)
    kept = items.read_bytes()
    items.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(UserError, match="of 4 items are left"):
        compare([tmp_path / "d", tmp_path / "d"], ["pairs"])
    assert items.read_bytes() == kept[: len(kept) // 2]
    with pytest.raises(UserError, match="no task in common"):
        compare([one, other], ["none"])
    with pytest.raises(UserError, match="no evaluations here"):
        compare([tmp_path / "nowhere", other])
    result = next((tmp_path / "d").rglob(RESULT))
    result.write_text(result.read_text("utf-8").replace('"version": 3', '"version": 2'), "utf-8")
    with pytest.raises(UserError, match="no evaluations here"):
        compare([tmp_path / "d", other])
    with pytest.raises(UserError, match="one model alone"):
        compare([one])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kind: choise", "kind: "),
        ("kind: choice\nnormalize: byte", "normalize: Extra inputs"),
        ('kind: choice\ncontext: "{{ text"', "this template cannot be read"),
        ('kind: choice\ncontext: "{{ nothing }}"', "does not fit this item.*Its fields are: text"),
        ("kind: choice\nchoices: none", "no list of two or more"),
        ('kind: choice\nanswer: "7"', "the answer '7' is none of 3 choices"),
        ('kind: classify\ncontext: ""\nlabels: {a: x}', "needs two classes"),
        ('kind: classify\ncontext: "x"\nlabels: {a: x, c: y}', "'b' is none of the task's labels"),
        ('kind: generate\nprompt: ""\nmetrics: [bleu]', "bleu need references"),
        (
            'kind: generate\nprompt: "x"\nreferences: [" "]\nmetrics: [bleu]',
            "no reference that says",
        ),
        ("kind: minimal_pair\ngroup: none", "there is no field 'none'"),
        ("kind: minimal_pair\nwhere: {label: z}", "no item is left of 24"),
        ("kind: minimal_pair\nfew_shot: {k: 1}", "does not say where examples come from"),
        ("kind: perplexity\nfew_shot: {k: 1, data: train.jsonl}", "no examples before it"),
        ("kind: minimal_pair\nlanguage: zh-CN", "language: "),
        ('kind: generate\nprompt: "x"\nstop: [""]\nmetrics: [distinct]', "stop"),
        ('kind: choice\nanswer: "²"', "is none of 3 choices"),
        ("- a", "a task is a mapping"),
        ("a: [", "this is no YAML"),
    ],
)
def test_a_bad_task_is_named(network, tasks, tmp_path, change, message):
    head = "" if change[0] in "-a" else "name: bad\ndata: test.jsonl\n"
    (tasks / "bad.yaml").write_text(head + change, "utf-8")
    with pytest.raises(UserError, match=message):
        judged(network, tasks, tmp_path / "out", ("bad",))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a":', "x.jsonl:2: this line is not JSON"),
        ("x.jsonl", b"[1]\n", "this line is no object"),
        ("x.jsonl.gz", b"\x1f\x8b\x08no", "broken or cut short"),
        ("x.csv", b"a,b\n1\n", "x.csv:2: this row has another number of fields"),
        ("x.csv", b"a,b\n\xff,2\n", "this is not UTF-8"),
        ("x.parquet", b"PAR1", "not a readable Parquet file"),
    ],
)
def test_a_bad_file_is_named(network, tasks, tmp_path, name, data, message):
    (tasks / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        judged(network, tasks, tmp_path / "out", ("pairs",), changes={"data": name})


def test_items_are_read_from_tables_too(network, tasks, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"good": "a word", "bad": "word a"}, {"good": "再来，一次", "bad": "一来再次"}]
    pq.write_table(pa.Table.from_pylist(rows), tasks / "x.parquet")
    (tasks / "x.csv").write_text('good,bad\na word,word a\n"再来，一次",一来再次\n', "utf-8")
    (tasks / "x.tsv").write_text("good\tbad\na word\tword a\n再来，一次\t一来再次\n", "utf-8")
    write_rows(tasks / "x.jsonl", rows)
    found = []
    for name in ("x.parquet", "x.csv", "x.tsv", "x.jsonl"):
        changes = {"data": name, "group": None}
        made = judged(network, tasks, tmp_path / f"of-{name}", ("pairs",), changes=changes)["pairs"]
        found.append(made["figures"])
    assert found[0] == found[1] == found[2] == found[3]
    # Quotes are characters where tabs part fields; long fields are read.
    (tasks / "q.tsv").write_text('good\tbad\n"a word\tword a\nthe "bye"\tbye the\n', "utf-8")
    assert [row["good"] for row in read_rows(str(tasks / "q.tsv"))] == ['"a word', 'the "bye"']
    (tasks / "l.csv").write_text(f"good,bad\n{'x' * 200_000},b\n", "utf-8")
    assert len(read_rows(str(tasks / "l.csv"))[0]["good"]) == 200_000


def test_a_limit_takes_items_evenly():
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]


def test_the_tasks_that_come_along_are_tasks(call):
    for name in library():
        task, _ = load_task(name)
        assert task.name == name
        assert task.description
    code, out, _ = call("tasks", "--json")
    assert code == 0
    assert set(json.loads(out)) == set(library())
    with pytest.raises(UserError, match=r"no task of this name.*Did you mean 'blimp'"):
        load_task("blimps")


def test_the_command_judges_and_says_where_the_page_is(model_folder, tasks, tmp_path, call):
    task = tasks / "pairs.yaml"
    code, _, err = call("eval", model_folder, "--task", task, "--out", tmp_path / "out")
    assert code == 0, err
    assert (tmp_path / "out" / "evaluate.html").is_file()
    code, out, _ = call("eval", model_folder, "--task", task, "--out", tmp_path / "out", "--json")
    assert json.loads(out)["evaluate"]["pairs"]["n"] == 24
    code, _, err = call("eval", model_folder)
    assert (code, "either tasks or a text" in err) == (2, True)
    code, _, err = call("eval", model_folder, "--text", task, "--limit", "3")
    assert (code, "--limit: it says nothing beside --text" in err) == (2, True)


def test_results_lie_beside_a_run_s_model(model_folder):
    _, place = answering(model_folder.parent)
    assert place == model_folder.parent / "evaluations"
    with pytest.raises(UserError, match="needs the name"):
        answering("http://127.0.0.1:1/v1")


def test_results_of_a_model_that_is_no_run_s_are_found_from_it(
    model_folder, tasks, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, tmp_path / "plain")
    evaluate("plain", [str(tasks / "pairs.yaml")], display=SILENT)
    assert compare([Path("plain"), Path("plain")])["tasks"]["pairs"]["n"] == 24


def test_a_model_older_than_its_run_s_training_is_named(finished_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    load_model(run)
    assert "run the recipe again" not in capsys.readouterr().err
    manifest = Manifest.read(run / "train")
    replace(manifest, fingerprint="another").write(run / "train")
    load_model(run)
    assert "run the recipe again" in capsys.readouterr().err


def test_a_training_is_judged_at_every_checkpoint_it_keeps(finished_run, tasks, tmp_path, call):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    kept = sorted((run / "train" / "checkpoints").glob("step-*"))
    if len(kept) == 1:
        # Another step, the same weights: what is compared is then equal.
        checkpoint = load_checkpoint(kept[0])
        state = replace(checkpoint.state, step=checkpoint.state.step - 1)
        save_checkpoint(kept[0].parent, replace(checkpoint, state=state), keep=9)
    names = [str(tasks / f"{name}.yaml") for name in ("texts", "cloze")]
    command = ["eval", run, "--steps", "--task", names[0], "--task", names[1]]
    code, out, err = call(*command, "--json")
    assert code == 0, err
    found = {int(step): results for step, results in json.loads(out)["evaluate"].items()}
    assert len(found) >= 2
    last = max(found)
    assert found[last]["texts"]["model"]["step"] == last
    whole = evaluate(str(run), names, out=tmp_path / "whole")
    assert whole["texts"]["figures"] == found[last]["texts"]["figures"]
    # Both tasks read the same file, at each step anew.
    reads = sorted(results[name]["test_reads"] for results in found.values() for name in results)
    assert reads == list(range(1, 2 * len(found) + 1))
    page = (run / "evaluations" / "steps" / "steps.html").read_text("utf-8")
    assert f"step-{last}" in str(sorted((run / "evaluations" / "steps").iterdir()))
    assert "cloze" in page
    code, out, err = call(*command)
    assert (code, f"{last:,}" in out + err) == (0, True)
    # The index of the training text is of the run, not of a step.
    assert [path.parent.name for path in run.rglob(FILTER)] == ["evaluations"]
    with pytest.raises(UserError, match="no checkpoints here"):
        evaluate_steps(tmp_path, names)
    code, _, err = call("eval", run, "--steps", "--text", tasks / "test.jsonl")
    assert (code, "--steps" in err) == (2, True)
