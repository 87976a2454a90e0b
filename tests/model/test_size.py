from __future__ import annotations

import pytest

from tianti.model.settings import ModelConfig
from tianti.model.size import derived_context, derived_vocabulary, shape_for_depth, shape_for_size


@pytest.mark.parametrize("size", [300_000, 1_000_000, 3_000_000, 10**7, 10**8, 10**9, 7 * 10**9])
def test_the_dial_gives_about_the_size_asked_for(size):
    vocabulary = derived_vocabulary(size, train_bytes=1e12)
    shape = shape_for_size(size, vocab_size=vocabulary, context=256)
    assert shape.num_parameters() == pytest.approx(size, rel=0.12)
    assert shape.num_heads * shape.head_dim == shape.width
    assert 24 <= shape.width / shape.depth <= 160


def test_more_size_is_more_of_everything():
    sizes = [10**6, 10**7, 10**8, 10**9]
    vocabularies = [derived_vocabulary(size, train_bytes=1e12) for size in sizes]
    contexts = [derived_context(size) for size in sizes]
    assert vocabularies == sorted(set(vocabularies))
    assert contexts == sorted(contexts)


def test_little_text_makes_a_small_vocabulary():
    assert derived_vocabulary(1e9, train_bytes=400_000) <= 2_000


def test_depth_is_a_dial_too():
    shape = shape_for_depth(6, vocab_size=4096, context=256)
    assert (shape.depth, shape.width, shape.num_heads) == (6, 384, 6)


def test_what_is_set_stands_and_the_rest_fits_it():
    shape = ModelConfig(width=48, head_dim=16, depth=2).build(
        size=10**6, vocab_size=500, context=32
    )
    assert (shape.width, shape.depth, shape.head_dim, shape.num_heads) == (48, 2, 16, 3)
    assert shape.mlp_width == 128
    untied = ModelConfig(tied_embeddings=False, rope_theta=5e5).build(
        size=10**6, vocab_size=500, context=32
    )
    assert not untied.tied_embeddings
    assert untied.rope_theta == 5e5
