"""transformers is the outside truth: same logits, same text, same bits per byte."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tests.conftest import random_model
from tianti.errors import Damaged, UserError
from tianti.evaluate.bits_per_byte import score_documents
from tianti.exchange.huggingface import load_transformer, save_transformer
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import generate_ids

transformers = pytest.importorskip("transformers")


@pytest.fixture(params=[(True, 2), (False, 4), (True, 1)], ids=["tied-gqa", "untied", "mqa"])
def saved(request, tmp_path):
    tied, kv_heads = request.param
    model = random_model(tied_embeddings=tied, num_kv_heads=kv_heads, context=256)
    save_transformer(model, tmp_path, eos_token_id=96, pad_token_id=96)
    return model, tmp_path


def theirs(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_transformers_computes_the_same_logits(saved, batch):
    model, folder = saved
    ids = torch.randint(0, 97, (batch, 250))
    ours = model.logits(model(ids))
    assert (ours - theirs(folder)(ids).logits).abs().max() < 1e-4


@torch.no_grad()
def test_greedy_text_is_the_same_over_200_tokens(saved):
    model, folder = saved
    ids = [5, 17, 80]
    expected = theirs(folder).generate(
        torch.tensor([ids]), max_new_tokens=200, do_sample=False, eos_token_id=None, pad_token_id=96
    )
    sampling = SamplingConfig(temperature=0, max_tokens=200)
    ours = list(generate_ids(model, ids, sampling, end_of_text=-1))
    assert ours == expected[0, 3:].tolist()


@torch.no_grad()
def test_bits_per_byte_are_the_same_as_a_plain_loop_over_their_model(saved):
    model, folder = saved
    other = theirs(folder)
    rng = np.random.default_rng(0)
    documents = [(rng.integers(0, 96, size=n), 3 * int(n)) for n in (5, 100, 256, 600)]
    scores = score_documents(model, documents, begin=96, stride=128)
    for (tokens, num_bytes), score in zip(documents, scores, strict=True):
        sequence = [96, *tokens.tolist()]
        nats, done = 0.0, 0
        while done < len(tokens):
            stop = min(len(tokens), 256 if done == 0 else done + 128)
            start = max(0, stop - 256)
            logits = other(torch.tensor([sequence[start:stop]])).logits[0].log_softmax(-1)
            nats -= sum(logits[i - start, sequence[i + 1]].item() for i in range(done, stop))
            done = stop
        assert score.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, abs=5e-5)


def test_reading_back_gives_the_same_weights(saved):
    model, folder = saved
    again = load_transformer(folder)
    assert again.config == model.config
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@torch.no_grad()
def test_a_directory_written_by_transformers_is_read(tmp_path):
    config = transformers.Qwen3Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )
    torch.manual_seed(0)
    other = transformers.Qwen3ForCausalLM(config).eval()
    other.save_pretrained(tmp_path)
    model = load_transformer(tmp_path)
    assert model.config.rope_theta == 5e5
    ids = torch.randint(0, 97, (2, 60))
    assert (model.logits(model(ids)) - other(ids).logits).abs().max() < 1e-4


def break_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_config(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_weights, r"model\.safetensors: file is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "file is missing"),
        (change_config(hidden_size=64), "config.json says"),
        (change_config(num_hidden_layers=3), "do not fit config.json: missing"),
        (change_config(num_hidden_layers=1), "do not fit config.json"),
        (change_config(model_type="mamba"), "model family 'mamba' is not known"),
        (change_config(rope_scaling={"type": "dynamic"}), "rope_type = 'dynamic'"),
        (change_config(attention_bias=True), "do not fit config.json: missing"),
        (change_config(layer_scale=0.1), "layer_scale = 0.1 is not known here"),
        (change_config(num_key_value_heads=3), "must be a multiple"),
        (lambda folder: (folder / "config.json").unlink(), "not a model folder"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: file is damaged"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(tmp_path, damage, message):
    save_transformer(random_model(), tmp_path, eos_token_id=96, pad_token_id=96)
    damage(tmp_path)
    with pytest.raises((UserError, Damaged), match=message):
        load_transformer(tmp_path)


@torch.no_grad()
def test_the_model_of_a_run_is_read_by_the_auto_classes(finished_run):
    from tianti import load_model
    from tianti.corpus.table import read_texts

    ours = load_model(finished_run)
    model = theirs(finished_run / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished_run / "model")
    context, nats, num_bytes = ours.transformer.config.context, 0.0, 0
    texts = list(read_texts(finished_run / "corpus" / "test"))[:6]
    for text in texts:
        sequence = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
        done = 0
        while done < len(sequence) - 1:
            stop = min(len(sequence) - 1, context if done == 0 else done + context // 2)
            start = max(0, stop - context)
            logits = model(torch.tensor([sequence[start:stop]])).logits[0].log_softmax(-1)
            nats -= sum(logits[i - start, sequence[i + 1]].item() for i in range(done, stop))
            done = stop
        num_bytes += len(text.encode())
    expected = nats / math.log(2) / num_bytes
    assert ours.bits_per_byte(texts).value == pytest.approx(expected, abs=5e-5)
