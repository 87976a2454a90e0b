"""Unbalanced classes, few examples, stopping, other families."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal

import pytest
import torch
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from tests.tune.conftest import carried_out, config_of, pairs, recipe, reviews, write
from tianti import interruption
from tianti.api import predict, run
from tianti.files import read_json
from tianti.progress import SILENT
from tianti.recipe import Recipe
from tianti.runs.fingerprint import plain
from tianti.runs.stages import stage_config, stages_of
from tianti.tokens.chat import BUILT_IN
from tianti.tokens.examples import ExampleStream
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.rows import rows_of
from tianti.tune.config import TuneConfig
from tianti.tune.encode import Encoder
from tianti.tune.examples import load_examples
from tianti.tune.network import build_network
from tianti.tune.objectives import ClassObjective, objective_of
from tianti.tune.stage import _class_weights, _shares
from tianti.tune.stage import tune as tune_stage
from tianti.tune.tokenizing import template_for

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": "inverse"},
        {"class_weights": "effective", "adjusted": True},
        {"focus": 2.0, "sampling": "balanced"},
        {"sampling": "root"},
    ],
)
def test_a_step_is_the_same_however_it_is_split(tmp_path, changes):
    made = recipe("classify", tmp_path, reviews, **changes)
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    train = load_examples(folders["examples"] / "train.jsonl")
    weights = _class_weights(call.tune, [60, 30])
    held = Encoder(call.form, tokenizer).examples(train, weights)
    network = build_network(call).model
    torch.nn.init.normal_(network.classifier.weight)
    objective = objective_of(network, call.settings, call.tune, call.form, [60, 30])
    stream = ExampleStream(held, context=call.form.row, rows=4, seed=0, pad=tokenizer.padding)
    batch = stream.batch(0)

    def gradients(parts):
        network.zero_grad()
        total = 0.0
        for start, count in parts:
            found = objective(rows_of(batch, torch.device("cpu"), start, count))
            (found.total / batch.weight).backward()
            total += found.total.item()
        return total, [p.grad.clone() for p in network.parameters()]

    whole, one = gradients([(0, 4)])
    split, other = gradients([(0, 1), (1, 2), (3, 1)])
    # What is reported is a mean: of even scores it is that of chance, whatever classes come.
    torch.nn.init.zeros_(network.classifier.weight)
    found = objective(rows_of(batch, torch.device("cpu")))
    assert (found.nats / batch.weight).item() == pytest.approx(math.log(2), rel=1e-5)
    nats, labels, *_ = objective.tally(found, rows_of(batch, torch.device("cpu"))).tolist()
    assert nats / labels == pytest.approx(math.log(2), rel=1e-5)
    assert split == pytest.approx(whole, rel=1e-5)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.fixture(scope="module")
def gpt2(translated, tmp_path_factory):
    """A random GPT-2, whose positions are learnt, with a tokenizer of ours."""
    folder = tmp_path_factory.mktemp("gpt2")
    config = transformers.GPT2Config(
        vocab_size=400,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((translated.path / "model" / name).read_bytes())
    return folder


@pytest.mark.parametrize("base", [None, "gpt2"])
def test_packing_changes_nothing(tmp_path, base, request):
    folder = None if base is None else str(request.getfixturevalue(base))
    made = recipe("classify", tmp_path, reviews, base=folder)
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    held = Encoder(call.form, tokenizer).examples(
        load_examples(folders["examples"] / "validation.jsonl")
    )
    network = build_network(call).model.eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(network.classifier.weight)
    objective = objective_of(network, call.settings, call.tune, call.form, [20, 10])
    sums = []
    for context in (int(held.lengths.max()), 64):
        stream = ExampleStream(held, context=context, rows=2, seed=0, pad=tokenizer.padding)
        tally = 0
        for number in range(stream.rows_per_epoch):
            rows = rows_of(stream.rows_numbered([number]), torch.device("cpu"))
            tally = tally + objective.tally(objective(rows), rows)
        sums.append(tally)
    torch.testing.assert_close(sums[0], sums[1], atol=1e-4, rtol=1e-5)


def test_the_figures_that_steer_are_scikit_learns(tmp_path):
    sklearn = pytest.importorskip("sklearn.metrics")
    made = recipe("classify", tmp_path, reviews)
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    examples = load_examples(folders["examples"] / "validation.jsonl")
    held = Encoder(call.form, tokenizer).examples(examples)
    torch.manual_seed(0)
    network = build_network(call).model.eval()
    torch.nn.init.normal_(network.classifier.weight)
    objective = objective_of(network, call.settings, call.tune, call.form, [20, 10])
    stream = ExampleStream(held, context=64, rows=2, seed=0, pad=tokenizer.padding)
    tally, said, true = 0, [], []
    for number in range(stream.rows_per_epoch):
        rows = rows_of(stream.rows_numbered([number]), torch.device("cpu"))
        found = objective(rows)
        tally = tally + objective.tally(found, rows)
        said += found.scores_NC.argmax(1).tolist()
        true += rows.labels_BT.flatten()[found.places].tolist()
    figures = objective.figures(tally.numpy())
    assert figures["accuracy"] == pytest.approx(sklearn.accuracy_score(true, said))
    assert figures["macro_f1"] == pytest.approx(sklearn.f1_score(true, said, average="macro"))


def test_what_is_interrupted_goes_on_bitwise(tmp_path):
    made = recipe("classify", tmp_path, reviews, steps=24, train={"dropout": 0.1})
    call, folders = config_of(made, tmp_path)

    def train(out, stop_at=None):
        out.mkdir(exist_ok=True)
        if stop_at is None:
            return tune_stage(call, folders, out)
        from tianti.train.trainer import Trainer

        inner = Trainer.one_step

        def counted(self, *arguments):
            inner(self, *arguments)
            if self.state.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.MonkeyPatch.context() as patch, interruption.signals_handled():
            patch.setattr(Trainer, "one_step", counted)
            with pytest.raises(interruption.Interrupted):
                tune_stage(call, folders, out)
        return None

    straight = train(tmp_path / "straight")
    for stop in (5, 13):
        train(tmp_path / "stopped", stop)
    resumed = train(tmp_path / "stopped")
    assert resumed["validation_macro_f1"] == straight["validation_macro_f1"]
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("straight", "stopped")]
    assert logs[0] == logs[1]


def test_few_examples_of_each_class_are_drawn_by_the_seed(tmp_path):
    drawn = []
    for seed in (0, 0, 1):
        made = recipe("classify", tmp_path, reviews, examples_per_class=4)
        made = made.model_copy(update={"seed": seed})
        found = run(made, tmp_path / f"run{len(drawn)}", display=SILENT, until="examples")
        assert found.results["examples"]["train"]["labels"] == {"neg": 4, "pos": 4}
        drawn.append((found.path / "examples" / "train.jsonl").read_text())
    assert drawn[0] == drawn[1] != drawn[2]


def test_shares_of_one_file_are_split_by_class(tmp_path):
    made = recipe("classify", tmp_path, reviews, validation=0.2, test=0.1)
    rows = [
        {"text": f"{row['text']} {n}", "label": row["label"]} for n, row in enumerate(reviews(90))
    ]
    write(tmp_path / "train.jsonl", rows)
    found = run(made, tmp_path / "run", display=SILENT, until="test")
    counts = {n: found.results["examples"][n]["labels"] for n in ("train", "validation")}
    counts["test"] = found.results["test"]["labels"]
    assert counts["test"] == {"neg": 3, "pos": 6}
    assert sum(sum(labels.values()) for labels in counts.values()) == 90
    texts = [
        {json.loads(line)["text"] for line in (found.path / "examples" / f"{n}.jsonl").open()}
        for n in counts
    ]
    assert sum(map(len, texts)) == len(set.union(*texts))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A random Llama of transformers with a tokenizer as SentencePiece makes them."""
    folder = tmp_path_factory.mktemp("llama")
    inner = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    words = [text for row in pairs(200) for text in row.values()]
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    inner.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST]"
        " {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_another_family_with_its_tokenizer_and_template(llama, tmp_path):
    found = carried_out(
        "translate",
        tmp_path,
        pairs,
        base=str(llama),
        steps=300,
        train={"learning_rate": 0.01},
        test_examples=8,
    )
    model = found.path / "model"
    assert (model / "tokenizer.json").read_bytes() == (llama / "tokenizer.json").read_bytes()
    assert read_json(model / "config.json")["architectures"] == ["LlamaForCausalLM"]
    source = write(tmp_path / "asked.jsonl", [{"source": "two one"}, {"source": "红 three"}])
    told, greedy = (
        [one["text"] for one in predict(found.path, source, beams=n, device="cpu", display=SILENT)]
        for n in (None, 1)
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for text, said in zip(["two one", "红 three"], told, strict=True):
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], return_tensors="pt", return_dict=True
        )
        # No second begin of text before the template's.
        assert asked["input_ids"][0].tolist().count(1) == 1
        made = theirs.generate(**asked, max_new_tokens=30, do_sample=False, num_beams=4)
        answer = made[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == said
        # One beginning alone is what there is without a search.
        plain = theirs.generate(**asked, max_new_tokens=30, do_sample=False)
        answer = plain[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == greedy.pop(0)
    assert found.results["evaluate"]["figures"]["bleu"]["value"] > 40


def test_a_classifier_of_another_family_is_as_transformers_has_it(llama, tmp_path):
    found = carried_out("classify", tmp_path, reviews, base=str(llama), steps=60)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(found.path / "model")
    assert type(model).__name__ == "LlamaForSequenceClassification"
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.path / "model")
    texts = ["film good meal", "书 糟糕"]
    source = write(tmp_path / "asked.jsonl", [{"text": text} for text in texts])
    told = predict(found.path, source, device="cpu", display=SILENT)
    for text, one in zip(texts, told, strict=True):
        with torch.no_grad():
            chances = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        for number, chance in enumerate(chances.tolist()):
            assert one["scores"][model.config.id2label[number]] == pytest.approx(chance, abs=1e-4)


def test_two_passes_with_other_dropout_are_drawn_together(tmp_path):
    made = recipe("classify", tmp_path, reviews, r_drop=1.0, train={"dropout": 0.3})
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    train = load_examples(folders["examples"] / "train.jsonl")
    held = Encoder(call.form, tokenizer).examples(train)
    network = build_network(call).model
    torch.manual_seed(0)
    for name, weight in network.named_parameters():
        if "out.weight" in name or "down.weight" in name or "classifier" in name:
            torch.nn.init.normal_(weight)
    stream = ExampleStream(held, context=call.form.row, rows=4, seed=0, pad=tokenizer.padding)
    rows = rows_of(stream.batch(0), torch.device("cpu"))

    def total(weight):
        tune = call.tune.model_copy(update={"r_drop": weight})
        torch.manual_seed(7)
        return objective_of(network, call.settings, tune, call.form, [60, 30])(rows).total.item()

    one, two = total(1.0), total(2.0)
    assert two > one > 0
    network.eval()
    assert total(1.0) == total(0.0)


def test_a_long_prompt_is_cut_and_the_answer_of_a_pair_is_kept(translated, tmp_path):
    def long(count, seed):
        return [{"prompt": "word " * 200, "chosen": "yes", "rejected": "no no"}] * count

    made = recipe(
        "prefer", tmp_path, long, base=str(translated.path), template="plain", context=32, steps=2
    )
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    encoder = Encoder(call.form, tokenizer, template_for("prefer", folders["tokenizer"], tokenizer))
    held = encoder.examples(load_examples(folders["examples"] / "train.jsonl")[:1])
    ends = [0, *held.text_ends.tolist()]
    said = [
        tokenizer.decode([i for i in held.labels[a:b].tolist() if i >= 0])
        for a, b in itertools.pairwise(ends)
    ]
    assert said == ["yes<|im_end|>", "no no<|im_end|>"]


def test_learned_positions_begin_anew_with_each_text():
    from tianti.model.transformer import places_within

    segments = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]])
    assert places_within(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]


