"""The documents stage (sources → clean, measured documents) and the corpus stage (→ splits)."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from tianti.corpus.config import CorpusConfig, CorpusStageConfig, PrepareConfig
from tianti.corpus.filters import thresholds_in_force
from tianti.corpus.overview import OVERVIEW, overview, quality_histograms
from tianti.corpus.prepare import prepare
from tianti.corpus.select import Selection, read_manifests, select, write_clusters
from tianti.corpus.split import SPLITS, derived_share, section_chars
from tianti.corpus.steps import added_up
from tianti.corpus.write import FUNCTION, Plan, merged, write_lines
from tianti.errors import UserError
from tianti.files import save_npy, write_json
from tianti.messages import tr
from tianti.progress import SILENT, Display

QUARANTINE = "quarantine.jsonl"
_DECISIONS = np.dtype([("fate", np.int16), ("key", np.float64)])


def prepare_config(config: CorpusConfig) -> PrepareConfig:
    """Gives the part of the settings that decides what `prepare_documents` makes."""
    return PrepareConfig(
        sources=config.sources,
        clean=config.clean,
        languages=config.languages,
        quality=config.quality.measured(),
        dedup=config.dedup.measured(),
        privacy=config.privacy,
        decontaminate=config.decontaminate.measured(),
    )


def prepare_documents(
    config: CorpusConfig, inputs: dict[str, Path], out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Reads, cleans and measures all documents, in groups that are each done once.

    Args:
        config: sources and steps.
        inputs: none.
        out: where to; finished groups there are kept.
        display: shows progress.

    Returns:
        `documents`, `bytes_in`, `bytes` (after cleaning), `redacted`, `bad_inputs`, `groups`, and
        `steps`: seconds of each, with bytes before and after where it changes text.

    Raises:
        UserError: a source cannot be read.
    """
    check_materials(config)
    with display.task("documents", unit="docs") as task:

        def note(manifest: dict[str, Any], num_bytes: int) -> None:
            task.advance(manifest["documents"])
            if config.on_bad_input == "stop":
                _stop_at_bad_input(out, [manifest])

        manifests = prepare(
            prepare_config(config),
            out,
            runner=config.engine,
            workers=config.workers,
            on_group=note,
        )
    if config.on_bad_input == "stop":
        # Groups of an earlier run may hold some too.
        _stop_at_bad_input(out, manifests)
    write_lines(out / QUARANTINE, _quarantined(out, manifests))
    names = ("documents", "bytes_in", "bytes", "redacted", "bad_inputs")
    return {name: sum(manifest[name] for manifest in manifests) for name in names} | {
        "groups": len(manifests),
        "steps": added_up([manifest["steps"] for manifest in manifests]),
    }


def check_materials(config: CorpusConfig) -> None:
    """Makes sure that what the last steps need is there before the first begins.

    Raises:
        UserError: a table of synonyms or a model is missing.
    """
    for change in config.augment:
        if change.synonyms is not None:
            from tianti.corpus.augment.expand import load_synonyms

            load_synonyms(change.synonyms)
        for model in (change.model, change.there, change.back):
            if model is not None and not Path(model).expanduser().is_dir():
                raise UserError(
                    tr("no such model folder"),
                    where=model,
                    remedy=tr("Give the folder of a run or of a model"),
                )


def _stop_at_bad_input(out: Path, manifests: list[dict[str, Any]]) -> None:
    for bad in _quarantined(out, manifests)[:1]:
        raise UserError(
            bad["reason"],
            where=bad["origin"],
            remedy=tr(
                "{remedy}; or leave such inputs out with corpus.on_bad_input=quarantine",
                remedy=bad["remedy"],
            ),
        )


