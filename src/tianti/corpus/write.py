"""Prepared documents and what was decided of them → the tables of the splits, part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.document import content_id
from tianti.corpus.measures import NAMES as MEASURES
from tianti.corpus.measures import measures
from tianti.corpus.prepared import prepared_path, read_tables
from tianti.corpus.rules import STATISTICS
from tianti.corpus.split import LATE, SPLITS, Dealing, cut_sections
from tianti.corpus.table import SCHEMA, TableWriter
from tianti.files import fsync_folder

FUNCTION = "tianti.corpus.write:write_part"
SAMPLES_PER_REASON = 50
_SAMPLE_CHARS = 500
# Columns that steps need and nobody after them.
_MEASURES = {*MEASURES, "contaminated", "contaminated_text", "quality", "bits_per_byte"}


@dataclass(frozen=True)
class Plan:
    """How parts are written, the same for all of them.

    Args:
        documents: folder of the prepared parts.
        out: where the splits go.
        reasons: names of the reasons of `fate`.
        limit: length of the sections that documents are cut into, or None.
        dealing: which split a document goes to; None writes all to `documents`.
        augment: changed copies of training documents.
        rewriter: `module:function` that has a model rewrite texts.
    """

    documents: str
    out: str
    reasons: list[str]
    limit: int | None
    dealing: dict[str, Any] | None
    augment: list[dict[str, Any]]
    rewriter: str | None = None

    def task(self, name: str, number: int, decisions: str) -> dict[str, Any]:
        """Gives the task of one part; `number` is the name of what is written."""
        return {
            "name": name,
            "written": f"{number:06d}",
            "decisions": decisions,
            "plan": self.__dict__,
        }


def write_part(task: dict[str, Any]) -> dict[str, Any]:
    """Writes one part's share of every split.

    Args:
        task: `name` of the part, `written` (name of its share), `decisions` (file of fate and key
            of each document) and `plan`.

    Returns:
        Totals of the splits, of the sources, of what was dropped, and samples of it.
    """
    plan = Plan(**task["plan"])
    name = task["name"]
    decisions = np.load(task["decisions"])
    totals = _Totals(plan.reasons)
    writers: dict[str, TableWriter] = {}
    dealing = None if plan.dealing is None else Dealing(**plan.dealing)
    at = 0
    for table in read_tables(prepared_path(Path(plan.documents), name)):
        here = decisions[at : at + table.num_rows]
        at += table.num_rows
        totals.add_dropped(table, here["fate"])
        kept = here["fate"] < 0
        table, keys = table.filter(pa.array(kept)), here["key"][kept]
        for split, rows in _dealt(table, keys, plan, dealing):
            for target, chunk in _with_copies(split, rows, plan):
                kept_columns = [n for n in chunk.column_names if n not in _MEASURES]
                writer = _writer(writers, target, task["written"], Path(plan.out))
                writer.write(chunk.select(kept_columns))
                totals.add(target, chunk)
    for split, writer in writers.items():
        writer.close()
        final = Path(plan.out) / split / f"{task['written']}.parquet"
        with open(writer.path, "rb") as written:
            os.fsync(written.fileno())
        os.replace(writer.path, final)
        fsync_folder(final.parent)
    return {"name": name, **totals.as_dict()}


def _writer(writers: dict[str, TableWriter], split: str, name: str, out: Path) -> TableWriter:
    if split not in writers:
        (out / split).mkdir(parents=True, exist_ok=True)
        writers[split] = TableWriter(out / split / f".{name}.parquet.tmp")
    return writers[split]


def _dealt(
    table: pa.Table, keys: np.ndarray, plan: Plan, dealing: Dealing | None
) -> Iterator[tuple[str, pa.Table]]:
    """Gives the rows of each split, cut into sections where there are few documents."""
    if not table.num_rows:
        return
    columns = [
        n for n in table.column_names if n in (*SCHEMA.names, *MEASURES) or _is_carried(table, n)
    ]
    table = table.select(columns)
    if dealing is None:
        yield "documents", table
        return
    if plan.limit is not None:
        table, keys = _in_sections(table, keys, plan.limit, dealing)
    names = dealing.splits_of(table["split"], keys)
    table = table.set_column(
        table.schema.get_field_index("split"), "split", pa.array(names, pa.string())
    )
    for split in SPLITS:
        rows = table.filter(pa.array(names == split))
        if rows.num_rows:
            yield split, rows


def _is_carried(table: pa.Table, name: str) -> bool:
    return name not in _MEASURES and name not in STATISTICS


def _in_sections(
    table: pa.Table, keys: np.ndarray, limit: int, dealing: Dealing
) -> tuple[pa.Table, np.ndarray]:
    """Cuts the documents whose split content decides; a section's own content then does."""
    rows, section_keys = [], []
    for row, key in zip(table.to_pylist(), keys.tolist(), strict=True):
        if not dealing.is_dealt(row["split"]):
            rows.append(row)
            section_keys.append(key)
            continue
        if len(row["text"]) <= limit:
            # Whole, it goes where its cluster does.
            rows.append(row)
            section_keys.append(key)
            continue
        for text in cut_sections(row["text"], limit):
            identity = content_id(text)
            rows.append({**row, "id": identity, "text": text})
            section_keys.append(int(identity[:13], 16) / 16**13)
    return _measured(pa.Table.from_pylist(rows, schema=table.schema)), np.array(section_keys)


