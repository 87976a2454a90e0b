"""Whether a test item stands in the training text: runs of words that both share.

Runs are those that keep evaluation text out of a corpus (`tianti.corpus.decontaminate`): 13 words
or 20 Chinese characters. Those of the training text are kept once as a Bloom filter (Bloom 1970) of
24 bits a run, so that of runs that do not stand there one in 25,000 seems to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tianti.corpus.decontaminate import runs_of
from tianti.corpus.kernels import kernel, mix, text_buffers
from tianti.corpus.table import read_batches, text_bytes
from tianti.files import MANIFEST, Damaged, read_json, save_npy, sha256_file, write_json
from tianti.progress import SILENT, Display

WORDS, CHARACTERS = 13, 20
FILTER, ABOUT = "training-runs.npy", "training-runs.json"
VERSION = 1
_HASHES = 8
_BITS_PER_RUN, _BYTES_PER_RUN = 24, 4
_LEAST_BITS, _MOST_BITS = 1 << 13, 1 << 36


class TrainingText:
    """The runs of a training text, for asking whether others are among them.

    Args:
        bits: the filter, uint64; its length is a power of two.
        identity: a hash of what it was made of.
    """

    def __init__(self, bits: np.ndarray, identity: str):
        self._bits, self.identity = bits, identity

    @classmethod
    def of_corpus(cls, corpus: Path, folder: Path, display: Display = SILENT) -> TrainingText:
        """Gives the runs of a corpus' training split, made where they are not kept.

        Args:
            corpus: the table of training documents.
            folder: where the filter is kept.
            display: shows progress.
        """
        about = corpus.parent / MANIFEST
        if about.is_file():
            # It holds the hashes of all files: a copy of a run is the same text.
            told = sha256_file(about)
        else:
            files = [path.stat() for path in sorted(corpus.rglob("*"))]
            told = str([(one.st_size, one.st_mtime_ns) for one in files])
        state = hashlib.sha256(f"{VERSION} {told}".encode()).hexdigest()[:16]
        try:
            if read_json(folder / ABOUT)["made_of"] == state:
                return cls(np.load(folder / FILTER, mmap_mode="r", allow_pickle=False), state)
        except (Damaged, OSError, ValueError, KeyError):
            pass
        made = cls.of_batches(
            (b.column(0) for b in read_batches(corpus, ["text"])),
            text_bytes(corpus),
            state,
            display,
        )
        save_npy(folder / FILTER, made._bits)
        write_json(folder / ABOUT, {"made_of": state})
        return made

    @classmethod
    def of_batches(
        cls, batches: Iterable[pa.Array], size: int, identity: str, display: Display = SILENT
    ) -> TrainingText:
        """Gives the runs of texts.

        Args:
            batches: columns of texts.
            size: about how many bytes they hold.
            identity: see the class.
            display: shows progress.
        """
        wanted = size // _BYTES_PER_RUN * _BITS_PER_RUN
        bits = _LEAST_BITS
        while bits < min(wanted, _MOST_BITS):
            bits *= 2
        filled = np.zeros(bits // 64, np.uint64)
        with display.task("training runs", size, "B") as task:
            for texts in batches:
                data, offsets = text_buffers(texts)
                keys, _ = runs_of(data, offsets, WORDS, CHARACTERS)
                _insert(filled, keys)
                task.advance(int(offsets[-1] - offsets[0]) if len(offsets) else 0)
        return cls(filled, identity)

    def shares(self, items: Sequence[Sequence[str]]) -> list[float | None]:
        """Gives for each item the share of its runs that stand in the training text.

        Args:
            items: the texts of each item.

        Returns:
            A share for each; None where an item is too short to have a run.
        """
        texts = [text for item in items for text in item]
        owners = np.repeat(np.arange(len(items)), [len(item) for item in items])
        data, offsets = text_buffers(pa.array(texts, pa.large_string()))
        keys, places = runs_of(data, offsets, WORDS, CHARACTERS)
        found = _contained(self._bits, keys)
        runs = np.bincount(owners[places], minlength=len(items))
        hits = np.bincount(owners[places], weights=found, minlength=len(items))
        return [
            hit / run if run else None
            for hit, run in zip(hits.tolist(), runs.tolist(), strict=True)
        ]


@kernel
def _insert(bits: np.ndarray, keys: np.ndarray) -> None:
    mask = np.uint64(len(bits) * 64 - 1)
    for index in range(len(keys)):
        step = mix(keys[index]) | np.uint64(1)
        place = mix(keys[index] + np.uint64(0x9E3779B97F4A7C15))
        for _ in range(_HASHES):
            bit = place & mask
            bits[np.int64(bit >> np.uint64(6))] |= np.uint64(1) << (bit & np.uint64(63))
            place += step


@kernel
def _contained(bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    mask = np.uint64(len(bits) * 64 - 1)
    found = np.ones(len(keys), np.bool_)
    for index in range(len(keys)):
        step = mix(keys[index]) | np.uint64(1)
        place = mix(keys[index] + np.uint64(0x9E3779B97F4A7C15))
        for _ in range(_HASHES):
            bit = place & mask
            if not (bits[np.int64(bit >> np.uint64(6))] >> (bit & np.uint64(63))) & np.uint64(1):
                found[index] = False
                break
            place += step
    return found
