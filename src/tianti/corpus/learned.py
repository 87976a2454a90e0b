"""Quality that is learned: a linear classifier of hashed n-grams, and an n-gram model of bytes.

The classifier is fastText's (Joulin et al. 2017) without its embedding: logistic regression over
hashed words and pairs of words. The model of bytes interpolates orders zero to five as PPM does
(Witten and Bell 1991, method C).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.config import ClassifierConfig, PerplexityConfig, Source
from tianti.corpus.document import Document
from tianti.corpus.kernels import kernel, text_buffers
from tianti.corpus.minhash import words_of
from tianti.corpus.sources import read_source
from tianti.errors import UserError
from tianti.files import file_stamp, save_npy
from tianti.messages import tr

CLASSIFIER = "classifier.npy"
PERPLEXITY = "perplexity.npy"
_BUCKETS = 1 << 20
_EPOCHS = 5
_RATE = 0.5
_ORDER = 5
_SLOTS = 1 << 23
# More text than this would fill the table with chance meetings.
_REFERENCE_BYTES = 16 << 20
_BASE = np.uint64(0x9E3779B97F4A7C15)


def train_classifier(config: ClassifierConfig, path: Path) -> None:
    """Learns to tell good text from bad and writes the weights, float32.

    Raises:
        UserError: a sample cannot be read or is empty.
    """
    good, bad = _texts(config.good), _texts(config.bad)
    # Each in turn, the smaller sample again and again: both classes weigh the same.
    count = max(len(good), len(bad))
    texts = [text for n in range(count) for text in (good[n % len(good)], bad[n % len(bad)])]
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    labels = np.arange(len(texts)) % 2 == 0
    order = np.concatenate(
        [np.random.Generator(np.random.PCG64(e)).permutation(len(texts)) for e in range(_EPOCHS)]
    )
    weights = np.zeros(_BUCKETS + 1, np.float32)
    _learn(data, offsets, labels.astype(np.float32), order, weights, _RATE)
    save_npy(path, weights)


def train_perplexity(config: PerplexityConfig, path: Path) -> None:
    """Counts the n-grams of bytes of the reference and writes the counts, uint32.

    Raises:
        UserError: the reference cannot be read or is empty.
    """
    texts = _texts(config.reference)
    share = _REFERENCE_BYTES / max(sum(len(text.encode()) for text in texts), 1)
    every = max(1, round(1 / share))
    data, offsets = text_buffers(pa.array(texts[::every], pa.large_string()))
    counts = np.zeros((_SLOTS, 3), np.uint32)
    _count(data, offsets, counts)
    save_npy(path, counts)


def _texts(path: str) -> list[str]:
    texts = [
        item.text
        for item in read_source(Source(path=path))
        if isinstance(item, Document) and item.text.strip()
    ]
    if not texts:
        raise UserError(tr("there is no text here"), where=path, remedy=tr("Check the path"))
    return texts


@functools.lru_cache(maxsize=4)
def _load(path: str, stamp: tuple[int, int]) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def quality_column(texts: pa.Array, path: str) -> pa.Array:
    """Gives the probability that each text is good, float32."""
    data, offsets = text_buffers(texts)
    return pa.array(_scores(data, offsets, _load(path, file_stamp(Path(path)))))


def bits_per_byte_column(texts: pa.Array, path: str) -> pa.Array:
    """Gives the bits per byte of each text under the n-gram model, float32."""
    data, offsets = text_buffers(texts)
    return pa.array(_bits_per_byte(data, offsets, _load(path, file_stamp(Path(path)))))


@kernel
def _features(words: np.ndarray, count: int, features: np.ndarray) -> int:
    """Writes the bucket of each word and pair of words."""
    total = 0
    for index in range(count):
        features[total] = np.int64(words[index] & np.uint64(_BUCKETS - 1))
        total += 1
        if index:
            pair = (words[index - 1] * _BASE + words[index]) * _BASE
            features[total] = np.int64((pair >> np.uint64(30)) & np.uint64(_BUCKETS - 1))
            total += 1
    return total


@kernel
def _logit(features: np.ndarray, count: int, weights: np.ndarray) -> float:
    total = 0.0
    for index in range(count):
        total += float(weights[features[index]])
    return total / max(count, 1) + float(weights[len(weights) - 1])


@kernel
def _room(offsets: np.ndarray) -> int:
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest + 1


@kernel
def _learn(
    data: np.ndarray,
    offsets: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    weights: np.ndarray,
    rate: float,
) -> None:
    """Descends the logistic loss, text by text, with a rate that falls to nothing."""
    room = _room(offsets)
    words = np.empty(room, np.uint64)
    features = np.empty(2 * room, np.int64)
    for step in range(len(order)):
        text = order[step]
        count = words_of(data, offsets[text], offsets[text + 1], words, None)
        total = _features(words, count, features)
        if total == 0:
            continue
        chance = 1.0 / (1.0 + np.exp(-_logit(features, total, weights)))
        push = rate * (1.0 - step / len(order)) * (labels[text] - chance)
        weights[len(weights) - 1] += push * 0.1
        for index in range(total):
            # The mean of the features has a small gradient; words stand for it as in fastText.
            weights[features[index]] += push * min(8.0 / total, 1.0) * 4.0


@kernel
def _scores(data: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    room = _room(offsets)
    words = np.empty(room, np.uint64)
    features = np.empty(2 * room, np.int64)
    out = np.empty(len(offsets) - 1, np.float32)
    for text in range(len(out)):
        count = words_of(data, offsets[text], offsets[text + 1], words, None)
        total = _features(words, count, features)
        out[text] = 1.0 / (1.0 + np.exp(-_logit(features, total, weights)))
    return out


@kernel
def _context(data: np.ndarray, at: int, order: int) -> Any:
    """Gives a hash of the bytes before a place."""
    value = np.uint64(order + 1)
    for back in range(1, order + 1):
        value = (value + np.uint64(data[at - back]) + np.uint64(1)) * _BASE
    return value ^ (value >> np.uint64(32))


@kernel
def _place(value: Any) -> Any:
    return np.int64((value * _BASE >> np.uint64(40)) & np.uint64(_SLOTS - 1))


@kernel
def _count(data: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> None:
    """Counts, by hash: 0 a byte after its context, 1 the context, 2 distinct bytes after it."""
    for text in range(len(offsets) - 1):
        start = offsets[text]
        for at in range(start, offsets[text + 1]):
            for order in range(min(_ORDER, at - start) + 1):
                context = _context(data, at, order)
                pair = _place((context + np.uint64(data[at]) + np.uint64(1)) * _BASE)
                whole = _place(context)
                if counts[pair, 0] == 0:
                    counts[whole, 2] += 1
                counts[pair, 0] += 1
                counts[whole, 1] += 1


@kernel
def _bits_per_byte(data: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    out = np.full(len(offsets) - 1, np.nan, np.float32)
    for text in range(len(out)):
        start, stop = offsets[text], offsets[text + 1]
        bits = 0.0
        for at in range(start, stop):
            chance = 1.0 / 256.0
            for order in range(min(_ORDER, at - start) + 1):
                context = _context(data, at, order)
                whole = _place(context)
                total = counts[whole, 1]
                if total == 0:
                    break
                # Contexts share places: one that another hides has followers all the same.
                distinct = max(counts[whole, 2], 1)
                pair = _place((context + np.uint64(data[at]) + np.uint64(1)) * _BASE)
                here = min(counts[pair, 0], total)
                chance = (here + distinct * chance) / (total + distinct)
            bits -= np.log2(chance)
        if stop > start:
            out[text] = bits / (stop - start)
    return out
