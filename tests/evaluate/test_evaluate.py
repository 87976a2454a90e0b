from __future__ import annotations

import lzma
import math
import shutil
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_model
from tianti.errors import UserError
from tianti.evaluate.baselines import ByteTrigrams, xz_bits_per_byte
from tianti.evaluate.bits_per_byte import (
    bits_per_byte,
    perplexity_per_token,
    score_documents,
    windows,
)
from tianti.evaluate.excerpt import SHORTEST_EXCERPT, excerpt, excerpt_bytes
from tianti.evaluate.statistics import Metric, _student, bootstrap_ratio, jackknife_interval


@given(st.integers(1, 300), st.integers(2, 64), st.data())
def test_windows_score_each_token_once_and_with_context(length, context, data):
    stride = data.draw(st.integers(1, context))
    tokens = np.arange(1000, 1000 + length)
    scored = []
    for window in windows(0, tokens, begin=7, context=context, stride=stride):
        assert 1 <= len(window.ids) <= context
        # An input is the label before it: windows are true stretches of the document.
        assert (window.ids[1:] == window.labels[:-1]).all()
        if scored:
            assert window.first_scored >= min(context - stride, len(scored))
        scored.extend(window.labels[window.first_scored :].tolist())
    assert scored == tokens.tolist()


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_batching_changes_no_score(rng, batch_tokens):
    model = random_model()
    documents = [(rng.integers(0, 96, size=n), int(n)) for n in (1, 5, 63, 64, 65, 200, 0)]
    whole = score_documents(model, documents, begin=96, batch_tokens=4096)
    parts = score_documents(model, documents, begin=96, batch_tokens=batch_tokens)
    assert [score.nats for score in parts] == pytest.approx([s.nats for s in whole], rel=1e-5)
    assert [score.tokens for score in whole] == [1, 5, 63, 64, 65, 200, 0]
    assert whole[-1].nats == 0


@torch.no_grad()
def test_a_short_document_has_the_plain_loss(rng):
    model = random_model()
    tokens = rng.integers(0, 96, size=30)
    score = score_documents(model, [(tokens, 77)], begin=96)[0]
    ids = torch.tensor([[96, *tokens[:-1].tolist()]])
    chances = model.logits(model(ids))[0].log_softmax(-1)
    nats = -sum(chances[i, token].item() for i, token in enumerate(tokens))
    assert score.nats == pytest.approx(nats, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / 77, rel=1e-5)


@torch.no_grad()
def test_more_context_is_used_where_there_is_more(rng):
    model = random_model(context=64)
    tokens = rng.integers(0, 96, size=300)
    seen = [len(w.ids) for w in windows(0, tokens, begin=96, context=64, stride=8)]
    assert min(seen[:-1]) == 64
    assert len(seen) == 1 + math.ceil((300 - 64) / 8)
    assert len(score_documents(model, [(tokens, 1)], begin=96, stride=8)) == 1
    with pytest.raises(UserError, match="a stride of 65 does not fit the context of 64"):
        score_documents(model, [(tokens, 1)], begin=96, stride=65)


def test_figures_over_documents_are_ratios_of_sums():
    model = random_model()
    rng = np.random.default_rng(3)
    documents = [(rng.integers(0, 96, size=n), 2 * n) for n in (10, 50, 90)]
    scores = score_documents(model, documents, begin=96)
    nats = sum(score.nats for score in scores)
    metric = bits_per_byte(scores)
    assert metric.value == pytest.approx(nats / math.log(2) / 300)
    assert metric.low <= metric.value <= metric.high
    assert metric.n == 3
    assert perplexity_per_token(scores).value == pytest.approx(math.exp(nats / 150))


def test_the_interval_agrees_with_scipy_like_theory():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, size=2000)
    metric = bootstrap_ratio(values, np.ones(2000))
    half = 1.96 * values.std(ddof=1) / 2000**0.5
    assert metric.high - metric.value == pytest.approx(half, rel=0.1)
    assert metric.value - metric.low == pytest.approx(half, rel=0.1)


def test_one_item_has_no_interval():
    metric = bootstrap_ratio(np.array([3.0]), np.array([2.0]))
    assert (metric.value, metric.n) == (1.5, 1)
    assert math.isnan(metric.low)
    assert math.isnan(metric.high)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    left_out = np.array([np.delete(values, i).mean() for i in range(50)])
    metric = jackknife_interval(values.mean(), left_out, 50)
    assert metric.high - metric.value == pytest.approx(
        _student(0.975, 49) * values.std(ddof=1) / 50**0.5
    )
    assert isinstance(metric, Metric)


def test_xz_is_what_the_program_gives(english_texts, tmp_path):
    texts = english_texts[:30]
    data = "\n\n".join(texts).encode()
    metric = xz_bits_per_byte(texts)
    assert metric.low < metric.value < metric.high
    if shutil.which("xz"):
        (tmp_path / "a").write_bytes(data)
        packed = subprocess.run(
            ["xz", "-9e", "-c", tmp_path / "a"], capture_output=True, check=True
        )
        # liblzma's library and program differ in the block header alone.
        assert abs(len(packed.stdout) * 8 / len(data) - metric.value) < 0.005
    else:
        assert metric.value == 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(
            data
        )


def test_trigrams_are_what_counting_gives(texts):
    model = ByteTrigrams()
    counts: dict = {}
    for text in texts[:50]:
        model.learn(text)
        data = b"\0\0" + text.encode()
        for i in range(2, len(data)):
            context = counts.setdefault(data[i - 2 : i], {})
            context[data[i]] = context.get(data[i], 0) + 1
    text = texts[-1]
    data, bits = b"\0\0" + text.encode(), 0.0
    for i in range(2, len(data)):
        context = counts.get(data[i - 2 : i], {})
        bits -= math.log2((context.get(data[i], 0) + 1) / (sum(context.values()) + 256))
    assert model.bits(text) == pytest.approx(bits)
    assert ByteTrigrams().bits_per_byte([text]).value == pytest.approx(8)


def test_what_fits_is_measured_whole():
    assert excerpt_bytes(np.full(10, 100), 1000) == dict.fromkeys(range(10), 100)


def test_many_short_documents_are_taken_evenly():
    chosen = excerpt_bytes(np.full(100, 100), 1000)
    assert list(chosen) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert set(chosen.values()) == {100}


@given(
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=60),
    limit=st.integers(1, 10**7),
)
def test_excerpts_hold_the_limit_and_every_document_has_a_say_where_it_can(sizes, limit):
    chosen = excerpt_bytes(np.array(sizes), limit)
    assert chosen
    assert all(0 < size <= sizes[number] for number, size in chosen.items())
    if sum(sizes) > limit and limit >= SHORTEST_EXCERPT * len(sizes):
        assert list(chosen) == list(range(len(sizes)))
        assert limit - len(sizes) <= sum(chosen.values()) <= limit
        shortened = [size for number, size in chosen.items() if size < sizes[number]]
        assert len(set(shortened)) == 1
        assert shortened[0] == max(chosen.values())


def test_an_excerpt_is_whole_characters_from_the_middle():
    text = "前" * 100 + "中" * 100 + "后" * 100
    middle = excerpt(text, 301)
    assert middle in text
    assert set(middle) == {"中"} or middle.strip("前后") == "中" * 100
    assert 298 <= len(middle.encode()) <= 301
    assert excerpt(text, 900) == text
