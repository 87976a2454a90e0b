"""Lines that stand in many documents: menus, notices and quotes that all pages of a site carry.

Told by their hashes alone, in a first pass over all groups; the second pass takes them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.clean import clean_texts
from tianti.corpus.config import PrepareConfig, Source
from tianti.corpus.document import BadInput
from tianti.corpus.groups import Group, wants_all_sources
from tianti.corpus.kernels import kernel, mix, text_buffers
from tianti.files import save_npz

FUNCTION = "tianti.corpus.lines:count_lines"
_BOILERPLATE = "boilerplate.npz"
_REPEATED = "repeated.npz"
# Shorter ones (a closing bracket, "Yes.") are common without being boilerplate.
_MIN_CHARS = 10


def wants_lines(config: PrepareConfig) -> bool:
    """Tells whether lines are to be taken out."""
    return wants_all_sources(config)


def find_lines(
    config: PrepareConfig, groups: list[Group], folder: Path, runner: str, workers: int
) -> None:
    """Writes which lines are too common: in one source, and in all of them.

    Args:
        config: how common is too common.
        groups: all groups, in order.
        folder: where to.
        runner: `native` or `ray`.
        workers: processes.
    """
    from tianti.corpus.engine import run_tasks

    scratch = folder / "lines"
    scratch.mkdir(parents=True, exist_ok=True)
    tasks = [
        {**group.task, "scratch": str(scratch)}
        for group in groups
        # Of an earlier run that was killed: the name holds a hash of all that decides.
        if not (scratch / f"{group.name}.npz").is_file()
    ]
    run_tasks(FUNCTION, tasks, runner=runner, workers=workers)
    found = [np.load(scratch / f"{group.name}.npz") for group in groups]
    hashes = np.concatenate([part["hashes"] for part in found])
    counts = np.concatenate([part["counts"] for part in found])
    owners = np.repeat(np.arange(len(groups)), [len(part["hashes"]) for part in found])
    names = [group.task["source"]["path"] or group.task["source"]["builtin"] for group in groups]
    of_group = np.unique(names, return_inverse=True)[1]
    if config.clean.boilerplate_lines is not None:
        common = [
            _common(hashes[here], counts[here], config.clean.boilerplate_lines)
            for source in range(of_group.max() + 1)
            for here in [of_group[owners] == source]
        ]
        arrays: dict[str, Any] = {str(number): found for number, found in enumerate(common)}
        save_npz(folder / _BOILERPLATE, of_group=of_group, **arrays)
    if config.dedup.lines is not None:
        repeated = _common(hashes, counts, config.dedup.lines)
        first = np.full(len(repeated), len(groups))
        here = np.isin(hashes, repeated)
        np.minimum.at(first, np.searchsorted(repeated, hashes[here]), owners[here])
        save_npz(folder / _REPEATED, hashes=repeated, first=first)


def _common(hashes: np.ndarray, counts: np.ndarray, least: int) -> np.ndarray:
    """Gives the hashes, sorted, that stand in at least so many documents."""
    unique, places = np.unique(hashes, return_inverse=True)
    return unique[np.bincount(places, weights=counts, minlength=len(unique)) >= least]


def count_lines(task: dict[str, Any]) -> None:
    """Writes the hashes of a group's lines and in how many of its documents each stands."""
    from tianti.corpus.prepare import read_batches

    source = Source.model_validate(task["source"])
    config = PrepareConfig.model_validate({**task["settings"], "sources": []})
    bad: list[BadInput] = []
    found = []
    for batch in read_batches(task["files"], source, config, bad):
        lines = line_hashes(clean_texts(batch.texts, config.clean).column)
        pairs = np.unique(np.stack([lines.hashes, lines.texts.astype(np.uint64)]), axis=1)
        found.append(pairs[0])
    hashes, counts = np.unique(
        np.concatenate(found or [np.zeros(0, np.uint64)]), return_counts=True
    )
    save_npz(Path(task["scratch"]) / f"{task['name']}.npz", hashes=hashes, counts=counts)


@dataclass(frozen=True)
class Lines:
    """The lines of texts that are long enough: `hashes`, and the number of the text of each."""

    hashes: np.ndarray
    texts: np.ndarray
    numbers: np.ndarray


def line_hashes(texts: pa.Array) -> Lines:
    """Gives the hashes of the lines of texts, blanks at their ends left out."""
    data, offsets = text_buffers(texts)
    hashes, owners, numbers = _hashes(data, offsets, _MIN_CHARS)
    return Lines(hashes, owners, numbers)


@dataclass(frozen=True)
class LineFilter:
    """Which lines go from the documents of one group.

    Args:
        boilerplate: hashes, sorted, of lines that all go.
        repeated: hashes, sorted, of lines that stay where they come first.
        mine: which of those come first in this group.
        seen: those that this group has had.
    """

    boilerplate: np.ndarray
    repeated: np.ndarray
    mine: np.ndarray
    seen: set[int]

    @classmethod
    def load(cls, folder: Path, name: str, number: int) -> LineFilter:
        """Reads what `find_lines` wrote, for the group of a number."""
        boilerplate = repeated = np.zeros(0, np.uint64)
        mine = np.zeros(0, bool)
        if (folder / _BOILERPLATE).is_file():
            with np.load(folder / _BOILERPLATE) as common:
                boilerplate = common[str(common["of_group"][number])]
        if (folder / _REPEATED).is_file():
            with np.load(folder / _REPEATED) as common:
                repeated, mine = common["hashes"], common["first"] == number
        return cls(boilerplate, repeated, mine, set())

    def without(self, column: pa.Array) -> pa.Array:
        """Gives the texts without the lines that go."""
        lines = line_hashes(column)
        goes = np.isin(lines.hashes, self.boilerplate)
        for place in np.flatnonzero(np.isin(lines.hashes, self.repeated)).tolist():
            value = int(lines.hashes[place])
            first = self.mine[np.searchsorted(self.repeated, lines.hashes[place])]
            if first and value not in self.seen:
                self.seen.add(value)
            else:
                goes[place] = True
        if not goes.any():
            return column
        out = column.to_pylist()
        for text in np.unique(lines.texts[goes]).tolist():
            dropped = set(lines.numbers[goes & (lines.texts == text)].tolist())
            kept = [line for n, line in enumerate(out[text].split("\n")) if n not in dropped]
            out[text] = "\n".join(kept).strip("\n")
        return pa.array(out, pa.large_string())


@kernel
def _hashes(
    data: np.ndarray, offsets: np.ndarray, min_chars: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    total = 0
    for text in range(len(offsets) - 1):
        total += 1
        for at in range(offsets[text], offsets[text + 1]):
            total += data[at] == 0x0A
    hashes = np.empty(total, np.uint64)
    owners = np.empty(total, np.int64)
    numbers = np.empty(total, np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        start, stop = offsets[text], offsets[text + 1]
        number = 0
        begin = start
        while begin <= stop:
            end = begin
            while end < stop and data[end] != 0x0A:
                end += 1
            first, last = begin, end
            while first < last and data[first] <= 0x20:
                first += 1
            while last > first and data[last - 1] <= 0x20:
                last -= 1
            chars = 0
            value = np.uint64(0)
            for at in range(first, last):
                chars += data[at] & 0xC0 != 0x80
                value = (value + np.uint64(data[at]) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
                value ^= value >> np.uint64(29)
            if chars >= min_chars:
                hashes[count] = mix(value)
                owners[count] = text
                numbers[count] = number
                count += 1
            number += 1
            begin = end + 1
    return hashes[:count], owners[:count], numbers[:count]
