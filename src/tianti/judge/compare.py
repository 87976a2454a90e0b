"""Models on the same items: how far apart, and whether that could be chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tianti.errors import Damaged, UserError
from tianti.evaluate.statistics import Share, mcnemar, paired_difference
from tianti.evaluate.tasks.kinds import kind_of
from tianti.evaluate.tasks.kinds.base import Item, Kind
from tianti.evaluate.tasks.load import parse_task
from tianti.files import read_json
from tianti.judge import EVALUATIONS
from tianti.judge.evaluation import ITEMS, RESULT, VERSION, read_items
from tianti.messages import tr


def results_in(place: Path) -> dict[str, list[Path]]:
    """Gives the results of each task under a model, a run or a folder of evaluations.

    Returns:
        For each task its results, what was asked for last first.

    Raises:
        UserError: there is none.
    """
    beside = [place.parent / EVALUATIONS] if place.name == "model" and place.is_dir() else []
    # Where those of a model that is no run's are kept: by name and identity.
    here = sorted(Path(EVALUATIONS).glob(f"{place.resolve().name}-*")) if place.is_dir() else []
    for folder in (place, place / EVALUATIONS, *beside, *here):
        found = sorted(folder.glob(f"*/*/{RESULT}"), key=lambda path: -path.stat().st_mtime_ns)
        results: dict[str, list[Path]] = {}
        for path in found:
            # Of another version the same settings gave other answers.
            if read_json(path).get("version") == VERSION:
                results.setdefault(path.parent.parent.name, []).append(path)
        if results:
            return results
    raise UserError(
        tr("there are no evaluations here"),
        where=place,
        remedy=tr("Judge the model first: tianti eval MODEL --task NAME"),
    )


def compare(places: Sequence[Path], tasks: Sequence[str] | None = None) -> dict[str, Any]:
    """Compares models with the first, on every task that all were judged by, with the same items.

    Args:
        places: models, runs or folders of evaluations, two or more.
        tasks: only these.

    Returns:
        `models`, and for each task the figures of each, and the differences of the first to each
        of the others.

    Raises:
        UserError: there is nothing to compare, or the items are not the same.
    """
    if len(places) < 2:
        raise UserError(tr("one model alone cannot be compared"), remedy=tr("Name another one"))
    found = [results_in(place) for place in places]
    given = [str(place) for place in places]
    names = [
        name
        for name in found[0]
        if all(name in other for other in found) and (not tasks or name in tasks)
    ]
    if not names:
        raise UserError(
            tr("they have no task in common"),
            where=", ".join(map(str, places)),
            remedy=tr("Judge all by the same task: tianti eval MODEL --task NAME"),
        )
    alike = {name: _judged_alike([results[name] for results in found], given) for name in names}
    compared = {name: _compare_task(paths) for name, paths in alike.items()}
    models = [read_json(path)["model"] for path in alike[names[0]]]
    return {"models": models, "tasks": compared}


def _judged_alike(candidates: Sequence[list[Path]], places: Sequence[str]) -> list[Path]:
    """Gives a result of each model, all of the same items and settings: the newest that all have.

    Raises:
        UserError: they have none in common; the first two that differ are named.
    """
    told = [{path: _judged_by(path) for path in paths} for paths in candidates]
    for first in candidates[0]:
        wanted = told[0][first]
        same = [[path for path, one in each.items() if one == wanted] for each in told]
        if all(same):
            return [paths[0] for paths in same]
    newest = [read_json(paths[0]) for paths in candidates]
    other = next(n for n, each in enumerate(told) if not set(each.values()) & {*told[0].values()})
    raise UserError(
        tr("they were judged on other items or with other settings"),
        where=f"{newest[0]['task']}: "
        + ", ".join(f"{places[n]} (n={newest[n]['n']})" for n in (0, other)),
        remedy=tr("Judge all anew by the same task"),
    )


def _judged_by(path: Path) -> tuple[str, ...]:
    """Gives what two results must share to be compared: settings, and the items in order."""
    result = read_json(path)
    items = [item for item, _ in read_items(path.parent / ITEMS)]
    if len(items) != result["n"]:
        raise Damaged(
            tr("{left} of {count} items are left", left=len(items), count=result["n"]),
            where=path.parent / ITEMS,
            remedy=tr("Delete the folder and judge the model again"),
        )
    return (json.dumps(result["settings"], sort_keys=True), *[item["hash"] for item in items])


def _compare_task(paths: Sequence[Path]) -> dict[str, Any]:
    results = [read_json(path) for path in paths]
    items = [[item for item, _ in read_items(path.parent / ITEMS)] for path in paths]
    settings = [result["settings"] for result in results]
    kind = kind_of(parse_task(settings[0], results[0]["task"]))
    return {
        "headline": results[0]["headline"],
        "higher_is_better": results[0]["higher_is_better"],
        "n": len(items[0]),
        "figures": [result["figures"] for result in results],
        "differences": [_differences(kind, items[0], other) for other in items[1:]],
    }


def _differences(kind: Kind, one: list[Item], other: list[Item]) -> dict[str, Any]:
    count, differences = len(one), {}
    for name, both in kind.figures([*one, *other]).items():
        found = paired_difference(both, count)
        if isinstance(both, Share):
            first, second = both.right[:count], both.right[count:]
            p = mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
            found = replace(found, p=p)
        differences[name] = found.as_dict()
    return differences


def letters(count: int) -> list[str]:
    """Gives the letters models are called by: A, B, … and beyond Z numbers."""
    return [chr(ord("A") + n) if n < 26 else str(n + 1) for n in range(count)]
