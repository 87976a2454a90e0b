"""Two models on the same items: how far apart, and whether that could be chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tianti.errors import UserError
from tianti.evaluate.statistics import Share, mcnemar, paired_difference
from tianti.evaluate.tasks.kinds import kind_of
from tianti.evaluate.tasks.load import parse_task
from tianti.files import read_json
from tianti.judge.evaluation import ITEMS, RESULT, read_items
from tianti.messages import tr

EVALUATIONS = "evaluations"


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


def compare(first: Path, second: Path, tasks: list[str] | None = None) -> dict[str, Any]:
    """Compares two models on every task that both were judged by, with the same items.

    Args:
        first: a model, a run or a folder of evaluations.
        second: another.
        tasks: only these.

    Returns:
        `models`, and for each task both results, and for each figure the difference.

    Raises:
        UserError: there is nothing to compare, or the items are not the same.
    """
    one, other = results_in(first), results_in(second)
    names = [name for name in one if name in other and (not tasks or name in tasks)]
    if not names:
        raise UserError(
            tr("the two have no task in common"),
            where=f"{first}, {second}",
            remedy=tr("Judge both by the same task: tianti eval MODEL --task NAME"),
        )
    compared = {name: _compare_task(one[name], other[name]) for name in names}
    models = [read_json(paths[names[0]])["model"] for paths in (one, other)]
    return {"models": models, "tasks": compared}


def _compare_task(one: Path, other: Path) -> dict[str, Any]:
    results = [read_json(path) for path in (one, other)]
    items = [read_items(path.parent / ITEMS) for path in (one, other)]
    hashes = [[item["hash"] for item in each] for each in items]
    if hashes[0] != hashes[1] or results[0]["settings"] != results[1]["settings"]:
        raise UserError(
            tr("the two were judged on other items or with other settings"),
            where=results[0]["task"],
            remedy=tr("Judge both anew by the same task"),
        )
    kind = kind_of(parse_task(results[0]["settings"], results[0]["task"]))
    count = len(items[0])
    differences = {}
    for name, both in kind.figures([*items[0], *items[1]]).items():
        found = paired_difference(both, count)
        if isinstance(both, Share):
            first, second = both.right[:count], both.right[count:]
            p = mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
            found = replace(found, p=p)
        differences[name] = found.as_dict()
    return {
        "headline": results[0]["headline"],
        "higher_is_better": results[0]["higher_is_better"],
        "n": count,
        "figures": [result["figures"] for result in results],
        "differences": differences,
    }
