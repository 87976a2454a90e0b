"""Rows of packed examples: each example once an epoch, the same on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tianti.tokens.examples import IGNORED, Examples, ExampleStream

PAD = 0


def made(lengths, texts=1, weights=None):
    """Examples whose tokens tell which they are: number · 1000 + place."""
    rows = []
    for number, length in enumerate(lengths):
        for text in range(texts):
            ids = [1 + number * 1000 + text * 100 + place for place in range(length)]
            rows.append((ids, [IGNORED] * (length - 1) + [number]))
    return Examples.of(rows, weights or [1.0] * len(lengths), texts)


def stream(examples, **changes):
    return ExampleStream(examples, **({"context": 20, "rows": 2, "seed": 5, "pad": PAD} | changes))


def texts_of(batch):
    """Gives the texts of each row as they are kept apart, with the units they belong to."""
    found = []
    for ids, segments, units in zip(batch.ids, batch.segments, batch.units, strict=True):
        row = []
        for segment in dict.fromkeys(segments.tolist()):
            here = (segments == segment) & (ids != PAD)
            if here.any():
                row.append((ids[here].tolist(), set(units[here].tolist())))
        found.append(row)
    return found


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_epoch_has_every_example_once_and_whole(lengths, seed, texts):
    lengths = [max(1, length // texts) for length in lengths]
    held = made(lengths, texts)
    found = stream(held, seed=seed)
    first = 0
    for epoch in range(3):
        rows = [found.members(first + number) for number in range(_rows_in(found, epoch))]
        first += len(rows)
        assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
        assert all(sum(lengths[n] * texts for n in row) <= 20 for row in rows)


def _rows_in(found, epoch):
    found._know(epoch)
    return found._firsts[epoch + 1] - found._firsts[epoch]


@pytest.mark.parametrize("texts", [1, 2])
def test_rows_hold_what_examples_say(texts):
    lengths = [3, 7, 2, 9, 4, 6, 1, 8]
    held = made(lengths, texts)
    batch = stream(held, rows=2 * texts).batch(0)
    numbers = []
    for row in texts_of(batch):
        for ids, units in row:
            number, text = divmod(ids[0] - 1, 1000)
            assert ids == [1 + number * 1000 + text + place for place in range(lengths[number])]
            assert len(units) == 1
            numbers.append((number, text // 100))
    assert len(set(numbers)) == len(numbers)
    marked = batch.labels[batch.labels != IGNORED]
    assert sorted(marked.tolist()) == sorted(number for number, _ in numbers)
    # The two texts of an example have one unit, and segments that begin at an even number.
    for ids, segments, units in zip(batch.ids, batch.segments, batch.units, strict=True):
        for place in np.flatnonzero(ids):
            number, text = divmod(int(ids[place]) - 1, 1000)
            assert segments[place] % texts == text // 100 % texts
            same = (ids > 0) & ((ids - 1) // 1000 == number)
            assert len(set(units[same].tolist())) == 1


def test_ranks_share_the_rows_and_the_weight_of_one():
    held = made([3, 7, 2, 9, 4, 6, 1, 8] * 5, weights=[float(n + 1) for n in range(40)])
    for step in range(7):
        alone = stream(held, rows=4).batch(step)
        parts = [stream(held, rows=4).batch(step, rank, 2) for rank in range(2)]
        for rank, part in enumerate(parts):
            assert np.array_equal(part.ids, alone.ids[rank::2])
            assert part.weight == alone.weight
        numbers = alone.labels[alone.labels != IGNORED]
        assert alone.weight == sum(number + 1 for number in numbers)


def test_a_step_far_ahead_is_computed_from_the_seed_alone():
    held = made([3, 7, 2, 9, 4, 6, 1, 8] * 3)
    one, other = stream(held), stream(held)
    steps = [one.batch(step).ids for step in range(40)]
    for step in (39, 3, 17, 0, 38):
        assert np.array_equal(other.batch(step).ids, steps[step])
    assert not np.array_equal(stream(held, seed=6).batch(0).ids, steps[0])


def test_rare_examples_are_drawn_more_often():
    held = made([2] * 20)
    shares = np.array([0.5] * 16 + [3.0] * 4)
    drawn = stream(held, shares=shares)
    counts = np.zeros(20)
    for epoch in range(60):
        first = (drawn._know(epoch), drawn._firsts[epoch])[1]
        for number in range(first, drawn._firsts[epoch + 1]):
            for member in drawn.members(number):
                counts[member] += 1
    assert counts[16:] == pytest.approx(180)
    assert counts[:16].mean() == pytest.approx(30, rel=0.1)


def test_mixed_lengths_fill_their_rows():
    generator = np.random.default_rng(0)
    lengths = np.minimum(generator.lognormal(3, 0.6, 3000).astype(int) + 1, 128)
    found = ExampleStream(made(lengths.tolist()), context=128, rows=2, seed=0, pad=PAD)
    assert lengths.sum() / found.epoch_tokens > 0.98


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="21 tokens does not fit a row of 20"):
        stream(made([21]))
    with pytest.raises(ValueError, match="no examples"):
        stream(made([]))


def test_noise_hides_a_share_of_tokens_anew_each_time_and_never_the_last():
    rows = [([7, *range(10, 28), 8], [IGNORED] * 19 + [0])] * 50
    held = Examples.of(rows, [1.0] * 50)
    noisy = stream(held, noise=0.3, rows=50, pad=PAD)
    first, second = noisy.batch(0), noisy.batch(1)
    for batch in (first, second):
        assert (batch.ids[:, -1] == 8).all()
        assert np.mean(batch.ids[:, :-1] == PAD) == pytest.approx(0.3, abs=0.06)
    assert not np.array_equal(first.ids, second.ids)
    again = stream(held, noise=0.3, rows=50).batch(0, rank=1, world=2)
    assert np.array_equal(again.ids, first.ids[1::2])
    assert (noisy.rows_numbered([0]).ids != PAD).all()
