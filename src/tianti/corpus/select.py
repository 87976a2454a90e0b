"""Which documents stay, and in which split: told from columns of fixed width, never from text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tianti.corpus.config import CorpusConfig
from tianti.corpus.filters import failing_rules, statistics_needed
from tianti.corpus.kernels import spread
from tianti.corpus.lsh import Signatures, banding, near_duplicate_clusters
from tianti.corpus.prepared import prepared_path, read_columns
from tianti.errors import os_errors_named

KEPT = -1
_SPLIT_RANK = {"test": 0, "validation": 1, "train": 2, None: 2}


@dataclass
class Selection:
    """What becomes of every document, in the order of the parts.

    Args:
        fate: number of the reason it is dropped for, or `KEPT`.
        reasons: the reasons.
        cluster: place of the document that stands for its cluster; its own where it is alone.
        kind: how it is a duplicate: 0 not, 1 exact, 2 near, 3 in meaning.
        key: first 52 bits of the smallest id of its cluster over 2^52: decides the split.
        ids: hexadecimal ids.
        starts: place of the first document of each part, and the total.
    """

    fate: np.ndarray
    reasons: list[str]
    cluster: np.ndarray
    kind: np.ndarray
    key: np.ndarray
    ids: pa.ChunkedArray
    starts: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def of_part(self, number: int) -> slice:
        """Gives the places of the documents of one part."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))


def select(
    config: CorpusConfig,
    folder: Path,
    names: list[str],
    on_step: Callable[[str], None] = lambda step: None,
) -> Selection:
    """Decides over all documents.

    Args:
        config: the steps.
        folder: what `prepare` wrote.
        names: its parts that hold documents, in order.
        on_step: called with the name of each step before it is taken.
    """
    wanted = _wanted(config)
    tables = [read_columns(prepared_path(folder, name), wanted) for name in names]
    rows = [part.num_rows for part in tables]
    table = pa.concat_tables(tables)
    count = table.num_rows
    columns = {
        name: table[name].to_numpy() for name in table.column_names if _is_number(table, name)
    }
    chosen = Selection(
        fate=np.full(count, KEPT, np.int16),
        reasons=[],
        cluster=np.arange(count),
        kind=np.zeros(count, np.int8),
        key=np.zeros(count),
        ids=table["id"],
        starts=np.concatenate([[0], np.cumsum(rows)]).astype(np.int64),
        columns=columns,
    )
    hashes = id_hashes(table["id"])
    on_step("filter")
    _filter(chosen, table, config)
    on_step("dedup")
    best = _best_first(table, columns, hashes, config)
    if config.dedup.exact:
        _drop_exact(chosen, hashes, best)
    roots = _near_clusters(chosen, folder, names, config)
    if roots is not None and config.dedup.near is True:
        _drop_worse(chosen, roots, best, "near_duplicate", 2)
    if config.dedup.embeddings is not None:
        from tianti.corpus.semantic import semantic_clusters

        alike = semantic_clusters(folder, names, config.dedup, chosen.fate == KEPT)
        _drop_worse(chosen, alike, best, "semantic_duplicate", 3)
    chosen.key = _keys(hashes, chosen.cluster if roots is None else roots)
    return chosen


def _wanted(config: CorpusConfig) -> list[str]:
    names = ["id", "split", "bytes", "chars", "visible", "cjk_bytes"]
    if config.languages.keep is not None:
        names.append("language")
    if config.decontaminate.against:
        names.append("contaminated")
    if config.quality.classifier is not None:
        names.append("quality")
    if config.quality.perplexity is not None:
        names.append("bits_per_byte")
    return names + [name for name in statistics_needed(config.quality) if name not in names]


