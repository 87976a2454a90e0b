from __future__ import annotations

import json

from tests.conftest import random_model
from tianti.corpus.table import read_texts
from tianti.generate.config import GenerateConfig, GenerateStageConfig
from tianti.generate.stage import PROMPT_CHARS, default_prompts, generate_samples


def test_samples_begin_as_validation_documents_do(finished_run):
    samples = [
        json.loads(line)
        for line in (finished_run / "generate" / "samples.jsonl").read_text("utf-8").splitlines()
    ]
    texts = list(read_texts(finished_run / "corpus" / "validation"))
    assert len(samples) == 2
    for sample, text in zip(samples, texts, strict=False):
        assert text.startswith(sample["prompt"])
        assert 1 <= len(sample["prompt"]) <= PROMPT_CHARS


def test_prompts_end_at_a_word(finished_run):
    path = finished_run / "corpus" / "train"
    for prompt, text in zip(default_prompts(path, 30), read_texts(path), strict=False):
        following = text[len(prompt) : len(prompt) + 1]
        assert len(prompt) == min(PROMPT_CHARS, len(text)) or following in " \n"


def test_prompts_leave_room_in_a_small_context(finished_run, tmp_path):
    from tianti.api import load_model
    from tianti.exchange.huggingface import save_transformer
    from tianti.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(finished_run / "model")
    model = random_model(vocab_size=tokenizer.vocab_size, context=16)
    end = tokenizer.end_of_text
    save_transformer(model, tmp_path / "model", eos_token_id=end, pad_token_id=end)
    tokenizer.save(tmp_path / "model")
    config = GenerateConfig(samples=40, sampling={"max_tokens": 1})
    inputs = {"corpus": finished_run / "corpus", "model": tmp_path / "model"}
    generate_samples(GenerateStageConfig(config, "cpu"), inputs, tmp_path)
    texts = list(read_texts(finished_run / "corpus" / "validation"))
    encode = load_model(tmp_path).tokenizer.encode
    lines = (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()
    for line, text in zip(lines, texts, strict=False):
        prompt = json.loads(line)["prompt"]
        assert text.startswith(prompt)
        assert 1 <= len(encode(prompt)) <= 9


def test_given_prompts_are_used_and_each_draws_from_its_own_seed(finished_run, tmp_path):
    config = GenerateConfig(prompts=["春眠", "春眠"], sampling={"max_tokens": 20})
    inputs = {"corpus": finished_run / "corpus", "model": finished_run / "model"}
    assert generate_samples(GenerateStageConfig(config, "cpu"), inputs, tmp_path) == {"samples": 2}
    lines = (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()
    one, two = (json.loads(line) for line in lines)
    assert one["prompt"] == two["prompt"] == "春眠"
    assert one["text"] != two["text"]
