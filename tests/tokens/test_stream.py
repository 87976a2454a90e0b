from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tianti.errors import Damaged
from tianti.tokens.permutation import Permutation
from tianti.tokens.shards import TokenSplit, token_dtype, write_shards
from tianti.tokens.stream import BatchStream

END = 9


def make_split(folder, documents, shard_tokens=7, vocab_size=10):
    write_shards(
        folder,
        ((ids, 3 * len(ids)) for ids in documents),
        vocab_size=vocab_size,
        end_of_text=END,
        shard_tokens=shard_tokens,
    )
    return TokenSplit.open(folder, verify=True)


documents_strategy = st.lists(
    st.lists(st.integers(0, 8), min_size=1, max_size=20), min_size=1, max_size=20
)


@given(documents=documents_strategy, shard_tokens=st.integers(1, 50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_come_back_whatever_the_shards(tmp_path_factory, documents, shard_tokens):
    split = make_split(tmp_path_factory.mktemp("s"), documents, shard_tokens)
    assert [split.document(n).tolist() for n in range(len(documents))] == documents
    assert split.document_bytes.tolist() == [3 * len(ids) for ids in documents]
    flat = [token for ids in documents for token in [*ids, END]]
    assert split.read(0, split.num_tokens).tolist() == flat
    assert split.read(1, len(flat) - 1).tolist() == flat[1:-1]


def test_an_empty_split_is_a_split(tmp_path):
    split = make_split(tmp_path, [])
    assert split.num_tokens == 0
    assert split.read(0, 0).tolist() == []


@pytest.mark.parametrize(("size", "name"), [(65536, "<u2"), (65537, "<u4")])
def test_ids_take_as_few_bytes_as_they_need(size, name):
    assert token_dtype(size).str == name


def test_large_ids_survive(tmp_path):
    split = make_split(tmp_path, [[151_000, 3], [70_000]], vocab_size=151_936)
    assert split.document(0).tolist() == [151_000, 3]


@pytest.mark.parametrize("name", ["00000.tokens", "lengths.i64", "bytes.i64"])
def test_a_flipped_bit_in_any_file_is_found(tmp_path, name):
    make_split(tmp_path, [[1, 2, 3], [4, 5]])
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Damaged, match=name):
        TokenSplit.open(tmp_path, verify=True)


@given(st.integers(1, 3000), st.integers(0, 2**63))
@settings(max_examples=60)
def test_a_permutation_holds_every_element_once(size, seed):
    permutation = Permutation(size, seed)
    assert sorted(permutation[i] for i in range(size)) == list(range(size))


def test_permutations_of_other_seeds_differ_and_look_random():
    orders = [[Permutation(1000, seed)[i] for i in range(1000)] for seed in range(8)]
    assert len({tuple(order) for order in orders}) == 8
    for order in orders:
        # The correlation of a random order with its index is about N(0, 1/1000).
        assert abs(np.corrcoef(order, range(1000))[0, 1]) < 0.13


def test_a_permutation_of_billions_costs_no_memory():
    permutation = Permutation(10**12, 7)
    assert len({permutation[i] for i in range(1000)}) == 1000


@pytest.fixture
def split(tmp_path, rng):
    documents = [rng.integers(0, 9, size=int(n)).tolist() for n in rng.integers(1, 40, size=60)]
    return make_split(tmp_path / "split", documents, shard_tokens=100)


def labels_of_epoch(stream, epoch):
    rows = range(epoch * stream.rows_per_epoch, (epoch + 1) * stream.rows_per_epoch)
    total = stream.split.num_tokens
    return [
        (stream.row_start(row) + place) % total
        for row in rows
        for place in range(1, stream.context + 1)
    ]


def test_each_token_is_predicted_at_most_once_an_epoch_and_only_a_rest_is_left(split):
    stream = BatchStream(split, context=16, rows=4, seed=3)
    for epoch in range(3):
        places = labels_of_epoch(stream, epoch)
        assert len(places) == len(set(places))
        assert split.num_tokens - len(places) < stream.context
    assert labels_of_epoch(stream, 0) != labels_of_epoch(stream, 1)


def test_every_epoch_cuts_the_tokens_at_other_places(split):
    stream = BatchStream(split, context=16, rows=4, seed=3)
    cuts = {stream.row_start(epoch * stream.rows_per_epoch) % 16 for epoch in range(12)}
    assert len(cuts) > 4


def test_a_batch_depends_on_seed_and_step_alone(split):
    one, two = (BatchStream(split, context=16, rows=4, seed=3) for _ in range(2))
    expected = [one.batch(step).ids for step in range(30)]
    for step in (29, 0, 17, 3):
        assert (two.batch(step).ids == expected[step]).all()
    other = BatchStream(split, context=16, rows=4, seed=4)
    assert not all((other.batch(step).ids == expected[step]).all() for step in range(3))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_a_batch_without_overlap(split, world):
    stream = BatchStream(split, context=16, rows=4, seed=0)
    whole = stream.batch(5)
    parts = [stream.batch(5, rank, world) for rank in range(world)]
    for rank, part in enumerate(parts):
        assert (part.ids == whole.ids[rank::world]).all()
        assert (part.segments == whole.segments[rank::world]).all()
    with pytest.raises(ValueError, match="cannot be shared"):
        stream.batch(0, 0, 3)


def test_labels_are_the_next_tokens_and_segments_open_at_end_of_text(split):
    stream = BatchStream(split, context=16, rows=4, seed=0)
    flat = split.read(0, split.num_tokens)
    for step in range(20):
        batch = stream.batch(step)
        for row in range(4):
            start = stream.row_start(step * 4 + row)
            places = (start + np.arange(17)) % len(flat)
            assert (batch.ids[row] == flat[places[:-1]]).all()
            assert (batch.labels[row] == flat[places[1:]]).all()
            opened = np.diff(batch.segments[row], prepend=0)
            assert (opened == (batch.ids[row] == END)).all()


def test_too_little_text_for_a_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one row needs 17"):
        BatchStream(make_split(tmp_path, [[1, 2]]), context=16, rows=1, seed=0)


def test_late_rows_come_the_more_often_the_later(tmp_path):
    main = make_split(tmp_path / "main", [[1] * 63] * 60)
    late = make_split(tmp_path / "late", [[2] * 63] * 20)
    stream = BatchStream(main, context=8, rows=64, seed=3)
    both = BatchStream(
        main, context=8, rows=64, seed=3, late=BatchStream(late, context=8, rows=64, seed=3)
    )
    assert (both.batch(7, progress=0.0).ids == stream.batch(7).ids).all()
    shares = []
    for progress in (0.1, 0.5, 1.0):
        rows = [both.batch(step, progress=progress).ids for step in range(30)]
        shares.append(np.mean([(ids == 2).any(axis=1).mean() for ids in rows]))
    # A quarter of the tokens are late, so half of the rows at the end.
    assert shares == pytest.approx([0.05, 0.25, 0.5], abs=0.03)
    halves = [both.batch(5, rank, 2, progress=0.7).ids for rank in range(2)]
    whole = both.batch(5, progress=0.7).ids
    assert (np.stack(halves, axis=1).reshape(whole.shape) == whole).all()