def _is_number(table: pa.Table, name: str) -> bool:
    kind = table[name].type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def id_hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """Gives the first 64 bits of hexadecimal ids as numbers."""
    out = []
    for chunk in ids.chunks:
        data = np.frombuffer(chunk.buffers()[2], np.uint8)
        offset = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset]
        digits = data[offset : offset + 32 * len(chunk)].reshape(-1, 32)[:, :16]
        halves = np.where(digits >= 97, digits - 87, digits - 48)
        whole = np.ascontiguousarray(halves[:, ::2] << 4 | halves[:, 1::2])
        out.append(whole.view(">u8").reshape(-1).astype(np.uint64))
    return np.concatenate(out) if out else np.zeros(0, np.uint64)


def _drop(chosen: Selection, which: np.ndarray, reason: str) -> None:
    which = which & (chosen.fate == KEPT)
    if which.any():
        if reason not in chosen.reasons:
            chosen.reasons.append(reason)
        chosen.fate[which] = chosen.reasons.index(reason)


def _filter(chosen: Selection, table: pa.Table, config: CorpusConfig) -> None:
    columns = chosen.columns
    _drop(chosen, columns["visible"] < config.min_chars, "too_short")
    if config.languages.keep is not None:
        import pyarrow.compute as pc

        kept = pc.is_in(table["language"], value_set=pa.array(config.languages.keep))
        _drop(chosen, ~kept.to_numpy(), "other_language")
    if config.quality.filters:
        chinese = columns["cjk_bytes"] > 0.3 * columns["bytes"]
        failed, names = failing_rules(columns, config.quality, chinese)
        for number, name in enumerate(names):
            _drop(chosen, failed == number, name)
    if (learned := config.quality.classifier) is not None:
        _drop(chosen, columns["quality"] < learned.minimum, "low_quality")
    if (likely := config.quality.perplexity) is not None:
        if likely.maximum is not None:
            _drop(chosen, columns["bits_per_byte"] > likely.maximum, "unlikely_text")
        if likely.minimum is not None:
            _drop(chosen, columns["bits_per_byte"] < likely.minimum, "predictable_text")
    if config.decontaminate.against and config.decontaminate.action == "drop":
        _drop(chosen, columns["contaminated"] >= 0, "in_evaluation_set")


def _best_first(
    table: pa.Table, columns: dict[str, np.ndarray], hashes: np.ndarray, config: CorpusConfig
) -> np.ndarray:
    """Gives the rank of each document, 0 the best: held-out first, then long or early ones."""
    splits = table["split"].to_pylist() if table["split"].null_count < table.num_rows else None
    held = np.array([_SPLIT_RANK[split] for split in splits]) if splits else np.zeros(len(hashes))
    place = np.arange(len(hashes))
    keys: tuple[np.ndarray, ...] = (place, held)
    if config.dedup.keep == "longest":
        better = [-columns["chars"]]
        if "quality" in columns:
            better.append(-columns["quality"])
        keys = (place, hashes, *better, held)
    order = np.lexsort(keys)
    rank = np.empty(len(order), np.int64)
    rank[order] = place
    return rank


def _drop_exact(chosen: Selection, hashes: np.ndarray, best: np.ndarray) -> None:
    """Drops all but the best of documents with one text; 64 bits of the hash, then all of it."""
    kept = np.flatnonzero(chosen.fate == KEPT)
    order = kept[np.lexsort((best[kept], hashes[kept]))]
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    if not len(same):
        return
    ids = chosen.ids.take(pa.array(np.concatenate([order[same], order[same - 1]]))).to_pylist()
    alike = np.array([a == b for a, b in zip(ids[: len(same)], ids[len(same) :], strict=True)])
    same = same[alike]
    starts = _others(len(order), same)
    first = order[starts[np.searchsorted(starts, same, side="right") - 1]]
    which = np.zeros(len(hashes), bool)
    which[order[same]] = True
    chosen.cluster[order[same]] = first
    chosen.kind[order[same]] = 1
    _drop(chosen, which, "exact_duplicate")


def _others(count: int, places: np.ndarray) -> np.ndarray:
    """Gives all places but these."""
    left = np.ones(count, bool)
    left[places] = False
    return np.flatnonzero(left)


