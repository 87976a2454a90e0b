"""What a classifier begins with, patterns, layers that stay or learn more slowly, texts aligned."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.covariance import OAS, oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.tune.conftest import carried_out, config_of, pairs, recipe, reviews, write
from tianti.api import predict, run
from tianti.errors import UserError
from tianti.exchange.huggingface import load_transformer, save_transformer
from tianti.files import read_json
from tianti.model.transformer import Transformer
from tianti.objective.contrast import class_contrast
from tianti.progress import SILENT
from tianti.tokens.examples import ExampleStream
from tianti.tokens.tokenizer import Tokenizer
from tianti.train.optimizer import Optimizers
from tianti.train.rows import rows_of
from tianti.tune.classifier import discriminants, of_examples, of_words, shrunk, states_of
from tianti.tune.config import TuneConfig
from tianti.tune.encode import Encoder
from tianti.tune.examples import load_examples, read_examples
from tianti.tune.form import Form
from tianti.tune.network import build_network
from tianti.tune.objectives import objective_of
from tianti.tune.stage import _families, _shares

transformers = pytest.importorskip("transformers")
PATTERN = "{text} It was"
WORDS = {"pos": " good", "neg": " bad"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A network that goes on from a pattern with good or bad."""
    folder = tmp_path_factory.mktemp("base")
    named = {"pos": "good", "neg": "bad"}
    texts = lambda count, seed: [  # noqa: E731
        {"text": f"{row['text']} It was {named[row['label']]}."} for row in reviews(count, seed)
    ]
    return carried_out("lm", folder, texts, steps=200, train={"learning_rate": 0.02})


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"words": WORDS, "method": "none"}, 0.9),
        ({"start": "examples", "method": "none", "examples_per_class": 8}, 0.9),
        ({"words": WORDS, "examples_per_class": 4, "contrast": 0.5, "method": "lora"}, 0.9),
    ],
    ids=["words", "examples", "contrast"],
)
def test_few_examples_or_none_tell_classes(base, tmp_path, changes, least):
    found = carried_out(
        "classify",
        tmp_path,
        reviews,
        base=str(base.path),
        pattern=PATTERN,
        steps=30,
        **changes,
    )
    assert found.results["evaluate"]["figures"]["accuracy"]["value"] >= least
    if changes["method"] == "none":
        # Nothing has moved, and nothing but the classifier is new.
        before = load_file(base.path / "model" / "model.safetensors")
        after = load_file(found.path / "model" / "model.safetensors")
        assert set(after) - set(before) == {"score.weight"}
        assert all(torch.equal(after[name], before[name]) for name in set(after) & set(before))
    told = read_json(found.path / "model" / "task.json")
    assert told["pattern"] == PATTERN
    # What is predicted from a file goes by the pattern too.
    source = write(tmp_path / "more.jsonl", [{"text": "film great book"}, {"text": "书 很差 film"}])
    labels = [row["label"] for row in predict(found.path, source)]
    assert labels == ["pos", "neg"]


def test_words_score_as_the_output_layer_does(base):
    folder = base.path / "model"
    model, tokenizer = load_transformer(folder).eval(), Tokenizer.load(folder)
    found = of_words(model.output_weight, tokenizer, WORDS | {"neg": " bad film"}, ["neg", "pos"])
    hidden = torch.randn(3, model.config.width)
    scores = model.logits(hidden)
    one = scores[:, tokenizer.encode(" good")].mean(dim=1)
    several = scores[:, tokenizer.encode(" bad film")].mean(dim=1)
    torch.testing.assert_close(hidden @ found.T, torch.stack([several, one], dim=1))
    with pytest.raises(UserError, match="neg"):
        of_words(model.output_weight, tokenizer, {"pos": " good", "neg": ""}, ["neg", "pos"])
    with pytest.raises(UserError, match="one word"):
        of_words(model.output_weight, tokenizer, {"pos": " x", "neg": " x"}, ["neg", "pos"])