def _measured(table: pa.Table) -> pa.Table:
    """Measures texts that are other than they were."""
    for name, column in measures(table["text"]).items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _with_copies(split: str, rows: pa.Table, plan: Plan) -> Iterator[tuple[str, pa.Table]]:
    """Gives the rows of a split and, of training rows, their changed copies."""
    if split != "train" or not plan.augment:
        yield split, rows
        return
    from tianti.corpus.augment.copies import augmented_copies

    copies, late = augmented_copies(_with_column(rows), plan.augment, plan.rewriter)
    yield split, pa.concat_tables([_with_column(rows), _measured(copies)])
    if late.num_rows:
        yield LATE, _measured(late)


def _with_column(rows: pa.Table) -> pa.Table:
    return rows.append_column("augmented", pa.nulls(rows.num_rows, pa.string()))


class _Totals:
    """Counts what was written and dropped, and keeps samples of the latter."""

    def __init__(self, reasons: list[str]):
        self._reasons = reasons
        self.splits: dict[str, dict[str, int]] = {}
        self.sources: dict[str, dict[str, int]] = {}
        self.languages: dict[str, int] = {}
        self.dropped: dict[str, dict[str, int]] = {}
        self.samples: list[dict[str, Any]] = []
        self.kept_samples: list[dict[str, Any]] = []
        self.cjk_bytes = 0
        self.augmented = 0

    def add_dropped(self, table: pa.Table, fate: np.ndarray) -> None:
        for number in np.unique(fate[fate >= 0]).tolist():
            reason = self._reasons[number]
            places = np.flatnonzero(fate == number)
            counts = self.dropped.setdefault(reason, {"documents": 0, "bytes": 0})
            room = SAMPLES_PER_REASON - counts["documents"]
            counts["documents"] += len(places)
            counts["bytes"] += int(table["bytes"].to_numpy()[places].sum())
            if room > 0:
                names = ["id", "origin", "text"]
                names += ["contaminated_text"] if "contaminated_text" in table.column_names else []
                rows = table.select(names).take(pa.array(places[:room]))
                self.samples += [
                    {"reason": reason, **row, "text": row["text"][:_SAMPLE_CHARS]}
                    for row in rows.to_pylist()
                ]

    def add(self, split: str, rows: pa.Table) -> None:
        sums = {name: int(rows[name].to_numpy().sum()) for name in ("bytes", "chars", "cjk_bytes")}
        counts = self.splits.setdefault(split, {"documents": 0, "bytes": 0, "chars": 0})
        counts["documents"] += rows.num_rows
        counts["bytes"] += sums["bytes"]
        counts["chars"] += sums["chars"]
        self.cjk_bytes += sums["cjk_bytes"]
        if "augmented" in rows.column_names:
            self.augmented += rows.num_rows - rows["augmented"].null_count
            # Copies are counted among the documents of their split, not among those that were kept.
            rows = rows.filter(rows["augmented"].is_null())
            if not rows.num_rows:
                return
            sums["bytes"] = int(rows["bytes"].to_numpy().sum())
        # A part is of one source.
        of_source = self.sources.setdefault(rows["source"][0].as_py(), {"documents": 0, "bytes": 0})
        of_source["documents"] += rows.num_rows
        of_source["bytes"] += sums["bytes"]
        for row in rows["language"].value_counts().to_pylist():
            if row["values"] is not None:
                known = self.languages.get(row["values"], 0)
                self.languages[row["values"]] = known + row["counts"]
        if len(self.kept_samples) < SAMPLES_PER_REASON:
            rest = SAMPLES_PER_REASON - len(self.kept_samples)
            self.kept_samples += [
                {**row, "text": row["text"][:_SAMPLE_CHARS]}
                for row in rows.select(["id", "origin", "text"]).slice(0, rest).to_pylist()
            ]

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


def merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds up what `write_part` gave for every part, in their order."""
    total: dict[str, Any] = {
        "splits": {},
        "sources": {},
        "languages": {},
        "dropped": {},
        "samples": [],
        "kept_samples": [],
        "cjk_bytes": 0,
        "augmented": 0,
    }
    for result in results:
        for group in ("splits", "sources", "dropped"):
            for name, counts in result[group].items():
                into = total[group].setdefault(name, dict.fromkeys(counts, 0))
                for key, value in counts.items():
                    into[key] += value
        for language, count in result["languages"].items():
            total["languages"][language] = total["languages"].get(language, 0) + count
        total["cjk_bytes"] += result["cjk_bytes"]
        total["augmented"] += result["augmented"]
        total["kept_samples"] += result["kept_samples"]
        total["samples"] += result["samples"]
    seen: dict[str, int] = {}
    samples = []
    for sample in total["samples"]:
        seen[sample["reason"]] = seen.get(sample["reason"], 0) + 1
        if seen[sample["reason"]] <= SAMPLES_PER_REASON:
            samples.append(sample)
    total["samples"] = samples
    total["kept_samples"] = total["kept_samples"][:SAMPLES_PER_REASON]
    return total


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as JSONL, atomically."""
    from tianti.files import atomic_open, json_text

    with atomic_open(path, "w") as file:
        file.writelines(json_text(row) + "\n" for row in rows)
