"""Models on the same items: how far apart, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tianti.errors import UserError
from tianti.evaluate.statistics import Share, mcnemar, paired_difference
from tianti.evaluate.tasks.kinds import kind_of
from tianti.evaluate.tasks.kinds.base import Item, Kind
from tianti.evaluate.tasks.load import parse_task
from tianti.files import read_json
from tianti.judge import EVALUATIONS
from tianti.judge.evaluation import ITEMS, RESULT, read_items
from tianti.messages import tr


def results_in(place: Path) -> dict[str, Path]:
    """Gives the newest result of each task under a model, a run or a folder of evaluations.

    Raises:
        UserError: there is none.
    """
    for folder in (place, place / EVALUATIONS, place.parent / EVALUATIONS):
        found = sorted(folder.glob(f"*/*/{RESULT}"), key=lambda path: path.stat().st_mtime_ns)
        if found:
            return {path.parent.parent.name: path for path in found}
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
    compared = {name: _compare_task([paths[name] for paths in found]) for name in names}
    models = [read_json(paths[names[0]])["model"] for paths in found]
    return {"models": models, "tasks": compared}


def _compare_task(paths: Sequence[Path]) -> dict[str, Any]:
    results = [read_json(path) for path in paths]
    items = [read_items(path.parent / ITEMS) for path in paths]
    hashes = [[item["hash"] for item in each] for each in items]
    settings = [result["settings"] for result in results]
    if any(other != hashes[0] for other in hashes) or any(s != settings[0] for s in settings):
        raise UserError(
            tr("they were judged on other items or with other settings"),
            where=results[0]["task"],
            remedy=tr("Judge all anew by the same task"),
        )
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