@pytest.mark.parametrize("tied", [True, False])
def test_the_classifier_begins_with_the_output_layer_of_the_base(base, tmp_path, tied):
    folder = tmp_path / "base"
    shutil.copytree(base.path / "model", folder)
    model, tokenizer = load_transformer(folder), Tokenizer.load(folder)
    if not tied:
        untied = Transformer(replace(model.config, tied_embeddings=False))
        untied.load_state_dict(model.state_dict(), strict=False)
        torch.nn.init.normal_(untied.head.weight)
        model = untied
        end = tokenizer.end_of_text
        save_transformer(model, folder, eos_token_id=end, pad_token_id=end)
    found = carried_out(
        *("classify", tmp_path, reviews),
        base=str(folder),
        pattern=PATTERN,
        words=WORDS,
        method="none",
    )
    ids = [tokenizer.encode(WORDS[label])[0] for label in ("neg", "pos")]
    assert all(len(tokenizer.encode(word)) == 1 for word in WORDS.values())
    score = load_file(found.path / "model" / "model.safetensors")["score.weight"]
    torch.testing.assert_close(score, model.output_weight[ids].detach())


def test_words_may_be_further_tokens(base, tmp_path):
    def praised(count, seed):
        return [row | {"text": f"{row['text']} 天气 天气"} for row in reviews(count, seed)]

    found = carried_out(
        *("classify", tmp_path, praised),
        base=str(base.path),
        pattern=PATTERN,
        words={"pos": " 天气", "neg": " bad"},
        more_tokens=8,
        steps=2,
    )
    assert len(Tokenizer.load(found.path / "model").encode(" 天气")) < 4


@pytest.mark.parametrize(
    ("words", "said"),
    [({"pos": " good"}, "'neg' is called by no word"), (WORDS | {"x": " y"}, "'x' is none of")],
)
def test_words_are_those_of_the_classes(base, tmp_path, words, said):
    made = recipe(
        *("classify", tmp_path, reviews), base=str(base.path), pattern=PATTERN, words=words
    )
    with pytest.raises(UserError, match=said) as error:
        run(made, tmp_path / "run", display=SILENT)
    assert error.value.where == "tune.words"
    assert not (tmp_path / "run" / "train").exists()


def test_words_of_a_base_that_tells_classes_are_refused(classified, tmp_path):
    with pytest.raises(UserError, match="no output layer"):
        carried_out(
            *("classify", tmp_path, reviews),
            base=str(classified.path),
            pattern=PATTERN,
            words=WORDS,
        )