def _near_clusters(
    chosen: Selection, folder: Path, names: list[str], config: CorpusConfig
) -> np.ndarray | None:
    """Gives for each document the smallest place in its cluster; None where none were asked for."""
    if config.dedup.near is False:
        return None
    signatures = Signatures([folder / f"{name}.signatures.npy" for name in names])
    roots = near_duplicate_clusters(
        signatures, banding(config.dedup.similarity), chosen.fate == KEPT
    )
    # An exact duplicate lies where the one it repeats does.
    again = chosen.kind == 1
    roots[again] = roots[chosen.cluster[again]]
    return roots


def _drop_worse(
    chosen: Selection, roots: np.ndarray, best: np.ndarray, reason: str, kind: int
) -> None:
    """Drops all but the best of each cluster."""
    kept = np.flatnonzero(chosen.fate == KEPT)
    order = kept[np.lexsort((best[kept], roots[kept]))]
    ordered = roots[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    starts = _others(len(order), same)
    worse = order[same]
    chosen.cluster[worse] = order[starts[np.searchsorted(starts, same, side="right") - 1]]
    chosen.kind[worse] = kind
    which = np.zeros(len(chosen.fate), bool)
    which[worse] = True
    _drop(chosen, which, reason)


def _keys(hashes: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Gives a number in [0, 1) for each document that only the content of its cluster decides."""
    least = hashes.copy()
    np.minimum.at(least, roots, hashes)
    value = least[roots]
    # The least of several numbers is a small one: it is spread over all of them again.
    several = np.bincount(roots, minlength=len(roots))[roots] > 1
    value[several] = spread(value[several])
    return (value >> np.uint64(12)) / 2.0**52


def write_clusters(chosen: Selection, folder: Path, names: list[str], path: Path) -> int:
    """Writes who repeats whom: `id` and `origin` of each duplicate and of the one kept for it.

    Args:
        chosen: what was decided.
        folder: what `prepare` wrote.
        names: its parts that hold documents, in order.
        path: Parquet file with `id`, `origin`, `cluster` (id of the one kept), `kept_origin` and
            `kind` (`exact`, `near` or `semantic`).

    Returns:
        How many duplicates there are.
    """
    places = np.flatnonzero(chosen.kind > 0)
    heads = chosen.cluster[places]
    # A head may itself have been dropped later for another that it nearly repeats.
    while (moved := chosen.cluster[heads] != heads).any():
        heads[moved] = chosen.cluster[heads[moved]]
    kinds = pa.array(["", "exact", "near", "semantic"])
    named, origins = _origins(chosen, folder, names, np.unique(np.concatenate([places, heads])))
    table = pa.table(
        {
            "id": chosen.ids.take(pa.array(places)).cast(pa.string()),
            "origin": origins.take(pa.array(np.searchsorted(named, places))),
            "cluster": chosen.ids.take(pa.array(heads)).cast(pa.string()),
            "kept_origin": origins.take(pa.array(np.searchsorted(named, heads))),
            "kind": kinds.take(pa.array(chosen.kind[places].astype(np.int64))),
        }
    )
    with os_errors_named(path):
        pq.write_table(table, path, compression="zstd")
    return len(places)


def _origins(
    chosen: Selection, folder: Path, names: list[str], places: np.ndarray
) -> tuple[np.ndarray, pa.Array]:
    """Gives places, sorted, and the origin of the document at each, read part by part."""
    found = [pa.array([], pa.string())]
    for number, name in enumerate(names):
        here = chosen.of_part(number)
        mine = places[(places >= here.start) & (places < here.stop)] - here.start
        if len(mine):
            origins = read_columns(prepared_path(folder, name), ["origin"])["origin"].chunk(0)
            found.append(origins.take(pa.array(mine)))
    return places, pa.concat_arrays(found)


def read_manifests(folder: Path) -> list[dict[str, Any]]:
    """Gives the manifests of all groups of a prepared folder, in order."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("[0-9]*.json"))]
