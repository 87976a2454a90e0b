"""A corpus at a glance: languages, lengths, common phrases, quality, clusters of duplicates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tianti.corpus.kernels import text_buffers
from tianti.corpus.minhash import words_of
from tianti.corpus.split import LATE, SPLITS
from tianti.corpus.table import count_documents, parts, read_batches, text_bytes
from tianti.errors import UserError, os_errors_named
from tianti.messages import tr

OVERVIEW = "overview.json"
_SAMPLE_BYTES = 4 << 20
_DETECTED = 300
_MEASURED = 5_000
_PHRASE_WORDS = 4
_PHRASES = 20
_CLUSTERS = 20
_TEXT_CHARS = 400
# What tells most of quality, in the order it is shown.
STATISTICS = (
    "words",
    "mean_word_length",
    "stop_words",
    "alpha_words",
    "punctuated_lines",
    "dup_line_chars",
    "top_2_gram",
    "dup_5_gram",
    "han_share",
    "han_per_stop",
)


def overview(folder: Path, *, measure: bool = True) -> dict[str, Any]:
    """Looks a corpus over: a run's `corpus` folder, what `sift` wrote, or Parquet files with texts.

    Args:
        folder: the corpus.
        measure: take the statistics that quality rules look at, of some thousand documents.

    Returns:
        `documents`, `bytes`, `splits`, `sources`, `languages`, `lengths` (a histogram), `phrases`
        (the commonest runs of words), `quality` (histograms), `clusters`, and samples `kept` and
        `dropped`. What is told from a part of the text carries `sampled_documents`.

    Raises:
        UserError: there are no documents.
    """
    try:
        return _looked_over(folder, measure)
    except pa.ArrowException as error:
        raise UserError(
            tr("this is not a readable Parquet file ({reason})", reason=error),
            where=folder,
            remedy=tr("Give the corpus folder of a run, or what tianti corpus dedup wrote"),
        ) from error


def _looked_over(folder: Path, measure: bool) -> dict[str, Any]:
    tables = _tables(folder)
    if not tables:
        raise UserError(
            tr("there is no corpus here"),
            where=folder,
            remedy=tr("Give the corpus folder of a run, or what tianti corpus dedup wrote"),
        )
    sample = _sample(list(tables.values()))
    sample = [row for row in sample if isinstance(row["text"], str)]
    texts = pa.array([row["text"] for row in sample], pa.large_string())
    return {
        "documents": sum(count_documents(path) for path in tables.values()),
        "bytes": sum(text_bytes(path) for path in tables.values()),
        "splits": {name: count_documents(path) for name, path in tables.items()},
        "sources": _counts(tables, "source"),
        "languages": _languages(tables, sample),
        "lengths": histogram(
            np.array([len(row["text"]) for row in sample], np.float64), logarithmic=True
        ),
        "phrases": phrases(texts),
        "quality": _quality(texts.slice(0, _MEASURED)) if measure else {},
        "clusters": _clusters(folder, tables),
        "kept": _lines(folder / "kept.jsonl")[:12],
        "dropped": _dropped(folder / "dropped.jsonl"),
        "sampled_documents": len(sample),
    }


def _tables(folder: Path) -> dict[str, Path]:
    found = {
        name: folder / name
        for name in (*SPLITS, LATE, "documents")
        if (folder / name).is_dir() and parts(folder / name)
    }
    if not found and folder.exists() and parts(folder) and all(p.is_file() for p in parts(folder)):
        found = {"documents": folder}
    return found


def _sample(paths: list[Path]) -> list[dict[str, Any]]:
    """Gives rows spread evenly over all tables, about `_SAMPLE_BYTES` of them."""
    share = min(1.0, _SAMPLE_BYTES / max(sum(text_bytes(path) for path in paths), 1))
    credit, rows = 0.0, []
    for path in paths:
        for batch in read_batches(path):
            names = set(batch.schema.names)
            if "text" not in names:
                raise UserError(tr("there is no column text"), where=path)
            chosen = []
            for row in range(batch.num_rows):
                credit += share
                if credit >= 1.0 - 1e-9:
                    credit -= 1.0
                    chosen.append(row)
            wanted = [name for name in ("text", "language", "origin") if name in names]
            rows += batch.select(wanted).take(pa.array(chosen, pa.int64())).to_pylist()
    return rows


def _counts(tables: dict[str, Path], column: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for path in tables.values():
        for part in parts(path):
            if column in pq.read_schema(part).names:
                for batch in pq.ParquetFile(part).iter_batches(columns=[column]):
                    found = batch.column(0).value_counts()
                    counts.update(
                        {row["values"]: row["counts"] for row in found.to_pylist() if row["values"]}
                    )
    return dict(counts.most_common())


def _languages(tables: dict[str, Path], sample: list[dict[str, Any]]) -> dict[str, int]:
    """Gives documents by language; where none was told, of some hundred documents."""
    if known := _counts(tables, "language"):
        return known
    from tianti.corpus.language import detect_language

    every = max(1, len(sample) // _DETECTED)
    codes = [detect_language(row["text"], thorough=False).code for row in sample[::every]]
    return dict(Counter(codes).most_common())


def histogram(values: np.ndarray, logarithmic: bool = False, bins: int = 30) -> dict[str, Any]:
    """Gives `edges` and `counts` of values, and their `median` and `mean`; numbers only."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"edges": [], "counts": [], "median": None, "mean": None}
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        edges = np.geomspace(max(low, 1.0), max(high, 2.0) + 1, bins + 1)
        counts, _ = np.histogram(np.maximum(values, 1.0), edges)
    else:
        counts, edges = np.histogram(values, bins, (low, high if high > low else low + 1))
    return {
        "edges": [float(f"{edge:.6g}") for edge in edges],
        "counts": counts.tolist(),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
    }


