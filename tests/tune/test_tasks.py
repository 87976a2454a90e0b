"""Every task from files to figures and predictions, and what transformers makes of the models."""

from __future__ import annotations

import json

import pytest
import torch

from tests.tune.conftest import entities, numbers, preferred, recipe, reviews, several, write
from tianti.api import predict, run
from tianti.files import read_json
from tianti.progress import SILENT
from tianti.runs.runner import REPORT
from tianti.tokens.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")


def carried_out(task, folder, rows, **changes):
    return run(recipe(task, folder, rows, **changes), folder / "run", display=SILENT)


def predicted(found, rows, tmp_path):
    source = write(tmp_path / "asked.jsonl", rows)
    return predict(found.path, source, tmp_path / "told.jsonl", device="cpu", display=SILENT)


def test_classes_are_learnt_judged_and_predicted(classified, tmp_path):
    judged = classified.results["evaluate"]
    assert judged["figures"]["accuracy"]["value"] == 1.0
    assert judged["figures"]["accuracy"]["low"] < 1.0
    assert judged["figures"]["mcc"]["value"] == 1.0
    assert set(judged["classes"]) == {"neg", "pos"}
    told = predicted(classified, [{"text": "film 糟糕 meal"}, {"text": "book great 书"}], tmp_path)
    assert [one["label"] for one in told] == ["neg", "pos"]
    assert [one["line"] for one in told] == [1, 2]
    assert sum(told[0]["scores"].values()) == pytest.approx(1, abs=1e-5)
    written = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert written == told


def test_transformers_classifies_alike_through_its_own_tokenizer(classified):
    texts = [row["text"] for row in reviews(20, 3)]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        classified.path / "model"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(classified.path / "model")
    held = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        chances = model.eval()(**held).logits.softmax(-1)
    rows = write(classified.path.parent / "more.jsonl", [{"text": text} for text in texts])
    told = predict(classified.path, rows, device="cpu", display=SILENT)
    for row, one in zip(chances, told, strict=True):
        assert model.config.id2label[int(row.argmax())] == one["label"]
        for number, chance in enumerate(row.tolist()):
            label = model.config.id2label[number]
            assert one["scores"][label] == pytest.approx(chance, abs=2e-5)


def test_nothing_is_done_twice_and_a_change_redoes_what_hangs_on_it(tmp_path):
    made = recipe("classify", tmp_path, reviews)
    first = run(made, tmp_path / "run", display=SILENT, until="model")
    assert first.done == ("examples", "test", "tokenizer", "train", "model")
    again = run(made, tmp_path / "run", display=SILENT, until="model")
    assert again.kept == first.done
    write(tmp_path / "test.jsonl", reviews(12, 9))
    changed = run(made, tmp_path / "run", display=SILENT, until="model")
    assert changed.done == ("test",)
    write(tmp_path / "train.jsonl", reviews(60, 9))
    changed = run(made, tmp_path / "run", display=SILENT, until="tokenizer")
    assert changed.done == ("examples", "test", "tokenizer")


def test_the_report_shows_classes_tokens_and_mistakes(classified):
    page = (classified.path / REPORT).read_text("utf-8")
    assert "Class by class" in page
    assert "逐类" in page
    assert "<td>neg</td>" in page
    assert "What the network is shown" in page


def test_tags(tmp_path):
    found = carried_out("tag", tmp_path, entities, steps=120)
    judged = found.results["evaluate"]
    assert judged["figures"]["span_f1"]["value"] > 0.95
    assert set(judged["classes"]) == {"person", "place"}
    [told] = predicted(found, [{"text": "王小明 lives in Paris 。"}], tmp_path)
    assert told["entities"] == [
        {"start": 0, "end": 3, "type": "person", "text": "王小明"},
        {"start": 13, "end": 18, "type": "place", "text": "Paris"},
    ]
    model = transformers.AutoModelForTokenClassification.from_pretrained(found.path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.path / "model")
    held = tokenizer("王小明 lives in Paris 。", return_tensors="pt", return_token_type_ids=False)
    tags = [model.config.id2label[n] for n in model(**held).logits[0].argmax(-1).tolist()]
    assert tags[1] == "B-person"
    assert tags.count("B-place") == 1


