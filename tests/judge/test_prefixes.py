"""Laid in trees, every text keeps its own tokens in their order and looks at nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tianti.evaluate.models import prefixes
from tianti.evaluate.models.base import Request
from tianti.evaluate.models.encoding import encode_requests
from tianti.evaluate.models.prefixes import (
    CACHED_ROW,
    LEAST_SHARED,
    LONGEST_TREE,
    Asked,
    batches,
    families,
)

WORDS = st.integers(0, 2)


@st.composite
def asked(draw):
    """Texts of which some begin alike, for a few or for many tokens."""
    beginning = draw(st.sampled_from([[], [1] * 5, [2] * LEAST_SHARED, [0] * (LEAST_SHARED + 9)]))
    end = draw(st.lists(WORDS, min_size=2, max_size=draw(st.sampled_from([4, 40]))))
    tokens = np.array(beginning + end, dtype=np.int64)
    return Asked(tokens, draw(st.integers(0, len(tokens) - 2)))


@settings(deadline=None, max_examples=200)
@given(st.lists(asked(), max_size=60), st.sampled_from([0.5, 30.0, 1e6]))
def test_every_text_is_laid_once_with_its_own_tokens(texts, worth):
    found = []
    for family in families(texts, worth):
        base = family.beginning
        for row in family.rows:
            ids, positions, looks = row.ids(), row.positions(), row.looks(row.size + 3)
            assert len(ids) == len(positions) == row.size
            assert not len(base) or row.size <= max(
                CACHED_ROW, *map(len, (p for _, p in row.paths))
            )
            for number, path in row.paths:
                found.append(number)
                read = texts[number].read
                assert np.array_equal(np.concatenate((base, ids[path])), read)
                assert np.array_equal(positions[path], np.arange(len(base), len(read)))
                for place, at in enumerate(path):
                    assert np.array_equal(np.flatnonzero(looks[at]), np.sort(path[: place + 1]))
                assert texts[number].first >= len(base)
    assert sorted(found) == list(range(len(texts)))


def test_what_is_shared_is_read_once():
    beginning = np.arange(3, 3 + LEAST_SHARED * 2)
    texts = [Asked(np.concatenate((beginning, [n, n, 1])), len(beginning)) for n in range(1000)]
    _, cached = families(texts, 100.0)
    assert np.array_equal(cached.beginning, beginning)
    assert sum(row.size for row in cached.rows) == 2 * len(texts)
    assert max(row.size for row in cached.rows) <= CACHED_ROW
    pair = [Asked(np.array([1, 2, 3, last, last]), 0) for last in (8, 9)]
    [plain] = families(pair, 100.0)
    assert [row.size for row in plain.rows] == [5]


def test_a_long_beginning_is_kept_even_for_two():
    beginning = np.arange(LONGEST_TREE + 1)
    texts = [Asked(np.concatenate((beginning, [n, 1, 1])), LONGEST_TREE) for n in range(2)]
    plain, cached = families(texts, 100.0)
    assert not plain.rows
    assert len(cached.beginning) == LONGEST_TREE
    [alone] = families(texts[:1], 100.0)
    assert [row.is_chain for row in alone.rows] == [True]


def test_a_row_does_not_grow_past_what_it_saves():
    texts = [Asked(np.array([0, *[n] * 20]), 0) for n in range(1, 200)]
    [cheap] = families(texts, 10.0)
    [dear] = families(texts, 10_000.0)
    assert len(cheap.rows) > len(dear.rows)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(WORDS, min_size=2, max_size=20), min_size=1, max_size=30))
def test_batches_keep_their_budget_and_every_row(tokens):
    [plain] = families([Asked(np.array(ids), 0) for ids in tokens], 5.0)
    made = list(batches(plain.rows, 40))
    assert sorted(map(id, plain.rows)) == sorted(id(row) for group in made for row in group)
    for group in made:
        assert len(group) == 1 or len(group) * max(row.size for row in group) <= 40
        assert len({row.is_chain for row in group}) == 1


def test_answers_behind_long_examples_are_those_alone(network):
    examples = "He said that it was so. 春眠不觉晓。\n" * 2
    requests = [
        Request(examples + f"No. {n}", option)
        for n in range(160)
        for option in (" is red", " is read", "，天气好")
    ]
    encoded = encode_requests(requests, network._ids, network.tokenizer.end_of_text, 128)
    _, cached = families([one.asked for one in encoded], 100.0)
    assert len(cached.beginning) >= LEAST_SHARED
    requests += [Request("", "is red"), Request("He said", " so")]
    together = network.likelihoods(requests)
    for place in (0, 1, 2, 77, 300, 479, 480, 481):
        [alone] = network.likelihoods([requests[place]])
        assert together[place].nats == pytest.approx(alone.nats, abs=1e-4)
        assert together[place].tokens == alone.tokens


@settings(deadline=None, max_examples=100)
@given(st.lists(asked(), min_size=1, max_size=30), st.sampled_from([1.0, 100.0]))
def test_kept_beginnings_lose_no_token(texts, worth):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "LEAST_SHARED", 2)
        patch.setattr(prefixes, "CACHED_ROW", 8)
        made = list(families(texts, worth))
    found = {}
    for family in made:
        for row in family.rows:
            ids = row.ids()
            for number, path in row.paths:
                read = np.concatenate((family.beginning, ids[path]))
                assert read.tolist() == texts[number].read.tolist()
                assert len(family.beginning) <= texts[number].first
                assert number not in found
                found[number] = row
    assert len(found) == len(texts)


def test_what_follows_a_kept_beginning_does_not_lean_on_it():
    end = list(range(10, 40))
    family = [[1] * (LEAST_SHARED + 1) + [n, *end] for n in range(100, 120)]
    texts = [Asked(np.array(ids), len(ids) - 3) for ids in ([0, 5, 5], *family, [1, 2, 2])]
    plain, cached = families(texts, 1_000.0)
    assert len(cached.beginning) == LEAST_SHARED + 1
    for row in plain.rows:
        for number, path in row.paths:
            assert row.ids()[path].tolist() == texts[number].read.tolist()
