"""MinHash signatures of documents over word n-grams, each Chinese character being a word.

Broder (1997), "On the resemblance and containment of documents". The share of equal entries in two
signatures estimates the Jaccard similarity of their sets of n-grams. 16 bits of each entry are kept
(Li and König 2010, "b-bit minwise hashing"): unequal entries agree by chance once in 65,536. They
are bits of a product that all bits of the minimum have a say in: its own highest bits are zero for
a book, because the least of many numbers is small, and its lowest ones depend on the lowest bits of
one hash alone, the same for all entries of a text of one n-gram.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.kernels import (
    COMPILED,
    code_point,
    is_cjk,
    is_separator,
    kernel,
    mix,
    text_buffers,
    width,
)

HASHES = 108
# A text with fewer n-grams is one n-gram as a whole.
FEW = 10
_BASE = 0x9E3779B97F4A7C15
_SPREAD = np.uint32(0x9E3779B1)
_generator = np.random.Generator(np.random.PCG64(20231))
# Odd factors, so that each map of 32-bit numbers is one to one.
_FACTORS = _generator.integers(0, 2**32, HASHES, dtype=np.uint32) | np.uint32(1)
_ADDENDS = _generator.integers(0, 2**32, HASHES, dtype=np.uint32)


def _lower() -> np.ndarray:
    """Gives of each ASCII letter or digit its code in lower case, of other bytes 0."""
    table = np.zeros(256, np.uint8)
    for character in map(chr, range(128)):
        if character.isalnum():
            table[ord(character)] = ord(character.lower())
    return table


_LOWER = _lower()


def signatures(texts: pa.Array | pa.ChunkedArray, ngram: int = 5) -> np.ndarray:
    """Gives the MinHash signature of each text.

    Words are runs of letters and digits, ASCII letters in lower case; a Chinese character or a kana
    is a word. A text of fewer than `FEW` n-grams is one n-gram as a whole.

    Args:
        texts: the texts.
        ngram: words to an n-gram.

    Returns:
        `(texts, HASHES)` uint16.
    """
    data, offsets = text_buffers(texts)
    if COMPILED:
        return _signatures(data, offsets, ngram, _FACTORS, _ADDENDS)
    out = np.empty((len(offsets) - 1, HASHES), np.uint16)
    for row in range(len(out)):
        hashes = shingle_hashes(data[offsets[row] : offsets[row + 1]], ngram)
        out[row] = _minima(hashes)
    return out


def shingle_hashes(data: np.ndarray, ngram: int) -> np.ndarray:
    """Gives the 32-bit hash of every n-gram of one text, in order, repeats included.

    Args:
        data: UTF-8 bytes, uint8.
        ngram: words to an n-gram.
    """
    words = np.empty(len(data) + 1, np.uint64)
    count = words_of(data, 0, len(data), words, None)
    return _shingles(words, count, ngram)


def _minima(hashes: np.ndarray) -> np.ndarray:
    """The numpy twin of the inner loop of `_signatures`."""
    least = np.full(HASHES, 0xFFFFFFFF, np.uint32)
    with np.errstate(over="ignore"):
        for start in range(0, len(hashes), 4096):
            block = hashes[start : start + 4096, None] * _FACTORS + _ADDENDS
            least = np.minimum(least, block.min(axis=0))
    with np.errstate(over="ignore"):
        return (least * _SPREAD >> np.uint32(16)).astype(np.uint16)


@kernel
def words_of(data: np.ndarray, start: int, stop: int, words: np.ndarray, spans: Any) -> Any:
    """Writes a hash for each word and gives their number.

    Numbers are without a sign throughout, which spares a test for each byte; and as none can
    foretell where a word ends, it is written down after each of its characters, and counts once it
    has ended.

    Args:
        data: UTF-8 bytes.
        start: where the text begins.
        stop: where it ends.
        words: room for the hashes, one more than there are bytes.
        spans: room for where each begins and ends, as long as `words`, `(words, 2)`; or None.
    """
    at, end, count = np.uint64(start), np.uint64(stop), np.uint64(0)
    value = inside = zero = np.uint64(0)
    one = np.uint64(1)
    begin = at
    while at < end:
        byte = data[at]
        if byte < 0x80:
            letter = np.uint64(_LOWER[byte])
            goes_on = np.uint64(letter != zero)
            words[count] = value
            if spans is not None:
                begin = begin if inside else at
                spans[count, 0], spans[count, 1] = begin, at
            count += inside & (one ^ goes_on)
            # Nine characters of seven bits lie side by side in 64; of longer words they mix.
            turned = (value << np.uint64(7) | value >> np.uint64(57)) ^ letter
            value = turned if goes_on else zero
            inside = goes_on
            at += one
            continue
        # E5 to E9 begin U+5000 to U+9FFF: nearly all Chinese characters there are in text.
        common = 0xE5 <= byte <= 0xE9
        point = code_point(data, at)
        size = np.uint64(3 if common else width(byte))
        character = common or is_cjk(point)
        if character or is_separator(point):
            words[count] = value
            if spans is not None:
                spans[count, 0], spans[count, 1] = begin, at
            count += inside
            value = inside = zero
            if character:
                words[count] = np.uint64(point)
                if spans is not None:
                    spans[count, 0], spans[count, 1] = at, at + size
                count += one
        else:
            value = (value ^ np.uint64(point)) * np.uint64(_BASE)
            begin = begin if inside else at
            inside = one
        at += size
    words[count] = value
    if spans is not None:
        spans[count, 0], spans[count, 1] = begin, end
    total = np.int64(count + inside)
    for index in range(total):
        words[index] = mix(words[index])
    return total


@kernel
def _shingles(words: np.ndarray, count: int, ngram: int) -> np.ndarray:
    """Gives the hashes of the n-grams of words by a rolling polynomial."""
    if count < ngram + FEW - 1:
        # Among a handful of n-grams one changed word is most of them: only the whole can be told.
        ngram = max(count, 1)
    first = np.uint64(1)
    for _ in range(ngram - 1):
        first = first * np.uint64(_BASE)
    total = max(count - ngram + 1, 1)
    out = np.empty(total, np.uint32)
    value = np.uint64(0)
    for index in range(min(count, ngram)):
        value = value * np.uint64(_BASE) + words[index]
    out[0] = np.uint32(mix(value) >> np.uint64(32))
    for index in range(ngram, count):
        value = (value - words[index - ngram] * first) * np.uint64(_BASE) + words[index]
        out[index - ngram + 1] = np.uint32(mix(value) >> np.uint64(32))
    return out


@kernel
def _signatures(
    data: np.ndarray,
    offsets: np.ndarray,
    ngram: int,
    factors: np.ndarray,
    addends: np.ndarray,
) -> np.ndarray:
    num_texts = len(offsets) - 1
    num_hashes = len(factors)
    out = np.empty((num_texts, num_hashes), np.uint16)
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    words = np.empty(longest + 1, np.uint64)
    least = np.empty(num_hashes, np.uint32)
    for text in range(num_texts):
        count = words_of(data, offsets[text], offsets[text + 1], words, None)
        hashes = _shingles(words, count, ngram)
        least[:] = np.uint32(0xFFFFFFFF)
        # Four at a time: factors, addends and minima are fetched once for all of them.
        whole = len(hashes) // 4 * 4
        for index in range(0, whole, 4):
            one, two = hashes[index], hashes[index + 1]
            three, four = hashes[index + 2], hashes[index + 3]
            for entry in range(num_hashes):
                factor, addend = factors[entry], addends[entry]
                left = min(np.uint32(one * factor + addend), np.uint32(two * factor + addend))
                right = min(np.uint32(three * factor + addend), np.uint32(four * factor + addend))
                least[entry] = min(least[entry], min(left, right))
        for index in range(whole, len(hashes)):
            for entry in range(num_hashes):
                mapped = np.uint32(hashes[index] * factors[entry] + addends[entry])
                least[entry] = min(least[entry], mapped)
        for entry in range(num_hashes):
            out[text, entry] = np.uint32(least[entry] * _SPREAD) >> np.uint32(16)
    return out
