"""A model of another family answers as a plain loop over transformers does."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.judge.conftest import REQUESTS
from tianti.api import answering
from tianti.errors import UserError
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.foreign import Foreign

transformers = pytest.importorskip("transformers")


def save_gpt2(folder, tokenizer, **changes):
    torch.manual_seed(0)
    end = tokenizer.end_of_text
    config = transformers.GPT2Config(
        **{"vocab_size": tokenizer.vocab_size, "n_embd": 32, "n_layer": 2, "n_head": 2}
        | {"n_positions": 96, "bos_token_id": end, "eos_token_id": end}
        | changes
    )
    model = transformers.GPT2LMHeadModel(config)
    # Far from even, so that answers differ.
    for parameter in model.parameters():
        parameter.data.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save(folder, context=96)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    return save_gpt2(tmp_path_factory.mktemp("foreign") / "gpt2", tokenizer)


@pytest.fixture(scope="module")
def foreign(folder):
    return Foreign(folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def plain(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def test_a_directory_of_another_family_is_answered_through_transformers(folder):
    model, _ = answering(folder, "cpu")
    assert isinstance(model, Foreign)


@torch.no_grad()
def test_likelihoods_are_those_of_a_plain_loop(foreign, plain, tokenizer):
    for request, one in zip(REQUESTS, foreign.likelihoods(REQUESTS), strict=True):
        whole = tokenizer.encode(request.context + request.continuation)
        before = tokenizer.encode(request.context.rstrip(" "))
        shared = 0
        while shared < len(before) and before[shared] == whole[shared]:
            shared += 1
        ids = [tokenizer.end_of_text, *whole][-97:]
        asked = len(whole) - shared
        nats, greedy = 0.0, True
        for place in range(len(ids) - asked, len(ids)):
            logs = plain(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)
            nats -= logs[ids[place]].item()
            greedy &= int(logs.argmax()) == ids[place]
        assert one.nats == pytest.approx(nats, abs=1e-4)
        assert (one.tokens, one.greedy) == (asked, greedy)
        assert one.bytes == len(request.continuation.encode())
        assert bool(one.truncated) == (len(request.context) > 500)


@torch.no_grad()
def test_long_texts_score_every_token_once(foreign, plain, tokenizer):
    text = "春眠不觉晓, he said. " * 30
    ids = tokenizer.encode(text)
    [one] = foreign.texts([text])
    assert (one.tokens, one.bytes) == (len(ids), len(text.encode()))
    nats = 0.0
    whole = [tokenizer.end_of_text, *ids]
    for place, token in enumerate(ids):
        # The first window is whole, each further one moves on by half of the context.
        scored = 0 if place < 96 else 96 + (place - 96) // 48 * 48
        stop = min(len(ids), 96 if not scored else scored + 48)
        start = max(0, stop - 96)
        logits = plain(torch.tensor([whole[start : place + 1]])).logits[0, -1]
        nats -= logits.log_softmax(-1)[token].item()
    assert one.nats == pytest.approx(nats, rel=1e-5)


@torch.no_grad()
def test_it_goes_on_with_the_likeliest(foreign, plain, tokenizer):
    ids = [tokenizer.end_of_text, *tokenizer.encode("The statement")]
    new = []
    while len(new) < 6:
        new.append(int(plain(torch.tensor([ids + new])).logits[0, -1].argmax()))
    settings = {"max_tokens": 6, "temperature": 0.0, "seed": 0}
    [made] = foreign.generate(["The statement"], stop=[], **settings)
    assert made.text == tokenizer.decode(new)
    [cut] = foreign.generate(["The statement"], stop=[made.text[-1]], **settings)
    assert cut.text == made.text.split(made.text[-1], 1)[0]
    drawn = [
        foreign.generate(["a"], max_tokens=9, stop=[], temperature=1.0, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_its_own_settings_of_generation_do_not_count(folder, foreign, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    own = {"do_sample": True, "top_k": 1, "repetition_penalty": 5.0, "temperature": 0.01}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(own))
    other = Foreign(tmp_path / "m", torch.device("cpu"))
    assert other.identity != foreign.identity
    for temperature in (0.0, 1.0):
        settings = {"max_tokens": 12, "stop": [], "temperature": temperature, "seed": 3}
        assert other.generate(["a"], **settings) == foreign.generate(["a"], **settings)


@pytest.mark.parametrize("continuation", ["", "a long one " * 200])
def test_what_cannot_be_scored_is_named(foreign, continuation):
    with pytest.raises(UserError, match="cannot be scored"):
        foreign.likelihoods([Request("The", continuation)])


def test_tokens_the_model_does_not_know_are_named(tmp_path, tokenizer):
    small = save_gpt2(tmp_path / "small", tokenizer, vocab_size=260)
    foreign = Foreign(small, torch.device("cpu"))
    with pytest.raises(UserError, match="cannot write") as error:
        foreign.likelihoods([Request("", "The statement is executed")])
    assert "The statement" in str(error.value)


def test_a_tokenizer_without_a_character_names_the_text(folder, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    for unknown in (None, "<unk>"):
        place = tmp_path / f"words{unknown}"
        place.mkdir()
        special = {"unk_token": unknown} if unknown else {}
        vocabulary = {"</s>": 0, "the": 1, "end": 2} | ({unknown: 3} if unknown else {})
        words = tokenizers.models.WordLevel(
            vocabulary, **({"unk_token": unknown} if unknown else {})
        )
        made = tokenizers.Tokenizer(words)
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token="</s>", eos_token="</s>", **special
        )
        fast.save_pretrained(place)
        for name in ("config.json", "model.safetensors"):
            (place / name).write_bytes((folder / name).read_bytes())
        foreign = Foreign(place, torch.device("cpu"))
        assert foreign.likelihoods([Request("the", " end")])[0].tokens == 1
        with pytest.raises(UserError, match="cannot write"):
            foreign.likelihoods([Request("the", " 天气")])


def test_a_directory_that_is_none_is_named(tmp_path, folder):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(UserError, match="cannot read this model"):
        Foreign(broken, torch.device("cpu"))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".json":
            (pickled / file.name).write_bytes(file.read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot read this model"):
        Foreign(pickled, torch.device("cpu"))
