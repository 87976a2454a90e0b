from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import tiny_recipe


@pytest.fixture
def recipe_file(tmp_path, text_folder):
    path = tmp_path / "recipe.yaml"
    path.write_text(tiny_recipe(text_folder))
    return path


def test_help_does_not_import_what_computes():
    code = (
        "import sys; sys.argv = ['tianti', '--help']\n"
        "from tianti.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'pyarrow', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout


def test_help_speaks_chinese():
    done = subprocess.run(
        [sys.executable, "-m", "tianti", "--help"],
        env=os.environ | {"TIANTI_LANG": "zh-CN", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "语言模型" in done.stdout


def test_recipe_check_is_one_json_object(call, recipe_file):
    code, out, _ = call("recipe", "check", recipe_file, "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "name": "tiny"})


def test_a_wrong_recipe_is_exit_code_2_without_a_traceback(call, recipe_file):
    code, out, err = call("recipe", "check", recipe_file, "train.bugdet=3m", "--json")
    assert code == 2
    assert "did you mean 'budget'?" in json.loads(out)["error"]
    assert "did you mean 'budget'?" in err
    assert "Traceback" not in err


def test_recipe_show_and_schema(call, recipe_file):
    assert "vocab_size: 400" in call("recipe", "show", recipe_file)[1]
    shown = json.loads(call("recipe", "show", recipe_file, "--json")[1])
    assert shown["train"]["budget"] == "24 steps"
    assert "TrainConfig" in json.loads(call("recipe", "schema")[1])["$defs"]


def test_plan_is_one_json_object(call, recipe_file, tmp_path):
    code, out, _ = call("plan", recipe_file, "--out", tmp_path / "x", "--json")
    assert code == 0
    planned = json.loads(out)
    assert planned["tokens"] == 24 * 512
    assert planned["memory"]["total"] > 0
    code, out, err = call("plan", recipe_file, "--out", tmp_path / "x")
    assert (code, err) == (0, "")
    assert "tianti run" in out


def test_run_twice(call, recipe_file, finished_run):
    code, out, err = call("run", recipe_file, "--out", finished_run, "--json")
    assert code == 0
    assert json.loads(out)["evaluate"]["test"]["bits_per_byte"]["n"] > 0
    code, out, err = call("run", recipe_file, "--out", finished_run)
    assert code == 0
    assert "train: up to date" in err
    assert "Nothing to do" in out
    assert "xz -9e" in out
    assert "report.html" in out


def test_generate_streams_the_text_that_json_holds(call, finished_run):
    arguments = ("generate", finished_run / "model", "--prompt", "The", "--max-tokens", 20)
    plain = call(*arguments)[1]
    made = json.loads(call(*arguments, "--json")[1])
    assert plain == made["text"] + "\n"
    assert made["prompt"] == "The"
    assert call(*arguments, "--seed", 5)[1] != plain


def test_eval_gives_the_same_figure_as_the_run(call, finished_run, tmp_path):
    from tianti.corpus.table import read_texts

    rows = [{"text": text} for text in read_texts(finished_run / "corpus" / "test")]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    code, out, _ = call("eval", finished_run, "--text", tmp_path / "t.jsonl", "--json")
    assert code == 0
    metric = json.loads(out)["evaluate"]["text"]["bits_per_byte"]
    results = json.loads((finished_run / "results.json").read_text())
    expected = results["evaluate"]["test"]["bits_per_byte"]
    assert metric == pytest.approx(expected, rel=1e-4)


def test_report_is_written_again(call, finished_run):
    (finished_run / "report.html").unlink()
    code, out, _ = call("report", finished_run, "--json")
    assert code == 0
    assert (finished_run / "report.html").is_file()
    assert json.loads(out)["report"].endswith("report.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("generate", "nowhere"), "not a model folder"),
        (("eval", "nowhere", "--text", "nothing.txt"), "nothing.txt: no such file"),
        (("report", "nowhere"), "this is not a run"),
    ],
)
def test_what_is_not_there_is_one_line_and_exit_code_2(call, arguments, message):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_python_interface_is_what_the_commands_call(finished_run):
    import tianti

    model = tianti.load_model(finished_run)
    assert model.path == finished_run / "model"
    made = model.generate("The", max_tokens=5, temperature=0)
    assert "".join(model.stream("The", max_tokens=5, temperature=0)) == made.text
    metric = model.bits_per_byte(["Some text.", "另一段文字。"])
    assert metric.n == 2
    assert set(dir(tianti)) >= {"Recipe", "run", "load_model"}
    with pytest.raises(AttributeError):
        _ = tianti.nothing
