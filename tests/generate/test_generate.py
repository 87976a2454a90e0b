from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_model
from tianti.errors import UserError
from tianti.generate.batch import generate_texts
from tianti.generate.config import SamplingConfig
from tianti.generate.engine import TextStream, generate_ids, generate_text
from tianti.generate.sampling import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_token,
    penalize_repetition,
)

processors = pytest.importorskip("transformers.generation.logits_process")
NO_IDS = torch.zeros(1, 1, dtype=torch.long)


@pytest.mark.parametrize("seed", range(5))
def test_filters_are_those_of_transformers(seed):
    logits = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * 3
    seen = torch.randint(0, 200, (20,), generator=torch.Generator().manual_seed(seed))
    pairs = [
        (keep_top_k(logits, 7), processors.TopKLogitsWarper(7)),
        (keep_top_p(logits, 0.8), processors.TopPLogitsWarper(0.8)),
        (keep_min_p(logits, 0.05), processors.MinPLogitsWarper(0.05)),
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs(NO_IDS, logits[None])[0])
    theirs = processors.RepetitionPenaltyLogitsProcessor(1.3)(seen[None], logits[None].clone())[0]
    assert torch.equal(penalize_repetition(logits, seen, 1.3), theirs)


def test_the_likeliest_token_always_stays():
    logits = torch.tensor([0.0, 5.0, 1.0])
    for kept in (keep_top_p(logits, 1e-6), keep_top_k(logits, 1), keep_min_p(logits, 1.0)):
        assert kept.isfinite().tolist() == [False, True, False]


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = torch.Generator().manual_seed(0)
    config = SamplingConfig(temperature=1.0, top_p=None)
    draws = [next_token(logits, NO_IDS[0], config, generator) for _ in range(3000)]
    shares = torch.bincount(torch.tensor(draws), minlength=3) / 3000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_the_same_seed_draws_the_same_tokens():
    model = random_model()

    def draw(seed):
        return list(generate_ids(model, [1, 2], SamplingConfig(seed=seed, max_tokens=30), -1))

    assert draw(1) == draw(1) != draw(2)


@torch.no_grad()
def test_greedy_decoding_takes_the_likeliest_each_time():
    model = random_model()
    ids = [3, 4, 5]
    for token in generate_ids(model, list(ids), SamplingConfig(temperature=0, max_tokens=20), -1):
        assert token == model.logits(model(torch.tensor([ids])))[0, -1].argmax().item()
        ids.append(token)
    assert len(ids) == 23


@pytest.fixture(scope="module")
def talker(tokenizer):
    """A network that knows nothing, with the vocabulary of the tokenizer."""
    return random_model(vocab_size=tokenizer.vocab_size)


def test_streamed_pieces_join_to_the_text(talker, tokenizer):
    sampling = SamplingConfig(max_tokens=40, temperature=1.5, top_p=None)
    for seed in range(5):
        stream = TextStream(talker, tokenizer, "你好", sampling.model_copy(update={"seed": seed}))
        pieces = list(stream)
        assert "".join(pieces) == stream.result.text == tokenizer.decode(stream.result.ids)


def test_generation_ends_at_a_stop_text_and_never_shows_it(talker, tokenizer):
    sampling = SamplingConfig(max_tokens=40, temperature=1.5, top_p=None, seed=1)
    free = generate_text(talker, tokenizer, "a", sampling).text
    for start in range(0, 24, 2):
        # Longer than a token, so that its beginning comes before it is known to be one.
        stop = free[start : start + 9]
        stops = {"stop": [stop, "zzzz"]}
        stream = TextStream(talker, tokenizer, "a", sampling.model_copy(update=stops))
        assert "".join(stream) == stream.result.text == free[: free.find(stop)]
        assert stream.result.reason == "stop"


def test_generation_ends_at_the_context_and_says_so(talker, tokenizer):
    made = generate_text(talker, tokenizer, "ab", SamplingConfig(max_tokens=500, seed=3))
    assert made.reason in ("context", "end_of_text")
    if made.reason == "context":
        assert len(made.ids) + len(tokenizer.encode("ab")) + 1 == talker.config.context + 1
    short = generate_text(talker, tokenizer, "ab", SamplingConfig(max_tokens=3, temperature=0))
    assert (short.reason, len(short.ids)) == ("max_tokens", 3)


def test_end_of_text_ends_generation(tokenizer):
    model = random_model(vocab_size=tokenizer.vocab_size)
    made = generate_text(model, tokenizer, "a", SamplingConfig(max_tokens=5, temperature=0))
    first = made.ids[0]
    again = list(
        generate_ids(
            model,
            [tokenizer.end_of_text, *tokenizer.encode("a")],
            SamplingConfig(max_tokens=5, temperature=0),
            first,
        )
    )
    assert again == []


def test_a_prompt_that_fills_the_context_is_refused(talker, tokenizer):
    with pytest.raises(UserError, match="context is 64"):
        generate_text(talker, tokenizer, "word " * 100, SamplingConfig())


@given(st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_tokens_that_hold_p(p):
    chances = torch.tensor([0.4, 0.3, 0.2, 0.1])
    kept = keep_top_p(chances.log(), p).isfinite()
    count = int(kept.sum())
    assert chances[:count].sum() >= min(p, 1.0) - 1e-5
    assert count == 1 or chances[: count - 1].sum() < p + 1e-5


@pytest.mark.parametrize("temperature", [0.0, 1.2])
@pytest.mark.parametrize("grouped", [1, 2])
def test_many_at_once_are_those_alone(tokenizer, temperature, grouped):
    talker = random_model(vocab_size=tokenizer.vocab_size, num_kv_heads=4 // grouped)
    sampling = SamplingConfig(temperature=temperature, max_tokens=70, seed=4, top_p=0.9)
    prompts = ["a", "", "春眠不觉晓，处处闻啼鸟。", "word " * 20, "a", "The statement is"]
    alone = [generate_text(talker, tokenizer, prompt, sampling) for prompt in prompts]
    sampling = sampling.model_copy(update={"stop": [alone[2].text[5:9], "zzz"]})
    alone = [generate_text(talker, tokenizer, prompt, sampling) for prompt in prompts]
    assert len({one.reason for one in alone}) > 1
    done = []
    assert generate_texts(talker, tokenizer, prompts, sampling, done.append) == alone
    assert sum(done) == len(prompts)
    with pytest.raises(UserError, match="context is 64"):
        generate_texts(talker, tokenizer, ["a", "word " * 100], sampling)
    assert generate_texts(talker, tokenizer, [], sampling) == []