def test_a_base_with_other_classes_gives_its_body_alone(classified, tmp_path):
    def other(count, seed):
        return [{"text": row["text"], "label": f"x{row['label']}"} for row in reviews(count, seed)]

    for rows, kept in ((other, False), (reviews, True)):
        folder = tmp_path / str(kept)
        folder.mkdir()
        call, _ = config_of(recipe("classify", folder, rows, base=str(classified.path)), folder)
        classifier = build_network(call).model.classifier.weight
        assert bool(classifier.abs().sum() > 0) is kept


def test_a_validation_measures_every_example_once(tmp_path, monkeypatch):
    made = recipe("classify", tmp_path, reviews, steps=4)
    call, folders = config_of(made, tmp_path)
    counted = []
    inner = ClassObjective.figures
    monkeypatch.setattr(
        ClassObjective, "figures", lambda self, sums: counted.append(sums[1]) or inner(self, sums)
    )
    (tmp_path / "out").mkdir()
    tune_stage(call, folders, tmp_path / "out")
    assert set(counted) == {30}


def test_the_template_of_a_tuned_base_is_used_again(translated, tmp_path):
    said = {"prompt": "two", "completion": "zwei"}
    made = recipe("instruct", tmp_path, lambda c, s: [said] * c, base=str(translated.path))
    run(made, tmp_path / "run", display=SILENT, until="tokenizer")
    names = tmp_path / "run" / "tokenizer", translated.path / "model"
    one, other = ((folder / "chat_template.jinja").read_text() for folder in names)
    assert one == other
    assert one == (BUILT_IN / "plain.jinja").read_text()


