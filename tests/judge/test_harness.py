"""lm-evaluation-harness and we agree: over its own class of models, and over ours in its tasks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.judge.conftest import network_of, save_model, write_rows
from tianti.errors import UserError
from tianti.evaluate.tasks.load import load_task
from tianti.judge.evaluation import prepare
from tianti.judge.harness import adapter, run_harness

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("TIANTI_DATA", Path(__file__).parents[3] / "shared" / "data"))
TASKS = {
    "blimp": {"where": {"uid": "adjunct_island"}},
    "blimp-2": {"where": {"uid": "regular_plural_subject_verb_agreement_1"}},
    "piqa_valid": {},
    "xcopa_zh": {},
    "lambada": {},
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tokenizer):
    """A random model whose context holds every question: its class refuses longer answers."""
    return save_model(tmp_path_factory.mktemp("long") / "model", tokenizer, 0, context=512)


@pytest.fixture(scope="module")
def theirs(model_folder):
    """The same directory through lm-eval's own class over transformers."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model_folder), device="cpu", dtype="float32", batch_size=16)


@pytest.mark.skipif(not (DATA / "blimp").is_dir(), reason="the data is not here (TIANTI_DATA)")
@pytest.mark.parametrize("name", TASKS)
def test_its_class_gives_the_same_likelihoods_and_accuracies(theirs, model_folder, name):
    from lm_eval.api.instance import Instance

    changes = {"limit": 40} | TASKS[name]
    made = prepare(*load_task(name.removesuffix("-2"), changes), DATA)
    questions = [made.question(number) for number in range(len(made.rows))]
    asked = [
        (question.before(number), option)
        for question in questions
        for number, option in enumerate(question.options)
    ]
    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in asked
    ]
    expected = theirs.loglikelihood(instances, disable_tqdm=True)
    # Its class puts nothing before a context.
    items = made.kind.answer(network_of(model_folder, begin=False), questions)
    place = 0
    right = 0
    for question, item in zip(questions, items, strict=True):
        found = expected[place : place + len(question.options)]
        place += len(question.options)
        nats = item["nats"] if isinstance(item["nats"], list) else [item["nats"]]
        # Its class sums float32, which holds a thousand nats to no more than 1e-4.
        assert nats == pytest.approx([-log for log, _ in found], abs=1e-4, rel=3e-7)
        if "greedy" in item:
            assert item["greedy"] == found[0][1]
            right += found[0][1]
        else:
            scores = [log for log, _ in found]
            if made.task.normalise == "byte":
                scores = [s / b for s, b in zip(scores, item["bytes"], strict=True)]
            right += scores.index(max(scores)) == item["gold"]
    assert made.kind.figures(items)["accuracy"](np.ones(len(items))) == (
        pytest.approx(right / len(items))
    )


@pytest.fixture
def local_tasks(tmp_path):
    """Tasks in lm-eval's format over a local file."""
    rows = [
        {
            "good": f"The word {n} stands here.",
            "bad": f"Here word stands {n} the.",
            "zh": f"第{n}章",
        }
        for n in range(12)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    head = (
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\n"
    )
    tasks = {
        "local_pairs": "output_type: multiple_choice\ndoc_to_text: ''\ndoc_to_target: 0\n"
        "doc_to_choice: '{{[good, bad]}}'\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n",
        "local_texts": "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{good}}{{zh}}'\nmetric_list: [{metric: bits_per_byte}]\n",
        "local_free": "output_type: generate_until\ndoc_to_text: '{{good}}'\n"
        "doc_to_target: '{{bad}}'\ngeneration_kwargs: {until: ['.'], max_gen_toks: 5}\n"
        "metric_list: [{metric: exact_match}]\n",
    }
    for name, text in tasks.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{head}{text}")
    return tmp_path


def test_its_tasks_run_over_our_model(theirs, model_folder, local_tasks, monkeypatch, call):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HOME", str(local_tasks / "cache"))
    names = ["local_pairs", "local_texts"]
    ours = run_harness(network_of(model_folder), [*names, "local_free"], include=local_tasks)
    manager = TaskManager(include_path=str(local_tasks))
    expected = simple_evaluate(model=theirs, tasks=names, task_manager=manager)["results"]
    for name in names:
        for metric, value in expected[name].items():
            if isinstance(value, float):
                assert ours["results"][name][metric] == pytest.approx(value, rel=1e-3), metric
    assert ours["n"]["local_free"]["effective"] == 12
    command = ["eval", model_folder, "--harness", "local_pairs", "--include", local_tasks]
    code, out, err = call(*command, "--limit", 4)
    assert code == 0, err
    assert json.loads(out)["n"]["local_pairs"]["effective"] == 4
    with pytest.raises(UserError, match="has no task none"):
        run_harness(network_of(model_folder), ["none"], include=local_tasks)


def test_the_adapter_generates_as_the_network_does(model_folder):
    from lm_eval.api.instance import Instance

    network = network_of(model_folder)
    asked = Instance(
        request_type="generate_until",
        doc={},
        arguments=("The", {"until": ["\n"], "max_gen_toks": 4}),
        idx=0,
    )
    made = adapter(network).generate_until([asked, asked])
    settings = {"max_tokens": 4, "stop": ["\n"], "temperature": 0.0, "seed": 0}
    assert made == [network.generate(["The"], **settings)[0].text] * 2


def test_the_adapter_rolls_over_a_text_as_its_own_class_does(theirs, model_folder):
    from lm_eval.api.instance import Instance

    text = "春眠不觉晓，处处闻啼鸟。The statement is executed again " * 25
    asked = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    [ours] = adapter(network_of(model_folder)).loglikelihood_rolling([asked])
    [wanted] = theirs.loglikelihood_rolling([asked])
    assert ours == pytest.approx(wanted, abs=1e-2)
