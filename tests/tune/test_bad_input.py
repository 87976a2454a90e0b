"""What is wrong with examples is said with file and line, before anything is trained."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from tests.tune.conftest import pairs, recipe, reviews, write
from tianti.api import load_model, predict, run
from tianti.cli.main import app
from tianti.errors import UserError
from tianti.progress import SILENT
from tianti.recipe import Recipe, RecipeError

GOOD_CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def refused(task, folder, rows, line, words, **changes):
    """Sees that a file of two good rows and those is refused at a line of it, in those words."""
    made = recipe(task, folder, reviews, steps=4, **changes)
    bad = write(folder / "train.jsonl", rows)
    tune = made.tune.model_copy(update={"validation": bad, "test": None})
    with pytest.raises(UserError, match=words) as error:
        run(made.model_copy(update={"tune": tune}), folder / "run", display=SILENT, until="train")
    assert str(error.value.where) == f"{bad}:{line}"
    assert not (folder / "run" / "train").exists()


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ([GOOD_CHAT, {"messages": []}], 2, "the conversation is empty"),
        ([{"messages": [{"role": "wizard", "content": "x"}]}], 1, "'wizard' is not known"),
        ([GOOD_CHAT, {"question": "x"}], 2, "this is no conversation: it has question"),
        ([{"messages": [{"role": "user", "content": "x"}]}], 1, "an assistant says nothing"),
        ([{"messages": [{"role": "user", "content": 5}]}], 1, "text is wanted"),
    ],
)
def test_conversations(tmp_path, rows, line, words):
    refused("instruct", tmp_path, rows, line, words)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x"}, "there is no column 'label'"),
        ({"label": "pos"}, "there is no column 'text'"),
        ({"text": "  ", "label": "pos"}, "text is empty"),
        ({"text": 7, "label": "pos"}, "text is no text but int"),
        ({"text": "x", "label": ["pos", "neg"]}, "there are several classes, one is wanted"),
        ({"text": "x", "label": {"a": 1}}, "a label is a name"),
        ({"text": "x", "label": None}, "a label is a name, this is None"),
    ],
)
def test_classes(tmp_path, row, words):
    refused("classify", tmp_path, [*reviews(4), row], 5, words)


@pytest.mark.parametrize(
    ("entity", "words"),
    [
        ({"start": 0, "end": 99, "type": "x"}, "0–99 is not within the text of 5 characters"),
        ({"start": 2, "end": 2, "type": "x"}, "2–2 is not within"),
        ({"start": 0, "type": "x"}, "an entity has start, end and type"),
        ({"start": 1, "end": 3, "type": "x"}, "entities overlap at character 1"),
        ({"start": 1, "end": 1, "type": "x"}, "1–1 is not within"),
    ],
)
def test_entities(tmp_path, entity, words):
    good = {"text": "abcde", "entities": [{"start": 0, "end": 2, "type": "x"}]}
    bad = {"text": "abcde", "entities": [*good["entities"], entity]}
    refused("tag", tmp_path, [good, bad], 2, words)


def test_tags_of_words(tmp_path):
    good = {"tokens": ["a", "b"], "tags": ["O", "B-x"]}
    refused("tag", tmp_path, [good, good | {"tags": ["O"]}], 2, "2 words but not as many tags")


def test_numbers_and_pairs(tmp_path):
    good = {"text": "a", "label": 1.5}
    refused("regress", tmp_path, [good, {"text": "b", "label": "much"}], 2, "a number is wanted")
    refused("translate", tmp_path, [*pairs(2), {"source": "x"}], 3, "no column 'target'")


def test_shapes_of_data_that_nobody_thought_of(tmp_path):
    good = {"text": "abcde", "entities": [{"start": 0, "end": 2, "type": "x"}]}
    refused("tag", tmp_path, [good, good | {"entities": 5}], 2, "cannot be read")
    bad = {"context": "a", "question": "b", "answers": [{"said": "c"}]}
    refused("answer", tmp_path, [bad], 1, "cannot be read")


@pytest.mark.parametrize("number", ["inf", "nan", None, ""])
def test_numbers_that_are_none(tmp_path, number):
    refused("regress", tmp_path, [{"text": "a", "label": number}], 1, "a number is wanted")


def test_tags_without_any_entity(tmp_path):
    made = recipe("tag", tmp_path, lambda count, seed: [{"text": "a", "entities": []}] * count)
    with pytest.raises(UserError, match="no example has a class, or entities"):
        run(made, tmp_path / "run", display=SILENT, until="examples")


def test_lists_of_classes_where_one_is_wanted_and_shares_are_split(tmp_path):
    made = recipe("classify", tmp_path, lambda c, s: [{"text": "a", "label": ["x"]}] * c)
    tune = made.tune.model_copy(update={"validation": 0.1})
    with pytest.raises(UserError, match="there are several classes, one is wanted"):
        run(made.model_copy(update={"tune": tune}), tmp_path / "run", display=SILENT)


def test_a_class_that_only_the_part_for_validation_has_is_known(tmp_path):
    rows = [*reviews(40), {"text": "odd one", "label": "rare"}]
    made = recipe("classify", tmp_path, lambda count, seed: rows, validation=0.4)
    for seed in range(4):
        changed = made.model_copy(update={"seed": seed})
        found = run(changed, tmp_path / f"run{seed}", display=SILENT, until="examples")
        assert found.results["examples"]["labels"] == ["neg", "pos", "rare"]


def test_paths_with_variables_that_are_not_set(tmp_path):
    made = recipe("classify", tmp_path, reviews)
    tune = made.tune.model_copy(update={"train": "${NOWHERE_AT_ALL}/x.jsonl"})
    with pytest.raises(UserError, match="NOWHERE_AT_ALL"):
        run(made.model_copy(update={"tune": tune}), tmp_path / "run", display=SILENT)


def test_a_class_that_training_does_not_know(tmp_path):
    made = recipe("classify", tmp_path, reviews)
    write(tmp_path / "test.jsonl", [*reviews(3), {"text": "x", "label": "odd"}])
    with pytest.raises(UserError, match="'odd' is none of those of training") as error:
        run(made, tmp_path / "run", display=SILENT, until="test")
    assert str(error.value.where).endswith("test.jsonl:4")
    assert "neg, pos" in error.value.remedy


def test_all_of_one_class(tmp_path):
    rows = [{"text": "a", "label": "same"}] * 4
    made = recipe("classify", tmp_path, lambda count, seed: rows)
    with pytest.raises(UserError, match="all examples have one class: same"):
        run(made, tmp_path / "run", display=SILENT, until="examples")


def test_long_examples_are_cut_and_counted(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(SILENT, "say", lambda text="", style=None: said.append(text))

    def long(count, seed):
        return [{"text": f"{row['text']} " * 40, "label": row["label"]} for row in reviews(count)]

    found = run(recipe("classify", tmp_path, long, steps=4), tmp_path / "run", display=SILENT)
    assert found.results["train"]["cut"] == 120
    assert found.results["evaluate"]["cut"] == 30
    # That is said in training, and of what is predicted.
    assert [text for text in said if "longer than" in text] == [
        "120 of 120 examples were longer than 64 tokens, and cut"
    ]
    said.clear()
    more = write(tmp_path / "more.jsonl", [{"text": "film " * 400}, {"text": "film"}])
    predict(found.path, more, display=SILENT)
    assert said == ["1 of 2 examples were longer than 64 tokens, and cut"]


def test_of_a_long_question_the_answer_is_kept_whole(tmp_path):
    def long(count, seed):
        return [{"source": "word " * 200, "target": "short answer"}] * count

    found = run(recipe("translate", tmp_path, long, steps=4), tmp_path / "run", display=SILENT)
    assert found.results["train"]["cut"] == 120
    shown = json.loads((found.path / "train" / "tokens.json").read_text("utf-8"))
    said = "".join(piece["text"] for piece in shown[0] if piece["wanted"])
    assert said == "short answer<|im_end|>"


def test_an_answer_that_does_not_fit_is_refused(tmp_path):
    made = recipe("instruct", tmp_path, reviews, context=8, template="chatml")
    rows = [{"prompt": "x", "completion": "many words " * 30}]
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(UserError, match="nothing that an assistant says fits 8 tokens"):
        run(made, tmp_path / "run", display=SILENT, until="train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tune": {"task": "classify"}}, "tune.train"),
        ({"tune": {"task": "guess", "train": "x"}}, "tune.task"),
        ({"tune": {"task": "classify", "train": "x", "columns": {"lable": "y"}}}, "lable"),
        ({"tune": {"task": "translate", "train": "x", "method": "head"}}, "head"),
        ({"tune": {"task": "classify", "train": "x", "method": "head"}}, "head needs a base"),
        ({"tune": {"task": "lm", "train": "x", "method": "lora"}}, "lora needs a base"),
        ({"tune": {"task": "lm", "train": "x", "several": True}}, "several"),
        ({"tune": {"task": "regress", "train": "x", "steer": "accuracy"}}, "steered by loss"),
        ({"tune": {"task": "tag", "train": "x", "sampling": "root"}}, "sampling is for classify"),
        (
            {"tune": {"task": "classify", "train": "x", "several": True, "adjusted": True}},
            "adjusted is for classify",
        ),
        ({"tune": {"task": "classify", "train": "x", "beta": 1}}, "beta is for prefer"),
        ({"tune": {"task": "lm", "train": "x"}, "corpus": {"sources": [{"path": "y"}]}}, "corpus"),
        ({"base": "x", "corpus": {"sources": [{"path": "y"}]}}, "base is for recipes with tune"),
        ({}, "corpus"),
    ],
)
def test_recipes(change, words):
    with pytest.raises(RecipeError, match=words):
        Recipe.parse(yaml.safe_dump({"name": "x"} | change))


def test_settings_that_do_not_fit_each_other_are_told_without_their_kind_in_python():
    with pytest.raises(RecipeError) as error:
        Recipe.parse("name: x\ntune: {task: lm, train: x, several: true}")
    assert "several is for classify alone" in str(error.value)
    assert "dict" not in str(error.value)


@pytest.mark.parametrize(
    ("base", "words"), [("nowhere", "no config.json"), (".", "no config.json")]
)
def test_a_base_that_is_no_model(tmp_path, base, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        run(recipe("classify", tmp_path, reviews, base=base), tmp_path / "run", display=SILENT)


def test_a_tokenizer_of_another_model(classified, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in (classified.path / "model").iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    with pytest.raises(UserError, match="the tokenizer has 318 entries, the network 300"):
        run(recipe("classify", tmp_path, reviews, base=str(base)), tmp_path / "run", display=SILENT)


def test_a_template_that_does_not_say_who_speaks(translated, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in (translated.path / "model").iterdir():
        text = path.read_bytes()
        (base / path.name).write_bytes(text.replace(b"<|im_start|>", b"<|im_begin|>"))
    (base / "chat_template.jinja").write_text("{{ messages | length }}: {{ messages[-1].content }}")
    with pytest.raises(UserError, match="does not say where turn 2 begins"):
        run(recipe("translate", tmp_path, pairs, base=str(base)), tmp_path / "run", display=SILENT)


def test_commands_end_with_2_and_a_line(classified, tmp_path):
    source = write(tmp_path / "asked.jsonl", [{"text": "film"}, {"txt": "x"}])
    found = CliRunner().invoke(app, ["predict", str(classified.path), source])
    assert isinstance(found.exception, UserError)
    assert "asked.jsonl:2" in str(found.exception)
    found = CliRunner().invoke(app, ["predict", str(tmp_path), source])
    assert isinstance(found.exception, UserError)
    with pytest.raises(UserError, match="ours=theirs"):
        CliRunner().invoke(
            app, ["predict", str(classified.path), source, "--column", "x"], catch_exceptions=False
        )
    with pytest.raises(UserError, match="has no column foo"):
        predict(classified.path, source, columns={"foo": "x"}, device="cpu", display=SILENT)
    with pytest.raises(UserError, match="it writes no text"):
        load_model(classified.path)
    told = predict(
        classified.path,
        write(tmp_path / "renamed.jsonl", [{"review": "film 很好 book"}]),
        columns={"text": "review"},
        device="cpu",
        display=SILENT,
    )
    assert told[0]["label"] == "pos"


def test_a_question_that_the_template_refuses_is_named_in_prediction_too(translated, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(translated.path / "model", folder)
    refusing = "{% if messages[0].content == 'bad' %}{{ raise_exception('no') }}{% endif %}x"
    (folder / "chat_template.jinja").write_text(refusing)
    source = write(tmp_path / "asked.jsonl", [{"source": "fine"}, {"source": "bad"}])
    with pytest.raises(UserError, match="refuses this: no") as error:
        predict(folder, source, device="cpu", display=SILENT)
    assert str(error.value.where) == f"{source}:2"


def test_a_model_without_a_task(finished_run, tmp_path):
    source = write(tmp_path / "asked.jsonl", [{"text": "film"}])
    with pytest.raises(UserError, match="was not tuned for a task"):
        predict(finished_run, source, device="cpu", display=SILENT)


def test_a_base_that_tells_classes_writes_nothing(classified, tmp_path):
    made = recipe("translate", tmp_path, pairs, base=str(classified.path))
    with pytest.raises(UserError, match="looks back alone"):
        run(made, tmp_path / "run", display=SILENT)
    causal = made.tune.model_copy(update={"attention": "causal"})
    with pytest.raises(UserError, match="no output layer to write with"):
        run(made.model_copy(update={"tune": causal}), tmp_path / "other", display=SILENT)


def test_adapters_of_an_output_layer_that_is_not_there(translated, tmp_path):
    lora = {"targets": ["all-linear", "lm_head"]}
    changes = {"base": str(translated.path), "method": "lora", "lora": lora}
    with pytest.raises(UserError, match="no output layer to adapt"):
        run(recipe("classify", tmp_path, reviews, **changes), tmp_path / "run", display=SILENT)
