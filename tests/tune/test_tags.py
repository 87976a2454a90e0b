"""The likeliest tags that fit each other, beside a search of all there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tianti.tune.tags import likeliest

TAGS = ["O", "B-a", "I-a", "B-b", "I-b"]


def fits(path):
    names = ["O", *[TAGS[number] for number in path]]
    return all(
        not after.startswith("I") or (before[2:] == after[2:] and before != "O")
        for before, after in itertools.pairwise(names)
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_likeliest_of_all_that_fit(seed, length):
    scores = np.random.default_rng(seed).normal(size=(length, len(TAGS))) * 2
    paths = filter(fits, itertools.product(range(len(TAGS)), repeat=length))
    best = max(paths, key=lambda path: sum(scores[t, tag] for t, tag in enumerate(path)))
    assert likeliest(scores, TAGS) == list(best)


def test_what_fits_already_stays_and_nothing_is_nothing():
    scores = np.eye(len(TAGS))[[0, 1, 2, 2, 0, 3, 1]]
    assert likeliest(scores, TAGS) == [0, 1, 2, 2, 0, 3, 1]
    assert likeliest(scores[:0], TAGS) == []
