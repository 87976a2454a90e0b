"""What is asked by a chat template is what the template says, whatever stands beside it."""

from __future__ import annotations

import json

import pytest
import torch

from tests.judge.conftest import REQUESTS, network_of
from tianti.api import answering
from tianti.errors import UserError
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.conversing import Conversing
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import generate_ids
from tianti.tokens.chat import ChatEncoder
from tianti.tune.tokenizing import conversation_template


@pytest.fixture(scope="module")
def conversing(model_folder):
    found, _ = answering(model_folder, "cpu", chat=True)
    assert isinstance(found, Conversing)
    return found


@pytest.fixture(scope="module")
def prompt(model_folder, conversing):
    template = conversation_template(model_folder, conversing.tokenizer)
    encoder = ChatEncoder(conversing.tokenizer.inner, template)
    return lambda text: encoder.encode_prompt([{"role": "user", "content": text}])


@torch.no_grad()
def test_answers_are_scored_behind_the_prompt_that_the_template_writes(
    model_folder, conversing, prompt
):
    model = conversing._model
    plain = network_of(model_folder).likelihoods(REQUESTS)
    for request, one, without in zip(
        REQUESTS, conversing.likelihoods(REQUESTS), plain, strict=True
    ):
        if not request.context:
            assert one.nats == pytest.approx(without.nats, abs=1e-4)
            continue
        answer = conversing.tokenizer.encode(request.continuation.strip())
        assert one.tokens == len(answer)
        assert one.bytes == len(request.continuation.encode())
        if one.truncated:
            assert len(request.context) > 500
            continue
        ids, nats = prompt(request.context.strip()), 0.0
        for token in answer:
            nats -= model.logits(model(torch.tensor([ids]))[0, -1]).log_softmax(-1)[token].item()
            ids = [*ids, token]
        assert one.nats == pytest.approx(nats, abs=1e-4)


def test_what_it_answers_follows_the_prompt(conversing, prompt):
    [made] = conversing.generate(["The statement "], max_tokens=5, stop=[], temperature=0.0, seed=0)
    sampling = SamplingConfig(temperature=0.0, max_tokens=5)
    ids = list(generate_ids(conversing._model, prompt("The statement"), sampling, -1))
    assert conversing.tokenizer.decode(ids).startswith(made.text)
    [long] = conversing.generate(["word " * 500], max_tokens=5, stop=[], temperature=0.0, seed=0)
    assert long.truncated > 0


def test_its_answers_are_kept_apart_from_those_without(model_folder, conversing):
    assert conversing.identity != network_of(model_folder).identity


def test_what_cannot_be_asked(conversing, model_folder, tmp_path, call):
    with pytest.raises(UserError, match="cannot be scored"):
        conversing.likelihoods([Request("The", "word " * 500)])
    with pytest.raises(UserError, match="chat template alone"):
        conversing.likelihoods([Request("The", conversing.tokenizer.decode([65] * 124))])
    with pytest.raises(UserError, match="model of ours"):
        answering("http://127.0.0.1:1/v1", served="x", chat=True)
    code, _, said = call("eval", model_folder, "--text", "x", "--chat")
    assert code == 2
    assert "--chat" in said
    bare = tmp_path / "model"
    bare.mkdir()
    for path in model_folder.iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no chat template"):
        answering(bare, chat=True)


def test_an_answer_ends_where_the_tokenizer_says(conversing, prompt, monkeypatch):
    sampling = SamplingConfig(temperature=0.0, max_tokens=6)
    ids = list(generate_ids(conversing._model, prompt("The statement"), sampling, -1))
    monkeypatch.setattr(type(conversing.tokenizer), "ends", property(lambda _: (ids[-1],)))
    [made] = conversing.generate(["The statement"], max_tokens=6, stop=[], temperature=0.0, seed=0)
    assert made.text == conversing.tokenizer.decode(ids[: ids.index(ids[-1])])
