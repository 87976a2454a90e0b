"""Keeps evaluation text out of training: documents that share a long enough run of words with it.

A run is 13 words (Brown et al. 2020, appendix C) or 20 Chinese characters; in mixed text each word
and each character counts for its part, so that a run is as unlikely to be shared by chance.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.config import DecontaminateConfig
from tianti.corpus.document import BadInput, Document
from tianti.corpus.kernels import kernel, text_buffers
from tianti.corpus.minhash import words_of
from tianti.corpus.sources import read_source
from tianti.errors import UserError
from tianti.files import file_stamp, save_npz
from tianti.messages import tr

INDEX = "evaluation.npz"
_BASE = np.uint64(0x9E3779B97F4A7C15)


def build_index(config: DecontaminateConfig, path: Path) -> None:
    """Writes the runs of all evaluation texts, and what each text is called.

    Raises:
        UserError: an evaluation set cannot be read.
    """
    texts, names = [], []
    for source in config.against:
        for item in read_source(source):
            if isinstance(item, BadInput):
                # What cannot be read cannot be kept out.
                raise UserError(item.reason, where=item.origin, remedy=item.remedy)
            for text in _parts(item):
                texts.append(text)
                names.append(item.origin)
    if not any(text.strip() for text in texts):
        raise UserError(
            tr("there is no text here"),
            where="corpus.decontaminate.against",
            remedy=tr("Check the path"),
        )
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    keys, owners = runs_of(data, offsets, config.words, config.characters)
    keys, first = np.unique(keys, return_index=True)
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.zeros(size, np.uint64)
    owner = np.zeros(size, np.int32)
    _fill(table, owner, keys, owners[first].astype(np.int32))
    save_npz(path, table=table, owner=owner, names=np.array(names or [""]))


def _parts(item: Document) -> list[str]:
    """Gives the texts of an evaluation record: its text and every other text in it."""
    texts = [item.text]

    def gather(value: Any) -> None:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            for inner in value.values():
                gather(inner)
        elif isinstance(value, list):
            for inner in value:
                gather(inner)

    gather(item.meta)
    return texts


@functools.lru_cache(maxsize=2)
def _load(path: str, stamp: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as index:
        return index["table"], index["owner"], index["names"]


def contamination_columns(
    texts: pa.Array, config: DecontaminateConfig, path: str
) -> dict[str, pa.Array]:
    """Gives for each text how many of its runs evaluation text has, and what they are.

    Returns:
        `contaminated`: number of the evaluation text, -1 for none; `contaminated_text`: the first
        run that is shared, and where it stands.
    """
    table, owner, names = _load(path, file_stamp(Path(path)))
    data, offsets = text_buffers(texts)
    found = _matches(data, offsets, config.words, config.characters, table, owner)
    shared: list[str | None] = [
        f"{names[number]}: {bytes(data[begin:end]).decode('utf-8', 'replace')}"
        if number >= 0
        else None
        for number, begin, end in found.tolist()
    ]
    return {
        "contaminated": pa.array(found[:, 0].astype(np.int32)),
        "contaminated_text": pa.array(shared, pa.string()),
    }


@kernel
def _prefixes(words: np.ndarray, count: int, prefix: np.ndarray, powers: np.ndarray) -> None:
    prefix[0] = np.uint64(0)
    powers[0] = np.uint64(1)
    for index in range(count):
        prefix[index + 1] = prefix[index] * _BASE + words[index]
        powers[index + 1] = powers[index] * _BASE


@kernel
def _is_character(data: np.ndarray, spans: np.ndarray, word: int) -> bool:
    return data[spans[word, 0]] >= 0xE3 and spans[word, 1] - spans[word, 0] <= 4


@kernel
def _run_ends(
    data: np.ndarray, spans: np.ndarray, count: int, words: int, characters: int, ends: np.ndarray
) -> int:
    """Writes where the run from each word ends, and gives how many words have one."""
    weight = 0
    end = 0
    for begin in range(count):
        while end < count and weight < words * characters:
            weight += words if _is_character(data, spans, end) else characters
            end += 1
        if weight < words * characters:
            return begin
        ends[begin] = end
        weight -= words if _is_character(data, spans, begin) else characters
    return count


@kernel
def _longest(offsets: np.ndarray) -> int:
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@kernel
def runs_of(
    data: np.ndarray, offsets: np.ndarray, words: int, characters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the hash of every run of every text, and the number of its text."""
    size = _longest(offsets) + 1
    hashes = np.empty(size, np.uint64)
    spans = np.empty((size, 2), np.int64)
    ends = np.empty(size, np.int64)
    prefix = np.empty(size + 1, np.uint64)
    powers = np.empty(size + 1, np.uint64)
    keys = np.empty(len(data) + 1, np.uint64)
    owners = np.empty(len(data) + 1, np.int64)
    total = 0
    for text in range(len(offsets) - 1):
        count = words_of(data, offsets[text], offsets[text + 1], hashes, spans)
        _prefixes(hashes, count, prefix, powers)
        for begin in range(_run_ends(data, spans, count, words, characters, ends)):
            end = ends[begin]
            keys[total] = (prefix[end] - prefix[begin] * powers[end - begin]) | np.uint64(1)
            owners[total] = text
            total += 1
    return keys[:total], owners[:total]


@kernel
def _fill(table: np.ndarray, owner: np.ndarray, keys: np.ndarray, owners: np.ndarray) -> None:
    mask = len(table) - 1
    for index in range(len(keys)):
        place = np.int64((keys[index] >> np.uint64(20)) & np.uint64(mask))
        while table[place] != 0:
            place = (place + 1) & mask
        table[place] = keys[index]
        owner[place] = owners[index]


@kernel
def _matches(
    data: np.ndarray,
    offsets: np.ndarray,
    words: int,
    characters: int,
    table: np.ndarray,
    owner: np.ndarray,
) -> np.ndarray:
    """Gives for each text the evaluation text it shares its first run with, and where, or -1."""
    size = _longest(offsets) + 1
    hashes = np.empty(size, np.uint64)
    spans = np.empty((size, 2), np.int64)
    ends = np.empty(size, np.int64)
    prefix = np.empty(size + 1, np.uint64)
    powers = np.empty(size + 1, np.uint64)
    mask = len(table) - 1
    out = np.full((len(offsets) - 1, 3), -1, np.int64)
    for text in range(len(offsets) - 1):
        count = words_of(data, offsets[text], offsets[text + 1], hashes, spans)
        _prefixes(hashes, count, prefix, powers)
        for begin in range(_run_ends(data, spans, count, words, characters, ends)):
            end = ends[begin]
            key = (prefix[end] - prefix[begin] * powers[end - begin]) | np.uint64(1)
            place = np.int64((key >> np.uint64(20)) & np.uint64(mask))
            while table[place] != 0 and table[place] != key:
                place = (place + 1) & mask
            if table[place] == key:
                out[text, 0] = owner[place]
                out[text, 1] = spans[begin, 0]
                out[text, 2] = spans[end - 1, 1]
                break
    return out