def phrases(texts: pa.Array, size: int = _PHRASE_WORDS, most: int = _PHRASES) -> list[dict]:
    """Gives the runs of words that stand in most documents, with the number of these.

    Args:
        texts: the texts.
        size: words to a run; a Chinese character is a word.
        most: how many are given.
    """
    data, offsets = text_buffers(texts)
    keys, places = [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.int64)]
    for text in range(len(offsets) - 1):
        start, stop = int(offsets[text]), int(offsets[text + 1])
        words = np.empty(stop - start + 1, np.uint64)
        spans = np.empty((stop - start + 1, 2), np.int64)
        count = words_of(data, start, stop, words, spans)
        if count < size:
            continue
        value = np.zeros(count - size + 1, np.uint64)
        with np.errstate(over="ignore"):
            for place in range(size):
                value = (
                    value * np.uint64(0x9E3779B97F4A7C15) + words[place : count - size + 1 + place]
                )
        value, first = np.unique(value, return_index=True)
        keys.append(value)
        places.append(np.stack([spans[first, 0], spans[first + size - 1, 1]], axis=1))
    every, spans = np.concatenate(keys), np.concatenate(places)
    _, first, counts = np.unique(every, return_index=True, return_counts=True)
    found: list[dict] = []
    seen: set[str] = set()
    for n in np.argsort(-counts, kind="stable")[: 50 * most]:
        phrase = bytes(data[spans[first[n], 0] : spans[first[n], 1]]).decode("utf-8", "replace")
        pieces = {phrase[place : place + 3] for place in range(len(phrase) - 2)}
        # One long phrase would fill the list with its parts.
        if counts[n] < 2 or len(found) == most or 2 * len(pieces & seen) > len(pieces):
            continue
        seen |= pieces
        found.append({"text": phrase, "documents": int(counts[n])})
    return found


def quality_histograms(
    columns: dict[str, np.ndarray], thresholds: dict[str, list[float]]
) -> dict[str, Any]:
    """Gives histograms of the statistics that rules look at, with the rules' `thresholds`."""
    return {
        name: histogram(columns[name].astype(float)) | {"thresholds": marks}
        for name, marks in thresholds.items()
    }


def _quality(texts: pa.Array) -> dict[str, Any]:
    from tianti.corpus.statistics import document_statistics

    columns = document_statistics(texts)
    return {name: histogram(columns[name].to_numpy().astype(float)) for name in STATISTICS}


def _clusters(folder: Path, tables: dict[str, Path]) -> list[dict[str, Any]]:
    """Gives the largest clusters: what was kept, how many repeat it, and where they stood."""
    path = folder / "clusters.parquet"
    if not path.is_file():
        return []
    with os_errors_named(path):
        table = pq.read_table(path, columns=["cluster", "kept_origin", "origin", "kind"])
    sizes = Counter(table["cluster"].to_pylist())
    wanted = dict(sizes.most_common(_CLUSTERS))
    members: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        if row["cluster"] in wanted:
            cluster = members.setdefault(
                row["cluster"],
                {"kept": row["kept_origin"], "documents": 1, "kinds": {}, "origins": []},
            )
            cluster["documents"] += 1
            cluster["kinds"][row["kind"]] = cluster["kinds"].get(row["kind"], 0) + 1
            if len(cluster["origins"]) < 5:
                cluster["origins"].append(row["origin"])
    texts = _texts_of(tables, set(members))
    for identity, cluster in members.items():
        cluster["text"] = texts.get(identity, "")
    return sorted(members.values(), key=lambda cluster: -cluster["documents"])


def _texts_of(tables: dict[str, Path], ids: set[str]) -> dict[str, str]:
    import pyarrow.compute as pc

    found: dict[str, str] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for part in _all_parts(tables):
        for batch in pq.ParquetFile(part).iter_batches(batch_size=1024, columns=["id", "text"]):
            hits = batch.filter(pc.is_in(batch.column("id"), value_set=wanted))
            found |= {row["id"]: row["text"][:_TEXT_CHARS] for row in hits.to_pylist()}
    return found


def _all_parts(tables: dict[str, Path]) -> Iterator[Path]:
    for path in tables.values():
        for part in parts(path):
            if "id" in pq.read_schema(part).names:
                yield part


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    # Not splitlines: it cuts at characters that JSON strings may hold.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _dropped(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Gives some samples for each reason."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in _lines(path):
        of_reason = found.setdefault(row["reason"], [])
        if len(of_reason) < 6:
            of_reason.append(row)
    return found
