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

from tianti.allocator import keep_freed_memory
from tianti.corpus.batch import Batch, gathered, text_column
from tianti.corpus.clean import clean_texts
from tianti.corpus.config import PrepareConfig, QualityConfig, Source
from tianti.corpus.document import BadInput, Document, content_ids
from tianti.corpus.groups import Group, finished, plan_groups, remove_leftovers
from tianti.corpus.lines import LineFilter, find_lines, wants_lines
from tianti.corpus.measures import measures
from tianti.corpus.prepared import prepared_path
from tianti.corpus.readers.opening import Piece
from tianti.corpus.references import REFERENCES, build_references
from tianti.corpus.sources import format_of, read_piece_batches
from tianti.corpus.steps import Steps, text_bytes_of
from tianti.corpus.table import TableWriter, columns_of
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
    keep_freed_memory()
    # Arrow's own pool gives its pages back after each batch.
    pa.set_memory_pool(pa.system_memory_pool())
    source = Source.model_validate(task["source"])
    config = PrepareConfig.model_validate({**task["settings"], "sources": []})
    out, name = Path(task["out"]), task["name"]
    maker = _Maker(source, config, out / REFERENCES, name, task["number"])
    bad: list[BadInput] = []
    digests: list[np.ndarray] = []
    partial = out / f".{name}.arrow.tmp"
    with _without_collection(), TableWriter(partial, mapped=True) as writer:
        found = read_batches(task["files"], source, config, bad)
        while (batch := maker.read(found)) is not None:
            table = maker.table(batch)
            with maker.steps.timed("write"):
                writer.write(table)
            if config.dedup.near:
                from tianti.corpus.minhash import signatures

                with maker.steps.timed("minhash"):
                    digests.append(signatures(table["text"], config.dedup.ngram))
    files: dict[str, int] = {}
    if writer.rows:
        _publish(partial, prepared_path(out, name), files)
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
        **maker.counts,
        "steps": maker.steps.rows,
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


def read_batches(
    files: list[dict[str, Any]], source: Source, config: PrepareConfig, bad: list[BadInput]
) -> Iterator[Batch]:
    """Gives the documents of a group's files; what is wrong with any is added to `bad`."""
    yield from gathered(_read_files(files, source, config, bad))


def _read_files(
    files: list[dict[str, Any]], source: Source, config: PrepareConfig, bad: list[BadInput]
) -> Iterator[Document | Batch]:
    for file in files:
        if "builtin" in file:
            from tianti.corpus.python_docs import python_docs

            yield from python_docs()
            continue
        piece = Piece(file["path"], file["start"], file["stop"] if file["part"] else None)
        for item in read_piece_batches(piece, source, config.clean.html):
            if isinstance(item, BadInput):
                bad.append(item)
            else:
                yield item


class _Maker:
    """Makes the table of a batch of documents: cleaned, redacted, identified and measured.

    Args:
        source: of the documents.
        config: the steps.
        references: folder of what documents are compared with.
        name: of the group.
        number: of the group.
    """

    def __init__(
        self, source: Source, config: PrepareConfig, references: Path, name: str, number: int
    ):
        self._source, self._config, self._references = source, config, references
        self._unwanted = LineFilter.load(references, name, number) if wants_lines(config) else None
        self.counts = dict.fromkeys(("documents", "bytes_in", "bytes", "redacted"), 0)
        self.steps = Steps()

    def read(self, found: Iterator[Batch]) -> Batch | None:
        """Gives the next batch, None at the end."""
        with self.steps.timed("read"):
            return next(found, None)

    def table(self, batch: Batch) -> pa.Table:
        """Gives a batch as a table."""
        column = self._text(batch)
        with self.steps.timed("measure"):
            columns = {
                "id": content_ids(column),
                "text": column,
                **columns_of(batch, self._source.title, self._source.split),
                **measures(column),
            }
        columns["language"] = self._languages(column)
        columns |= self._statistics(column)
        self.counts["documents"] += len(batch)
        self.counts["bytes"] += int(columns["bytes"].to_numpy().sum())
        return pa.table(columns)

    def _text(self, batch: Batch) -> pa.Array:
        """Gives the texts as they stay."""
        with self.steps.timed("clean"):
            cleaned = clean_texts(batch.texts, self._config.clean)
        column, size = cleaned.column, cleaned.bytes_in
        self.counts["bytes_in"] += size
        size = self._noted("clean", size, column)
        if self._unwanted is not None:
            with self.steps.timed("lines"):
                column = self._unwanted.without(column)
            size = self._noted("lines", size, column)
        if kinds := tuple(self._config.privacy.redact):
            with self.steps.timed("redact"):
                column = self._redacted(column, kinds)
            self._noted("redact", size, column)
        return column

    def _noted(self, step: str, before: int, column: pa.Array) -> int:
        after = text_bytes_of(column)
        self.steps.changed(step, before, after)
        return after

    def _redacted(self, column: pa.Array, kinds: tuple[str, ...]) -> pa.Array:
        from tianti.corpus.privacy import redact

        out = []
        for text in column.to_pylist():
            clean, spans = redact(text, kinds)
            self.counts["redacted"] += len(spans)
            out.append(clean)
        return text_column(out)

    def _languages(self, column: pa.Array) -> pa.Array:
        if not self._config.languages.wanted:
            return pa.nulls(len(column), pa.string())
        from tianti.corpus.language import detect_language

        with self.steps.timed("language"):
            codes = [detect_language(text).code for text in column.to_pylist()]
        return pa.array(codes, pa.string())

    def _statistics(self, column: pa.Array) -> dict[str, pa.Array]:
        """Gives what filters will look at."""
        quality = self._config.quality
        found: dict[str, pa.Array] = {}
        if quality.filters:
            from tianti.corpus.statistics import document_statistics

            with self.steps.timed("quality"):
                found |= document_statistics(column)
        if self._config.decontaminate.against:
            from tianti.corpus.decontaminate import INDEX, contamination_columns

            with self.steps.timed("decontaminate"):
                place = str(self._references / INDEX)
                found |= contamination_columns(column, self._config.decontaminate, place)
        if quality.classifier is not None:
            from tianti.corpus.learned import CLASSIFIER, quality_column

            with self.steps.timed("classifier"):
                found["quality"] = quality_column(column, str(self._references / CLASSIFIER))
        if quality.perplexity is not None:
            from tianti.corpus.learned import PERPLEXITY, bits_per_byte_column

            with self.steps.timed("perplexity"):
                place = str(self._references / PERPLEXITY)
                found["bits_per_byte"] = bits_per_byte_column(column, place)
        return found