def test_of_a_preferred_answer_nothing_said_before_is_learnt(translated, tmp_path):
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "eins"},
        {"role": "user", "content": "two"},
    ]
    rows = [{"prompt": turns, "chosen": "zwei", "rejected": "drei"}]
    made = recipe(
        "prefer", tmp_path, lambda c, s: rows * c, base=str(translated.path), context=32, steps=2
    )
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    template = template_for("prefer", folders["tokenizer"], tokenizer)
    held = Encoder(call.form, tokenizer, template).examples(
        load_examples(folders["examples"] / "train.jsonl")[:1]
    )
    said = tokenizer.decode([label for label in held.labels.tolist() if label >= 0])
    assert said == "zwei<|im_end|>drei<|im_end|>"


@pytest.mark.parametrize(("sampling", "ratio"), [("balanced", 1.0), ("root", 2**0.5)])
def test_rare_classes_are_drawn_more_often(sampling, ratio):
    tune = TuneConfig(task="classify", train="x", sampling=sampling)
    examples = reviews(90)
    shares = _shares(tune, examples, ["neg", "pos"], [30, 60])
    of_class = {
        label: sum(
            share for share, row in zip(shares, examples, strict=True) if row["label"] == label
        )
        for label in ("neg", "pos")
    }
    assert sum(of_class.values()) == pytest.approx(90)
    assert of_class["pos"] / of_class["neg"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"noise": 0.1}, ["train"]),
        ({"steer": "loss"}, ["train"]),
        ({"class_weights": "inverse"}, ["train"]),
        ({"r_drop": 1.0}, ["train"]),
        ({"sampling": "root"}, ["train"]),
        ({"pattern": "{text} It was"}, ["tokenizer", "train"]),
        ({"thresholds": "validation"}, ["model"]),
        ({"augment": [{"kind": "swap"}]}, ["examples"]),
        ({"context": 48}, ["train"]),
        ({"attention": "causal"}, ["train"]),
        ({"examples_per_class": 9}, ["examples"]),
        ({"columns": {"text": "text"}}, ["examples", "model", "test"]),
        ({"max_tokens": 7}, ["evaluate", "model"]),
        ({"test_examples": 7}, ["evaluate"]),
        # What changes nothing.
        ({"beams": 3}, []),
        ({"lora": {"rank": 3}}, []),
        ({"attention": "both"}, []),
    ],
)
def test_a_setting_redoes_the_stages_that_go_by_it(classified, tmp_path, change, redone):
    made = Recipe.load(classified.path / "recipe.yaml")
    values = made.tune.model_dump(exclude_unset=True) | change
    other = made.model_copy(update={"tune": TuneConfig(**values)})
    metrics = {n: classified.results[n] for n in ("examples", "test", "tokenizer", "train")}

    def identities(one):
        return {
            stage.name: plain(stage_config(stage, one, tmp_path, metrics).identity)
            for stage in stages_of(one)
        }

    before, after = identities(made), identities(other)
    assert sorted(name for name in before if before[name] != after[name]) == sorted(
        {*redone, *(["model"] if "train" in redone else [])}
    )