def _quarantined(out: Path, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gathers what could not be read into one list."""
    import json

    rows = []
    for manifest in manifests:
        path = out / f"{manifest['name']}.{QUARANTINE}"
        if path.is_file():
            rows += [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return rows


def build_corpus(
    config: CorpusStageConfig,
    inputs: dict[str, Path],
    out: Path,
    display: Display = SILENT,
) -> dict[str, Any]:
    """Writes the folders `train`, `validation` and `test`, and what was dropped.

    Args:
        config: what stays, how it is split, and what rewrites texts.
        inputs: folder of `documents`.
        out: where to.
        display: shows progress.

    Returns:
        `funnel`: documents and bytes kept and dropped, by reason; `splits`: documents, bytes and
        characters of each; `cjk_share`: share of bytes in Chinese characters; `section_chars` and
        `shares` as derived; `bad_inputs`: how many were set aside; `duplicates`, `languages` and
        `seconds` of each step.

    Raises:
        UserError: nothing is left, or too little for three splits.
    """
    corpus = config.corpus
    documents = inputs["documents"]
    manifests = read_manifests(documents)
    chosen, seconds = _selected(corpus, documents, manifests, display)
    kept = chosen.fate < 0
    chars = int(chosen.columns["chars"][kept].sum())
    limit = section_chars(int(kept.sum()), chars)
    validation = corpus.validation or derived_share(chars)
    test = corpus.test or derived_share(chars)
    plan = Plan(
        documents=str(documents),
        out=str(out),
        reasons=chosen.reasons,
        limit=limit,
        dealing={
            "given": [source.split for source in corpus.sources],
            "validation": validation,
            "test": test,
        },
        augment=[step.model_dump(mode="json") for step in corpus.augment],
        rewriter=config.rewriter,
    )
    total = _written(plan, chosen, manifests, corpus, display, seconds)
    splits = {
        name: total["splits"].get(name, {"documents": 0, "bytes": 0, "chars": 0}) for name in SPLITS
    }
    _refuse_empty_split(splits)
    concluded = _concluded(documents, out, manifests, chosen, total)
    quality = quality_histograms(chosen.columns, thresholds_in_force(corpus.quality))
    write_json(out / OVERVIEW, overview(out, measure=False) | {"quality": quality})
    return concluded | {
        "splits": splits,
        "cjk_share": total["cjk_bytes"] / max(sum(s["bytes"] for s in splits.values()), 1),
        "section_chars": limit,
        "shares": {"validation": validation, "test": test},
        "augmented": total["augmented"],
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def write_documents(
    config: CorpusConfig, documents: Path, out: Path, display: Display = SILENT
) -> dict[str, Any]:
    """Writes the documents that stay to the folder `documents`, without splitting them.

    Args:
        config: what stays.
        documents: what `prepare_documents` wrote.
        out: where to.
        display: shows progress.

    Returns:
        The metrics of `build_corpus`, less those of splits.

    Raises:
        UserError: nothing is left.
    """
    manifests = read_manifests(documents)
    chosen, seconds = _selected(config, documents, manifests, display)
    plan = Plan(str(documents), str(out), chosen.reasons, limit=None, dealing=None, augment=[])
    total = _written(plan, chosen, manifests, config, display, seconds)
    return _concluded(documents, out, manifests, chosen, total) | {
        "seconds": {name: round(value, 3) for name, value in seconds.items()}
    }


def _concluded(
    documents: Path,
    out: Path,
    manifests: list[dict[str, Any]],
    chosen: Selection,
    total: dict[str, Any],
) -> dict[str, Any]:
    """Writes what was dropped, kept and set aside, and gives the figures of it."""
    write_lines(out / "dropped.jsonl", total["samples"])
    write_lines(out / "kept.jsonl", total["kept_samples"])
    shutil.copyfile(documents / QUARANTINE, out / QUARANTINE)
    names = parts_with_documents(manifests)
    duplicates = write_clusters(chosen, documents, names, out / "clusters.parquet")
    return {
        "funnel": _funnel(manifests, chosen, total),
        "bad_inputs": sum(manifest["bad_inputs"] for manifest in manifests),
        "duplicates": duplicates,
        "languages": total["languages"],
    }


def parts_with_documents(manifests: list[dict[str, Any]]) -> list[str]:
    """Gives the names of the groups that hold documents."""
    return [manifest["name"] for manifest in manifests if manifest["documents"]]


def _selected(
    config: CorpusConfig, documents: Path, manifests: list[dict[str, Any]], display: Display
) -> tuple[Selection, dict[str, float]]:
    names = parts_with_documents(manifests)
    if not names:
        _refuse_empty(manifests, None, documents)
    started: dict[str, float] = {}
    with display.task("corpus", unit="docs") as task:

        def on_step(step: str) -> None:
            started[step] = time.perf_counter()
            task.advance(0, step=tr(step))

        chosen = select(config, documents, names, on_step)
    ends = [*list(started.values())[1:], time.perf_counter()]
    seconds = {step: end - begun for (step, begun), end in zip(started.items(), ends, strict=True)}
    if not (chosen.fate < 0).any():
        _refuse_empty(manifests, chosen, documents)
    return chosen, seconds


def _written(
    plan: Plan,
    chosen: Selection,
    manifests: list[dict[str, Any]],
    config: CorpusConfig,
    display: Display,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Writes all parts and gives their totals."""
    from tianti.corpus.engine import WORTH_WORKERS_LIGHT, run_tasks

    started = time.perf_counter()
    names = parts_with_documents(manifests)
    folder = Path(plan.out) / ".decisions"
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for number, name in enumerate(names):
        place = chosen.of_part(number)
        rows = np.empty(place.stop - place.start, _DECISIONS)
        rows["fate"], rows["key"] = chosen.fate[place], chosen.key[place]
        save_npy(folder / f"{name}.npy", rows)
        tasks.append(plan.task(name, number, str(folder / f"{name}.npy")))
    results: list[dict[str, Any]] = []
    num_bytes = sum(manifest["bytes"] for manifest in manifests)
    small = num_bytes < WORTH_WORKERS_LIGHT and config.workers is None and not plan.augment
    with display.task("corpus", len(chosen.fate), "docs") as task:

        def on_result(result: dict[str, Any]) -> None:
            results.append(result)
            task.advance(sum(split["documents"] for split in result["splits"].values()))

        run_tasks(
            FUNCTION,
            tasks,
            runner=config.engine,
            workers=1 if small else config.workers or os.cpu_count() or 1,
            on_result=on_result,
        )
    shutil.rmtree(folder)
    seconds["write"] = time.perf_counter() - started
    return merged(sorted(results, key=lambda result: result["name"]))


def _funnel(
    manifests: list[dict[str, Any]], chosen: Selection, total: dict[str, Any]
) -> dict[str, Any]:
    kept = chosen.fate < 0
    return {
        "read": {
            "documents": sum(manifest["documents"] for manifest in manifests),
            "bytes": sum(manifest["bytes_in"] for manifest in manifests),
        },
        # In the order of the steps, not of their counts: a funnel is read from its wide end.
        "dropped": {
            reason: total["dropped"][reason]
            for reason in chosen.reasons
            if reason in total["dropped"]
        },
        "kept": {
            "documents": int(kept.sum()),
            "bytes": int(chosen.columns["bytes"][kept].sum()),
        },
        "sources": total["sources"],
    }


def _refuse_empty(
    manifests: list[dict[str, Any]], chosen: Selection | None, documents: Path
) -> None:
    read = sum(manifest["documents"] for manifest in manifests)
    if not read and (bad := _quarantined(documents, manifests)):
        raise UserError(bad[0]["reason"], where=bad[0]["origin"], remedy=bad[0]["remedy"])
    dropped: dict[str, int] = {}
    if chosen is not None:
        dropped = {
            reason: int((chosen.fate == number).sum())
            for number, reason in enumerate(chosen.reasons)
        }
    raise UserError(
        tr("the corpus is empty: none of {count} documents was kept", count=read),
        where="corpus.sources",
        remedy=tr(
            "Dropped: {reasons}. Check the sources, corpus.min_chars and these rules",
            reasons=", ".join(f"{tr(name)} {count:,}" for name, count in dropped.items()) or 0,
        ),
    )


def _refuse_empty_split(splits: dict[str, dict[str, int]]) -> None:
    empty = [name for name in SPLITS if not splits[name]["documents"]]
    if empty:
        count = sum(split["documents"] for split in splits.values())
        raise UserError(
            tr(
                "the corpus is too small for its split: {count} documents leave nothing for"
                " {empty}",
                count=count,
                empty=", ".join(empty),
            ),
            where="corpus",
            remedy=tr(
                "Add text, raise corpus.validation and corpus.test, or give a source its own split"
            ),
        )
