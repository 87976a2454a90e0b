"""Tokens to train tiny networks on, in which each follows from the one before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tianti.tokens.shards import TokenSplit, write_shards
from tianti.tokens.stream import BatchStream

CONTEXT = 32
TOKEN_BYTES = np.array([1] * 96 + [0])


def write_splits(folder: Path) -> Path:
    """Writes `train` and `validation`; gives the folder."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 80), ("validation", 60)):
        documents = []
        for _ in range(count):
            ids = [int(rng.integers(0, 96))]
            while len(ids) < rng.integers(20, 120):
                ids.append((ids[-1] * 5 + int(rng.integers(0, 3))) % 96)
            documents.append((ids, len(ids)))
        write_shards(folder / name, documents, vocab_size=97, end_of_text=96)
    return folder


def stream(splits: Path, name: str, rows: int, seed: int = 0) -> BatchStream:
    """Gives the batches of a split."""
    return BatchStream(TokenSplit.open(splits / name), context=CONTEXT, rows=rows, seed=seed)
