"""The size dial: from one number to width, depth, heads, feed-forward and vocabulary.

Rules, each with its reason:

- width : depth near 64 — wide enough for the matrix products to be efficient and near the optimum
  of the flat valley that Kaplan et al. 2020 (arXiv:2001.08361, figure 5) measured.
- head_dim 64, 128 from width 2048 on, 32 where 64 does not divide the width — the field's sizes.
- mlp_width 8/3 · width in steps of 32 — a SwiGLU with the weights of a 4× MLP (Shazeer 2020).
- num_kv_heads = num_heads below width 1024, half from there — the cache matters in big models.
- tied embeddings below 4 B weights — Qwen3's choice; in a small model the embedding dominates.
- vocabulary grows with the model: 2,048 at 1 M to 151 k (Tao et al. 2024, arXiv:2407.13623: larger
  models deserve larger vocabularies). Twice that for Chinese gains nothing (docs/experiments.md).
"""

from __future__ import annotations

import functools
import math

from tianti.model.config import TransformerConfig

ASPECT = 64
_VOCABULARY_BY_SIZE = (
    (1_500_000, 2_048),
    (6_000_000, 4_096),
    (20_000_000, 8_192),
    (60_000_000, 16_384),
    (400_000_000, 32_768),
    (2_000_000_000, 65_536),
    (math.inf, 151_936),
)
_CONTEXT_BY_SIZE = (
    (20_000_000, 256),
    (60_000_000, 512),
    (200_000_000, 1_024),
    (1_000_000_000, 2_048),
    (math.inf, 4_096),
)


def derived_vocabulary(size: float, *, train_bytes: float) -> int:
    """Gives the vocabulary for a model size and a text.

    Args:
        size: weights of the network.
        train_bytes: bytes of training text; a merge wants to be seen, so one for each 200 at most.
    """
    vocabulary = next(v for bound, v in _VOCABULARY_BY_SIZE if size <= bound)
    by_text = 2 ** max(9, math.floor(math.log2(max(train_bytes, 1) / 200)))
    return min(vocabulary, by_text)


def derived_context(size: float) -> int:
    """Gives the context in tokens for a model size."""
    return next(context for bound, context in _CONTEXT_BY_SIZE if size <= bound)


def shape_of(
    width: int, depth: int, *, vocab_size: int, context: int, tied: bool | None = None
) -> TransformerConfig:
    """Gives the whole shape that the rules of this module make of a width and a depth."""
    head_dim = 128 if width >= 2048 else 64 if width % 64 == 0 and width >= 128 else 32
    num_heads = max(1, width // head_dim)
    if tied is None:
        tied = vocab_size * width + depth * 12 * width * width < 4_000_000_000
    return TransformerConfig(
        vocab_size=vocab_size,
        width=width,
        depth=depth,
        num_heads=num_heads,
        num_kv_heads=num_heads // 2 if width >= 1024 and num_heads % 2 == 0 else num_heads,
        head_dim=head_dim,
        mlp_width=math.ceil(width * 8 / 3 / 32) * 32,
        context=context,
        tied_embeddings=tied,
    )


@functools.cache
def shape_for_size(
    size: int, *, vocab_size: int, context: int, tied: bool | None = None
) -> TransformerConfig:
    """Gives the shape whose number of weights comes closest to `size` at a good width : depth."""

    def badness(shape: TransformerConfig) -> float:
        miss = abs(math.log(shape.num_parameters() / size))
        stretch = abs(math.log(shape.width / shape.depth / ASPECT))
        return miss + 0.1 * stretch

    best = None
    for width in [*range(32, 256, 32), *range(256, 1024, 64), *range(1024, 16640, 128)]:
        depths = range(max(1, width // 160), width // 24 + 2)
        shapes = [
            shape_of(width, d, vocab_size=vocab_size, context=context, tied=tied) for d in depths
        ]
        best = min([*shapes, *([best] if best else [])], key=badness)
        if shapes[0].num_parameters() > 4 * size:
            break
    assert best is not None
    return best


def shape_for_depth(
    depth: int, *, vocab_size: int, context: int, tied: bool | None = None
) -> TransformerConfig:
    """Gives the shape of a depth, its width being `ASPECT` times that."""
    return shape_of(depth * ASPECT, depth, vocab_size=vocab_size, context=context, tied=tied)
