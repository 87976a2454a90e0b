"""Single steps of the corpus on files that the user names, without a recipe or a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tianti.corpus.config import CorpusConfig, Source
from tianti.corpus.document import BadInput, Document
from tianti.corpus.sources import list_files, read_source
from tianti.errors import UserError
from tianti.files import read_json, write_json
from tianti.messages import tr
from tianti.progress import SILENT, Display

SUMMARY = "summary.json"
DOCUMENTS = "documents"
_PREPARED = ".prepared"
Row = dict[str, Any]


def extract(paths: Sequence[str], extractor: str = "fast", field: str = "text") -> Iterator[Row]:
    """Gives the text in files of any kind that sources read, a row for each document.

    Args:
        paths: files, folders, globs or URLs.
        extractor: how the main text of web pages is found: `fast` or `quality`.
        field: the field that holds the text, in records.

    Yields:
        `origin`, `text` and `meta`; of what cannot be read `origin`, `error` and `remedy`.
    """
    for path in paths:
        for item in read_source(Source(path=path, text=field), extractor):
            if isinstance(item, BadInput):
                yield _bad_row(item)
            else:
                yield {"origin": item.origin, "text": item.text, "meta": item.meta}


def _bad_row(item: BadInput) -> Row:
    return {"origin": item.origin, "error": item.reason, "remedy": item.remedy}


def detect_languages(path: str, field: str = "text") -> Iterator[Row]:
    """Gives the records of a file with `language`, `sure` and `share` added."""
    from tianti.corpus.language import detect_language

    for record, item in _records(path, field):
        if isinstance(item, Document):
            found = detect_language(item.text)
            record |= {"language": found.code, "sure": found.sure, "share": round(found.share, 4)}
        yield record


def redact_file(
    path: str, field: str = "text", kinds: Sequence[str] = (), spans: bool = False
) -> Iterator[Row]:
    """Gives the records of a file with what is private replaced by tags.

    Args:
        path: the file.
        field: the field that holds the text.
        kinds: what to look for; everything when empty.
        spans: add `spans`: `start`, `end` (characters of the old text) and `kind` of each find.
    """
    from tianti.corpus.privacy import KINDS, redact

    for name in kinds:
        if name not in KINDS:
            raise UserError(
                tr("there is no kind {name!r}", name=name),
                where="--kind",
                remedy=tr("Kinds: {names}", names=", ".join(KINDS)),
            )
    for record, item in _records(path, field):
        if isinstance(item, Document):
            text, found = redact(item.text, tuple(kinds) or KINDS)
            record = {"origin": item.origin, **_with_text(item.meta, field, text)}
            if spans:
                record["spans"] = [
                    {"start": span.start, "end": span.end, "kind": span.kind} for span in found
                ]
        yield record


def _records(path: str, field: str) -> Iterator[tuple[Row, Document | BadInput]]:
    """Gives the records of a file as they stood there, with what was read of each."""
    for item in read_source(Source(path=path, text=field)):
        if isinstance(item, BadInput):
            yield _bad_row(item), item
        else:
            # A record that says where it comes from itself is believed.
            yield {"origin": item.origin, **_with_text(item.meta, field, item.text)}, item


def _with_text(meta: Row, field: str, text: str) -> Row:
    """Gives a record with its text in its place, which a dotted name may reach into."""
    parts = [field] if field in meta or "." not in field else field.split(".")
    if len(parts) == 1 or not isinstance(meta.get(parts[0]), dict):
        return {**meta, field: text}
    return {**meta, parts[0]: _with_text(meta[parts[0]], ".".join(parts[1:]), text)}


def sift(config: CorpusConfig, out: Path, display: Display = SILENT) -> Row:
    """Cleans, filters and deduplicates documents, without splitting them.

    Writes `documents/` (Parquet), `clusters.parquet` (who repeats whom), `dropped.jsonl` (samples
    for each reason), `kept.jsonl`, `quarantine.jsonl` and `summary.json`. Killed at any moment, the
    same call goes on from its last finished group.

    Args:
        config: sources and steps.
        out: where to: a new folder, or one that an earlier call wrote.
        display: shows progress.

    Returns:
        What `summary.json` holds: `funnel`, `duplicates`, `languages`, `bad_inputs`, `seconds`.

    Raises:
        UserError: there is something else in the folder, or nothing is left.
    """
    from tianti.corpus.stage import prepare_documents, write_documents

    _make_room(config, out)
    prepared = out / _PREPARED
    read = prepare_documents(config, {}, prepared, display)
    summary = write_documents(config, prepared, out, display) | {
        "redacted": read["redacted"],
        "steps": read["steps"],
        "documents": str(out / DOCUMENTS),
        "clusters": str(out / "clusters.parquet"),
    }
    write_json(out / SUMMARY, summary)
    shutil.rmtree(prepared)
    return summary


def _make_room(config: CorpusConfig, out: Path) -> None:
    """Removes what an earlier call wrote; refuses to touch anything else, or what is to be read."""
    inputs = [Path(path).resolve() for source in config.sources for path in list_files(source)]
    if any(path.is_relative_to(out.resolve()) for path in inputs):
        raise UserError(
            tr("what is to be read lies in the folder to write to"),
            where=out,
            remedy=tr("Name a new folder with --out"),
        )
    ours = (out / _PREPARED).is_dir() or (
        (out / SUMMARY).is_file() and (out / "clusters.parquet").is_file()
    )
    if out.exists() and not ours and any(out.iterdir()):
        raise UserError(
            tr("there is something else in this folder"),
            where=out,
            remedy=tr("Name a new folder with --out"),
        )
    (out / SUMMARY).unlink(missing_ok=True)
    for path in (out / DOCUMENTS).glob("[0-9]*.parquet"):
        path.unlink()
    out.mkdir(parents=True, exist_ok=True)


def corpus_config(paths: Sequence[str], field: str = "text", **settings: Any) -> CorpusConfig:
    """Gives settings for files that the user names.

    Args:
        paths: files, folders, globs or URLs.
        field: the field that holds the text, in records.
        settings: fields of `CorpusConfig`.

    Raises:
        UserError: no path is given, or a setting is none.
    """
    from pydantic import ValidationError

    if not paths:
        raise UserError(tr("no input is named"), remedy=tr("Name files or folders"))
    sources = [Source(path=path, text=field) for path in dict.fromkeys(paths)]
    try:
        return CorpusConfig(sources=sources, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{first['msg']}: {first['input']!r}", where=where) from error


def read_summary(folder: Path) -> Row | None:
    """Gives the figures of the step that wrote a corpus; None where none are there."""
    for name in (SUMMARY, "manifest.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            return found.get("metrics", found)
    return None