def test_words_with_tags_are_read_too(tmp_path):
    def rows(count, seed):
        return [
            {
                "tokens": ["Anna", "lives", "in", "New", "York"],
                "tags": ["B-p", "O", "O", "B-l", "I-l"],
            },
            {"tokens": ["小", "明", "在", "北", "京"], "tags": ["B-p", "I-p", "O", "B-l", "I-l"]},
        ] * (count // 2)

    found = carried_out("tag", tmp_path, rows, steps=4)
    lines = (found.path / "examples" / "train.jsonl").read_text("utf-8").splitlines()
    first, second = (json.loads(line) for line in lines[:2])
    assert first["text"] == "Anna lives in New York"
    assert first["entities"] == [[0, 4, "p"], [14, 22, "l"]]
    assert (second["text"], second["entities"]) == ("小明在北京", [[0, 2, "p"], [3, 5, "l"]])


def test_numbers(tmp_path):
    found = carried_out("regress", tmp_path, numbers, steps=160)
    figures = found.results["evaluate"]["figures"]
    assert figures["pearson"]["value"] > 0.95
    assert figures["mse"]["value"] < 2000
    [told] = predicted(found, [{"text": "plain very very word"}], tmp_path)
    assert told["value"] == pytest.approx(1200, abs=60)


def test_several_classes(tmp_path):
    found = carried_out("classify", tmp_path, several, several=True, steps=160)
    figures = found.results["evaluate"]["figures"]
    assert figures["exact"]["value"] > 0.9
    [told] = predicted(found, [{"text": "colours: red 绿"}], tmp_path)
    assert set(told["labels"]) == {"red", "绿"}


def test_translation_and_what_transformers_writes(translated, tmp_path):
    figures = translated.results["evaluate"]["figures"]
    assert figures["bleu"]["value"] > 60
    told = predicted(translated, [{"source": "two one"}, {"source": "红"}], tmp_path)
    assert [one["text"] for one in told] == ["zwei eins", "rot"]
    folder = translated.path / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "two one"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ours = Tokenizer.load(folder)
    assert asked["input_ids"][0].tolist() == [
        *(ours.begin, *ours.encode("two one")),
        ours.inner.token_to_id("<|im_start|>"),
    ]
    made = model.generate(**asked, max_new_tokens=20, do_sample=False)
    said = tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == "zwei eins"


@pytest.mark.parametrize("objective", ["dpo", "ipo", "simpo", "orpo"])
def test_preferences_are_learnt(translated, tmp_path, objective):
    found = carried_out(
        "prefer",
        tmp_path,
        preferred,
        base=str(translated.path),
        preference=objective,
        context=32,
        template="plain",
        steps=16,
        train={"learning_rate": 0.002},
    )
    log = [
        json.loads(line) for line in (found.path / "train" / "log.jsonl").read_text().splitlines()
    ]
    checks = [row for row in log if "validation_accuracy" in row]
    assert checks[-1]["validation_accuracy"] == 1.0
    assert checks[-1]["validation_margin"] > 0
    if objective in ("dpo", "ipo"):
        # Nothing has been learnt yet: both answers are as they were.
        first = next(row for row in log if "loss" in row)["loss"]
        assert first == pytest.approx({"dpo": 0.693147, "ipo": 25.0}[objective], rel=1e-3)


def test_text_goes_on_from_a_base(translated, tmp_path):
    def rows(count, seed):
        return [{"text": f"one two three {n % 7} 红"} for n in range(count)]

    found = carried_out("lm", tmp_path, rows, base=str(translated.path), steps=20)
    assert found.results["evaluate"]["figures"]["bits_per_byte"]["value"] < 3.5
    config = read_json(found.path / "model" / "config.json")
    assert config["architectures"] == ["Qwen3ForCausalLM"]


def test_preferences_from_scratch(tmp_path):
    found = carried_out("prefer", tmp_path, preferred, template="plain", steps=8)
    assert found.results["train"]["validation_accuracy"] >= 0.5
    assert found.results["evaluate"]["figures"]["rouge1"]["n"] == 30


def test_conversations_are_learnt_in_the_forms_data_sets_have(tmp_path):
    def rows(count, seed):
        forms = [
            {
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "a"},
                ]
            },
            {"conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "甲"}]},
            {"instruction": "say", "input": "b", "output": "b"},
            {"prompt": "c", "completion": "🙂"},
        ]
        return (forms * count)[:count]

    found = carried_out("instruct", tmp_path, rows, steps=60)
    told = predicted(found, [{"prompt": "c"}, {"instruction": "say", "input": "b"}], tmp_path)
    assert [one["text"] for one in told] == ["🙂", "b"]


def test_of_entities_within_others_the_outer_one_is_learnt_and_all_are_judged(tmp_path):
    def rows(count, seed):
        inner = {"start": 4, "end": 6, "type": "place"}
        outer = {"start": 0, "end": 11, "type": "book"}
        return [{"text": "The 北京 book", "entities": [inner, outer]}] * count

    found = carried_out("tag", tmp_path, rows, steps=40)
    assert found.results["train"]["unfit_entities"] == 120
    judged = found.results["evaluate"]["classes"]
    assert (judged["book"]["recall"], judged["place"]["recall"]) == (1.0, 0.0)
