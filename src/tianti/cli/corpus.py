"""`tianti corpus …`: single steps of the corpus on files that the user names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tianti.cli.options import AsJson, print_json, print_lines
from tianti.messages import tr

corpus_app = typer.Typer(
    help=tr("Text step by step: extract, detect, redact, deduplicate, filter, inspect."),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Inputs = Annotated[
    list[str], typer.Argument(metavar="IN…", help=tr("Files, folders, globs or URLs of text."))
]
OneFile = Annotated[str, typer.Argument(metavar="FILE", help=tr("A file of records or text."))]
Field = Annotated[str, typer.Option(help=tr("The field that holds the text."))]
NewFolder = Annotated[Path, typer.Option("--out", help=tr("Folder to write to."))]
Workers = Annotated[int | None, typer.Option(min=1, help=tr("Processes; all cores by default."))]


class Engine(StrEnum):
    """Where the work is done."""

    native = "native"
    ray = "ray"


class Extractor(StrEnum):
    """How the main text of web pages is found."""

    fast = "fast"
    quality = "quality"


class Keep(StrEnum):
    """Which of a cluster stays."""

    longest = "longest"
    first = "first"


EngineName = Annotated[Engine, typer.Option(help=tr("This machine, or a Ray cluster."))]


@corpus_app.command("extract", help=tr("Print the text of files of any kind, as JSONL."))
def extract_command(
    files: Inputs,
    html: Annotated[
        Extractor, typer.Option(help=tr("Main text of web pages: fast, or of better quality."))
    ] = Extractor.fast,
    field: Field = "text",
    as_json: AsJson = False,
) -> None:
    """Prints a row for each document."""
    from tianti.corpus.standalone import extract

    _print_rows(extract(files, html.value, field))


@corpus_app.command("detect-language", help=tr("Print records with their language, as JSONL."))
def detect_language_command(file: OneFile, field: Field = "text", as_json: AsJson = False) -> None:
    """Prints each record with its language."""
    from tianti.corpus.standalone import detect_languages

    _print_rows(detect_languages(file, field))


@corpus_app.command("redact", help=tr("Print records without what is private, as JSONL."))
def redact_command(
    file: OneFile,
    field: Field = "text",
    kind: Annotated[
        list[str] | None, typer.Option(help=tr("What to look for, repeatable; else everything."))
    ] = None,
    spans: Annotated[bool, typer.Option("--spans", help=tr("Say where each find stood."))] = False,
    as_json: AsJson = False,
) -> None:
    """Prints each record with tags in place of what is private."""
    from tianti.corpus.standalone import redact_file

    _print_rows(redact_file(file, field, kind or [], spans))


def _print_rows(rows: Iterator[dict[str, Any]]) -> None:
    """Prints rows; exit code 2 where none of them could be read."""
    counts = {"good": 0, "bad": 0}

    def counted() -> Iterator[dict[str, Any]]:
        for row in rows:
            bad = "error" in row and "remedy" in row
            counts["bad" if bad else "good"] += 1
            if bad:
                line = f"{row['origin']}: {row['error']}. {row['remedy']}"
                print(f"{tr('error')}: {line}", file=sys.stderr)
            yield row

    print_lines(counted())
    if counts["bad"] and not counts["good"]:
        raise typer.Exit(2)


@corpus_app.command("dedup", help=tr("Write documents without exact and near-duplicates."))
def dedup_command(
    inputs: Inputs,
    out: NewFolder,
    field: Field = "text",
    similarity: Annotated[
        float, typer.Option(min=0.3, max=0.99, help=tr("Share of equal n-grams that counts."))
    ] = 0.8,
    ngram: Annotated[int, typer.Option(min=1, max=50, help=tr("Words to an n-gram."))] = 5,
    keep: Annotated[Keep, typer.Option(help=tr("Which of a cluster stays."))] = Keep.longest,
    lines: Annotated[
        int | None,
        typer.Option(min=2, help=tr("A line in this many documents stays in the first only.")),
    ] = None,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help=tr("Leave near-duplicates in."))
    ] = False,
    engine: EngineName = Engine.native,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Writes what is left, and who repeats whom."""
    dedup = {
        "near": not exact_only,
        "similarity": similarity,
        "ngram": ngram,
        "keep": keep.value,
        "lines": lines,
    }
    _sift(inputs, out, field, {"dedup": dedup}, engine, workers, as_json)


@corpus_app.command("filter", help=tr("Write documents that pass quality and language rules."))
def filter_command(
    inputs: Inputs,
    out: NewFolder,
    field: Field = "text",
    rules: Annotated[
        list[str] | None,
        typer.Option(
            help=tr("gopher_quality, gopher_repetition, c4, fineweb or chinese; repeatable.")
        ),
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help=tr("Only documents in this language; repeatable."))
    ] = None,
    min_chars: Annotated[int, typer.Option(min=0, help=tr("Shorter ones are dropped."))] = 1,
    engine: EngineName = Engine.native,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Writes what is left, and samples of what is not."""
    settings = {
        "quality": {"filters": rules or []},
        "languages": {"detect": True, "keep": language or None},
        "min_chars": min_chars,
        "dedup": {"exact": False, "near": False},
    }
    _sift(inputs, out, field, settings, engine, workers, as_json)


def _sift(
    inputs: list[str],
    out: Path,
    field: str,
    settings: dict[str, Any],
    engine: Engine,
    workers: int | None,
    as_json: bool,
) -> None:
    from tianti.corpus.standalone import corpus_config, sift
    from tianti.progress import Display

    config = corpus_config(
        inputs, field, **settings, engine=engine.value, workers=workers, on_bad_input="quarantine"
    )
    summary = sift(config, out, Display())
    if as_json:
        print_json(summary)
        return
    from tianti.runs.terminal import say_funnel

    say_funnel(summary)
    print(tr("Documents: {path}", path=summary["documents"]))


@corpus_app.command("inspect", help=tr("Show what a corpus is like, in the terminal or as a page."))
def inspect_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help=tr("A corpus folder of a run, or of dedup."))
    ],
    html: Annotated[
        Path | None, typer.Option(help=tr("Write a page with pictures to this file."))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Shows languages, lengths, phrases, duplicates and samples of a corpus."""
    from tianti.corpus.overview import overview
    from tianti.corpus.standalone import read_summary
    from tianti.runs.results import without_nan
    from tianti.runs.terminal import say_overview

    view = without_nan(overview(folder))
    if html is not None:
        from tianti.runs.report import write_corpus_report

        write_corpus_report(html, folder, view, read_summary(folder))
    if as_json:
        print_json(view)
    else:
        say_overview(view)
        if html is not None:
            print(tr("Page: {path}", path=html))