@pytest.mark.parametrize("count", [6, 40, 400])
def test_examples_give_linear_discriminants(count):
    draw = np.random.default_rng(count)
    labels = np.arange(count) % 3
    states = draw.normal(size=(count, 12)) * np.linspace(0.2, 2, 12) + 5
    states[np.arange(count), labels] += 3
    within = states - np.stack([states[labels == c].mean(axis=0) for c in range(3)])[labels]
    spread = oas(within, assume_centered=True)[0]
    torch.testing.assert_close(
        shrunk(torch.tensor(within)), torch.tensor(spread), atol=1e-6, rtol=0
    )

    class Same(OAS):
        """The spread about each class's own mean, of all classes together."""

        def fit(self, X, y=None):
            self.covariance_ = spread
            return self

    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Same(), priors=[1 / 3] * 3
    ).fit(states, labels)
    tensors = torch.tensor(states), torch.tensor(labels)
    directions, offsets, middle = discriminants(*tensors, 3)
    scores = (tensors[0] @ directions.T + offsets).numpy()
    wanted = theirs.decision_function(states)
    np.testing.assert_allclose(scores - scores[:, :1], wanted - wanted[:, :1], rtol=1e-3, atol=1e-3)
    # Without a bias they are the same where a state lies as far along the middle as that does.
    at = tensors[0] + (1 - tensors[0] @ middle / middle.square().sum())[:, None] * middle
    torch.testing.assert_close(
        at.float() @ of_examples(*tensors, 3).T,
        (at @ directions.T + offsets).float(),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_class_without_examples_scores_as_their_middle_does():
    states = torch.tensor([[1.0, 0, 0], [3.0, 0, 0.1], [0, 1.0, 0], [0, 3.0, 0.1]])
    found = of_examples(states, torch.tensor([0, 0, 2, 2]), 3)
    assert found.isfinite().all()
    scores = states @ found.T
    assert scores.argmax(dim=1).tolist() == [0, 0, 2, 2]
    # What lies in the middle of the others is most like the one that nothing is known of.
    middle = torch.tensor([1.0, 1.0, 0.05])
    torch.testing.assert_close(discriminants(states, torch.tensor([0, 0, 2, 2]), 3)[2], middle)
    assert (middle @ found.T).argmax() == 1


def test_a_pattern_stays_whole_where_its_text_is_cut(base):
    tokenizer = Tokenizer.load(base.path / "model")
    encoder = Encoder(Form("classify", 16, ("a", "b"), pattern=PATTERN), tokenizer)
    end = tokenizer.encode(" It was")
    long = encoder.told({"text": "good film " * 50})
    assert len(long) <= 16
    assert long[-len(end) :] == end
    assert encoder.cut == 1
    assert encoder.told({"text": "good film"})[-len(end) :] == end
    # Of two texts the longer one is cut, both if need be.
    both = Encoder(Form("classify", 16, ("a", "b"), pattern="{text} ? {pair} It was"), tokenizer)
    for text, pair in (("good", "film " * 50), ("film " * 50, "good"), ("film " * 50, "a " * 50)):
        ids = both.told({"text": text, "pair": pair})
        assert len(ids) <= 16
        assert ids[-len(end) :] == end
        assert tokenizer.encode("good")[0] in ids or "film" in text
    assert both.cut == 3
    for example in ({"text": "x"}, {"text": "x", "pair": "y"}):
        with pytest.raises(UserError, match="second text"):
            (both if "pair" not in example else encoder).told(example)
    with pytest.raises(UserError, match="pattern alone"):
        Encoder(Form("classify", 8, ("a", "b"), pattern="{text} " + "very " * 30), tokenizer).told(
            {"text": "good"}
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "no text"}, "once"),
        ({"pattern": "{text} {text}"}, "once"),
        ({"pattern": "{text} {other}"}, "cannot be filled"),
        ({"pattern": "{text"}, "cannot be filled"),
        ({"words": {"a": "x"}}, "needs a pattern"),
        ({"method": "none"}, "needs start"),
        ({"start": "words"}, "needs tune.words"),
        ({"method": "lora", "layer_decay": 0.9}, "for method: full"),
        ({"method": "head", "frozen_layers": 1}, "for method: full"),
        ({"task": "tag", "pattern": "{text}"}, "is for"),
        ({"method": "lora", "more_tokens": 5}, "needs method: full"),
        ({"frozen_layers": 1, "more_tokens": 5}, "without frozen_layers"),
        ({"task": "prefer", "preference": "kto", "steer": "accuracy"}, "is steered by loss"),
        ({"augment": [{"kind": "swap", "late": True}]}, "late is for"),
        ({"task": "tag", "augment": [{"kind": "swap"}]}, "is for"),
        ({"task": "align", "contrast": 1.0}, "is for"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        TuneConfig(**({"task": "classify", "train": "x"} | changes))


def test_contrast_counts_in_training_alone(tmp_path):
    made = recipe("classify", tmp_path, reviews, contrast=0.5)
    call, folders = config_of(made, tmp_path)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    held = Encoder(call.form, tokenizer).examples(
        load_examples(folders["examples"] / "train.jsonl")[:12]
    )
    stream = ExampleStream(held, context=call.form.row, rows=4, seed=0, pad=tokenizer.padding)
    numbers = list(range(stream.rows_per_epoch))
    model = build_network(call).model
    rows = rows_of(stream.rows_numbered(numbers), model.device)
    objective = objective_of(model, call.settings, call.tune, call.form, [6, 6])
    model.eval()
    plain = objective(rows).total
    model.train()
    states, labels = states_of(model, stream)
    added = 0.5 * class_contrast(states, labels)
    assert objective(rows).total.item() == pytest.approx((plain + added).item(), rel=1e-5)
    assert added > 1


def test_words_and_patterns_need_a_base(tmp_path):
    with pytest.raises(ValidationError, match="base"):
        recipe("classify", tmp_path, reviews, pattern=PATTERN, words=WORDS)
    with pytest.raises(ValidationError, match="base"):
        recipe("lm", tmp_path, reviews, more_tokens=5)


def test_lower_layers_learn_more_slowly_or_not_at_all(tmp_path):
    model = {"width": 32, "depth": 3, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    made = recipe("classify", tmp_path, reviews, model=model, layer_decay=0.5)
    call, _ = config_of(made, tmp_path)
    network = build_network(call).model
    optimizers = Optimizers(network, call.settings)
    optimizers.set_learning_rate(1.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    rates = {
        names[id(parameter)]: group["lr"]
        for optimizer in optimizers.all
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(rates) == len(names)
    wanted = {"embedding": 0.5**4, "layers.0": 0.5**3, "layers.2": 0.5, "classifier": 1.0}
    for start, rate in wanted.items():
        assert {r for name, r in rates.items() if name.startswith(start)} == {rate}
    frozen = carried_out("classify", tmp_path, reviews, model=model, frozen_layers=2, steps=8)
    drawn = dict(build_network(call).model.named_parameters())
    moved = {
        name
        for name, value in load_transformer(frozen.path / "model").state_dict().items()
        if name in drawn and not torch.equal(value, drawn[name])
    }
    assert any(name.startswith("layers.2") for name in moved)
    assert all(name.startswith(("layers.2", "final_norm", "classifier")) for name in moved)
    with pytest.raises(UserError, match="3 layers"):
        carried_out("classify", tmp_path, reviews, model=model, frozen_layers=3, steps=8)


def test_a_base_learns_further_tokens(base, tmp_path):
    def texts(count, seed):
        return [{"text": f"{row['text']} 今天天气很好 天气预报"} for row in reviews(count, seed)]

    older = tmp_path / "base"
    shutil.copytree(base.path / "model", older)
    (older / "merges.txt").write_text("#version: 0.2\n")
    found = carried_out("lm", tmp_path, texts, base=str(older), more_tokens=12, steps=20)
    # What lists merges in an older form would not know of the further ones.
    assert not (found.path / "model" / "merges.txt").exists()
    before, after = (Tokenizer.load(path / "model") for path in (base.path, found.path))
    assert after.vocab_size == before.vocab_size + 12
    assert len(after.encode("今天天气很好")) < len(before.encode("今天天气很好"))
    assert after.encode("film great") == before.encode("film great")
    model = load_transformer(found.path / "model")
    assert model.config.vocab_size == after.vocab_size
    theirs = transformers.AutoTokenizer.from_pretrained(found.path / "model")
    assert theirs.encode("天气预报", add_special_tokens=False) == after.encode("天气预报")
    assert found.results["evaluate"]["figures"]["bits_per_byte"]["value"] < 3
    # The network began with what the tokens are made of.
    (tmp_path / "again").mkdir()
    made = recipe("lm", tmp_path / "again", texts, base=str(base.path), more_tokens=12)
    call, folders = config_of(made, tmp_path / "again")
    grown = build_network(call, folders["tokenizer"]).model
    pieces = read_json(folders["tokenizer"] / "further.json")["pieces"]
    rows = load_transformer(base.path / "model").embedding.weight
    torch.testing.assert_close(grown.embedding.weight[-1], rows[pieces[-1]].mean(0))


def test_each_pass_draws_a_text_or_one_of_its_copies(tmp_path, monkeypatch):
    steps = [{"kind": "swap", "rate": 0.3, "share": 0.5}, {"kind": "delete", "share": 1.0}]
    made = recipe("classify", tmp_path, reviews, augment=steps, sampling="balanced")
    call, folders = config_of(made, tmp_path)
    rows = load_examples(folders["examples"] / "train.jsonl")
    told = read_json(tmp_path / "run" / "examples" / "manifest.json")
    figures = told.get("metrics", told)["train"]
    copies = [row for row in rows if "augmented" in row]
    assert figures["examples"] == 90 == len(rows) - len(copies)
    assert figures["copies"] == len(copies) > 30
    assert figures["labels"] == {"neg": 30, "pos": 60}
    assert {row["augmented"] for row in copies} == {"swap", "delete"}
    of_place = {row["place"]: row for row in rows if "augmented" not in row}
    for copy in copies:
        assert copy["text"] != of_place[copy["place"]]["text"]
        assert copy["label"] == of_place[copy["place"]]["label"]
    shares = _shares(call.tune, rows, ["neg", "pos"], [30, 60])
    families = _families(call.tune, rows)
    tokenizer = Tokenizer.load(folders["tokenizer"])
    held = Encoder(call.form, tokenizer).examples(rows)
    drawing = {"context": call.form.row, "rows": 4, "seed": 3, "pad": tokenizer.padding}
    plain = ExampleStream(held, families=families, **drawing)
    seen = set()
    for epoch in range(4):
        drawn = [n for row in plain._rows_of(epoch) for n in row]
        # Each example once: itself or one of its copies.
        assert sorted(families[drawn].tolist()) == list(range(90))
        seen |= set(drawn)
    assert len(seen) > 120
    weighted = ExampleStream(held, families=families, shares=shares, **drawing)
    drawn = [rows[n]["label"] for epoch in range(4) for r in weighted._rows_of(epoch) for n in r]
    assert 0.8 < drawn.count("neg") / drawn.count("pos") < 1.25
    assert 330 < len(drawn) < 390
    assert read_examples(made.tune.validation, made.tune)
    # Classes count as often as there are examples of them.
    given = []
    monkeypatch.setattr(
        "tianti.tune.stage.objective_of",
        lambda *those: given.append(those[-1]) or objective_of(*those),
    )
    done = carried_out("classify", tmp_path, reviews, augment=steps, steps=8)
    assert done.results["train"]["steps"] == 8
    assert given == [[30, 60]]


def test_texts_that_mean_the_same_are_found(tmp_path):
    found = carried_out("align", tmp_path, pairs, steps=150, train={"learning_rate": 0.02})
    figures = found.results["evaluate"]["figures"]
    assert set(figures) == {"source_to_target", "target_to_source"}
    assert all(figure["value"] > 0.6 for figure in figures.values())
    source = write(tmp_path / "more.jsonl", [{"source": "one two"}, {"source": "eins zwei"}])
    one, other = (np.array(row["embedding"]) for row in predict(found.path, source))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-4)
    assert one @ other > 0.5
    # Where a pattern is gone on from nothing ends it, though this base's texts have an end.
    tokenizer = Tokenizer.load(found.path / "model")
    patterned = Encoder(Form("classify", 64, ("a", "b"), pattern="{text} two"), tokenizer)
    assert patterned.told({"text": "one"}) == [tokenizer.begin, *tokenizer.encode("one two")]
    # transformers, given the text in the pattern, reads the same and finds the same.
    (tmp_path / "patterned").mkdir()
    told = carried_out(
        *("classify", tmp_path / "patterned", reviews),
        base=str(found.path),
        pattern=PATTERN,
        steps=4,
    )
    theirs = transformers.AutoTokenizer.from_pretrained(told.path / "model")
    theirs = theirs(PATTERN.format(text="film great"), return_tensors="pt")["input_ids"]
    ours = Encoder(Form("classify", 64, ("a", "b"), pattern=PATTERN), tokenizer)
    assert theirs[0].tolist() == ours.told({"text": "film great"})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(told.path / "model")
    with torch.no_grad():
        chances = model.eval()(theirs).logits[0].softmax(0).tolist()
    (one,) = predict(told.path, write(tmp_path / "one.jsonl", [{"text": "film great"}]))
    assert [one["scores"][name] for name in ("neg", "pos")] == pytest.approx(chances, abs=1e-5)
    # It is a base for classes, whose texts end as its own do.
    (tmp_path / "next").mkdir()
    both = carried_out("classify", tmp_path / "next", reviews, base=str(found.path), steps=4)
    assert "accuracy" in both.results["evaluate"]["figures"]
