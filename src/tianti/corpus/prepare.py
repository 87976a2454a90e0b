"""Sources → documents that are clean and measured, none dropped yet; group by group."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.clean import clean_texts, text_column
from tianti.corpus.config import PrepareConfig, QualityConfig, Source
from tianti.corpus.document import BadInput, Document, content_ids
from tianti.corpus.groups import Group, finished, plan_groups, remove_leftovers
from tianti.corpus.lines import LineFilter, find_lines, wants_lines
from tianti.corpus.measures import measures
from tianti.corpus.readers.opening import Piece
from tianti.corpus.references import REFERENCES, build_references
from tianti.corpus.sources import format_of, read_piece
from tianti.corpus.table import BATCH_CHARS, BATCH_ROWS, TableWriter, columns_of
from tianti.files import atomic_open, fsync_folder, json_text, save_npy, write_json

FUNCTION = "tianti.corpus.prepare:prepare_group"


def prepare(
    config: PrepareConfig,
    out: Path,
    *,
    runner: str = "native",
    workers: int | None = None,
    on_group: Callable[[dict[str, Any], int], None] = lambda manifest, num_bytes: None,
) -> list[dict[str, Any]]:
    """Prepares all groups that are not finished yet.

    Args:
        config: sources and steps.
        out: folder of the groups; finished ones there are kept.
        runner: `native` or `ray`.
        workers: processes; the number of cores when not given.
        on_group: called with the manifest of each group that was done, and its bytes.

    Returns:
        The manifests of all groups, in order.
    """
    from tianti.corpus.engine import WORTH_WORKERS, WORTH_WORKERS_LIGHT, run_tasks

    (out / REFERENCES).mkdir(parents=True, exist_ok=True)
    state = build_references(config, out / REFERENCES)
    groups = plan_groups(config, out, state)
    remove_leftovers(groups, out)
    open_groups = [group for group in groups if finished(group, out) is None]
    if wants_lines(config) and open_groups:
        find_lines(config, groups, out / REFERENCES, runner, workers or os.cpu_count() or 1)
    sizes = {group.name: group.num_bytes for group in groups}
    limit = WORTH_WORKERS if _takes_long(config, open_groups) else WORTH_WORKERS_LIGHT
    small = sum(group.num_bytes for group in open_groups) < limit
    run_tasks(
        FUNCTION,
        [group.task for group in open_groups],
        runner=runner,
        workers=1 if small and workers is None else workers or os.cpu_count() or 1,
        on_result=lambda manifest: on_group(manifest, sizes[manifest["name"]]),
    )
    manifests = [finished(group, out) for group in groups]
    return [manifest for manifest in manifests if manifest is not None]


def _takes_long(config: PrepareConfig, groups: list[Group]) -> bool:
    """Tells whether documents take longer to prepare than to read from plain records or text."""
    steps = (
        config.languages.wanted,
        config.quality != QualityConfig(),
        config.privacy.redact,
        config.decontaminate.against,
        config.clean.chinese != "keep",
        config.clean.c4_lines,
    )
    kinds = {
        format_of(file["path"], Source.model_validate(group.task["source"]))
        for group in groups
        for file in group.task["files"]
        if "path" in file
    }
    return any(steps) or not kinds <= {"text", "code", "jsonl", "csv", "parquet"}


def prepare_group(task: dict[str, Any]) -> dict[str, Any]:
    """Does one group: reads its files, cleans and measures their documents, writes its files.

    Args:
        task: `name`, `source`, `files`, `settings` and `out`, as `plan_groups` gives them.

    Returns:
        The manifest.
    """
    started = time.perf_counter(), time.process_time()
    source = Source.model_validate(task["source"])
    config = PrepareConfig.model_validate({**task["settings"], "sources": []})
    out, name = Path(task["out"]), task["name"]
    references = out / REFERENCES
    unwanted = LineFilter.load(references, name, task["number"]) if wants_lines(config) else None
    bad: list[BadInput] = []
    counts = dict.fromkeys(("documents", "bytes_in", "bytes", "redacted"), 0)
    digests: list[np.ndarray] = []
    partial = out / f".{name}.parquet.tmp"
    with _without_collection(), TableWriter(partial, codec="none") as writer:
        for batch in batches(read_files(task["files"], source, config, bad)):
            table = _measured(batch, source, config, references, counts, unwanted)
            writer.write(table)
            if config.dedup.near:
                from tianti.corpus.minhash import signatures

                digests.append(signatures(table["text"], config.dedup.ngram))
    files: dict[str, int] = {}
    if writer.rows:
        _publish(partial, out / f"{name}.parquet", files)
    if digests:
        # Turned round, so that one entry of all documents lies together: bands are read singly.
        turned = np.ascontiguousarray(np.concatenate(digests).T)
        save_npy(out / f"{name}.signatures.npy", turned)
        files[f"{name}.signatures.npy"] = (out / f"{name}.signatures.npy").stat().st_size
    if bad:
        with atomic_open(out / f"{name}.quarantine.jsonl", "w") as file:
            for item in bad:
                file.write(json_text(_bad_row(item)) + "\n")
        path = out / f"{name}.quarantine.jsonl"
        files[path.name] = path.stat().st_size
    manifest = {
        "name": name,
        "files": files,
        "source": source.title,
        "inputs": [_with_hash(file) for file in task["files"]],
        "settings": task["settings"],
        "bad_inputs": len(bad),
        **counts,
        "wall_seconds": round(time.perf_counter() - started[0], 3),
        "cpu_seconds": round(time.process_time() - started[1], 3),
    }
    write_json(out / f"{name}.json", manifest)
    return manifest


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Spares the search for cycles among millions of small objects: records have none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _publish(partial: Path, path: Path, files: dict[str, int]) -> None:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    fsync_folder(path.parent)
    files[path.name] = path.stat().st_size


def _bad_row(item: BadInput) -> dict[str, Any]:
    return {"origin": item.origin, "byte": item.byte, "reason": item.reason, "remedy": item.remedy}


def _with_hash(file: dict[str, Any]) -> dict[str, Any]:
    """Adds the SHA-256 of the bytes that were read of a local file."""
    path = file.get("path")
    if path is None or "://" in path:
        return file
    digest = hashlib.sha256()
    left = file["stop"] - file["start"]
    try:
        with open(path, "rb") as stream:
            stream.seek(file["start"])
            while left > 0 and (block := stream.read(min(1 << 20, left))):
                digest.update(block)
                left -= len(block)
    except OSError:
        # The reader has said what is wrong with it.
        return file
    return {**file, "sha256": digest.hexdigest()}


def read_files(
    files: list[dict[str, Any]], source: Source, config: PrepareConfig, bad: list[BadInput]
) -> Iterator[Document]:
    """Gives the documents of a group's files; what is wrong with any is added to `bad`."""
    for file in files:
        if "builtin" in file:
            from tianti.corpus.python_docs import python_docs

            yield from python_docs()
            continue
        piece = Piece(file["path"], file["start"], file["stop"] if file["part"] else None)
        for item in read_piece(piece, source, config.clean.html):
            if isinstance(item, Document):
                yield item
            else:
                bad.append(item)


def batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Gives documents in batches that bound what is in memory."""
    batch: list[Document] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document.text)
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _measured(
    batch: list[Document],
    source: Source,
    config: PrepareConfig,
    references: Path,
    counts: dict[str, int],
    unwanted: LineFilter | None,
) -> pa.Table:
    """Gives a batch as a table: cleaned, redacted, identified and measured."""
    cleaned = clean_texts([document.text for document in batch], config.clean)
    column = cleaned.column
    if unwanted is not None:
        column = unwanted.without(column)
    if config.privacy.redact:
        column = _redacted(column, tuple(config.privacy.redact), counts)
    columns = {
        "id": content_ids(column),
        "text": column,
        **columns_of(batch, source.title, source.split),
        "language": _languages(column, config),
        **measures(column),
    }
    if config.quality.filters:
        from tianti.corpus.statistics import document_statistics

        columns |= document_statistics(column)
    if config.decontaminate.against:
        from tianti.corpus.decontaminate import INDEX, contamination_columns

        columns |= contamination_columns(column, config.decontaminate, str(references / INDEX))
    if config.quality.classifier is not None:
        from tianti.corpus.learned import CLASSIFIER, quality_column

        columns["quality"] = quality_column(column, str(references / CLASSIFIER))
    if config.quality.perplexity is not None:
        from tianti.corpus.learned import PERPLEXITY, bits_per_byte_column

        columns["bits_per_byte"] = bits_per_byte_column(column, str(references / PERPLEXITY))
    counts["documents"] += len(batch)
    counts["bytes_in"] += cleaned.bytes_in
    counts["bytes"] += int(columns["bytes"].to_numpy().sum())
    return pa.table(columns)


def _redacted(column: pa.Array, kinds: tuple[str, ...], counts: dict[str, int]) -> pa.Array:
    from tianti.corpus.privacy import redact

    out = []
    for text in column.to_pylist():
        clean, spans = redact(text, kinds)
        counts["redacted"] += len(spans)
        out.append(clean)
    return text_column(out)


def _languages(column: pa.Array, config: PrepareConfig) -> pa.Array:
    if not config.languages.wanted:
        return pa.nulls(len(column), pa.string())
    from tianti.corpus.language import detect_language

    return pa.array([detect_language(text).code for text in column.to_pylist()], pa.string())
