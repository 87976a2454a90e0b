"""Which examples are learnt from, and which classes there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tianti.errors import UserError
from tianti.messages import tr
from tianti.tune.config import TuneConfig
from tianti.tune.examples import Example


def _rank(example: Example, seed: int) -> str:
    """Gives a place in an order that is the example's own, whatever stands beside it."""
    said = {name: value for name, value in example.items() if name != "place"}
    text = json.dumps([seed, said], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _of_each(examples: Sequence[Example], tune: TuneConfig) -> list[list[Example]]:
    """Gives examples by class; all together where they have not one class each."""
    if tune.task != "classify" or tune.several:
        return [list(examples)]
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example["label"], []).append(example)
    return list(groups.values())


def parted(
    examples: Sequence[Example], share: float, tune: TuneConfig, seed: int
) -> tuple[list[Example], list[Example]]:
    """Splits a share off, of each class alike; copies of an example stay together.

    Raises:
        UserError: there are too few.
    """
    taken: set[int] = set()
    for group in _of_each(examples, tune):
        ranks = {id(example): _rank(example, seed) for example in group}
        different = sorted(set(ranks.values()))
        chosen = set(different[: round(share * len(different))])
        taken |= {key for key, rank in ranks.items() if rank in chosen}
    rest = [example for example in examples if id(example) not in taken]
    part = [example for example in examples if id(example) in taken]
    if not rest or not part:
        raise UserError(
            tr("{count} examples are too few to split", count=len(examples)),
            where=tune.train,
            remedy=tr("Name files for validation and test"),
        )
    return rest, part


def few_of_each(
    examples: Sequence[Example], labels: Sequence[str], count: int, seed: int
) -> list[Example]:
    """Gives so many examples of each class, drawn by the seed; another seed gives others."""
    found: list[Example] = []
    for label in labels:
        group = [example for example in examples if example["label"] == label]
        found += sorted(group, key=lambda example: _rank(example, seed))[:count]
    return found


def labels_of(examples: Sequence[Example], tune: TuneConfig) -> list[str]:
    """Gives the classes in order: as they are named, else those there are, sorted.

    Raises:
        UserError: they cannot be told apart.
    """
    if tune.task not in ("classify", "tag"):
        return []
    if tune.labels is not None:
        if len(set(tune.labels)) != len(tune.labels):
            raise UserError(tr("a class is named twice"), where="tune.labels")
        return _enough(tune.labels, tune)
    seen: set[str] = set()
    for example in examples:
        if tune.task == "tag":
            seen |= {kind for *_, kind in example["entities"]}
            continue
        label = example["label"]
        if isinstance(label, list) and not tune.several:
            raise UserError(
                tr("there are several classes, one is wanted"),
                where=example["place"],
                remedy=tr("Set tune.several if any number may be right"),
            )
        seen |= set(label if isinstance(label, list) else [label])
    if all(label.isdecimal() for label in seen):
        return _enough(sorted(seen, key=int), tune)
    return _enough(sorted(seen), tune)


def _enough(labels: list[str], tune: TuneConfig) -> list[str]:
    """Gives the classes, if there are enough to tell apart.

    Raises:
        UserError: there are not.
    """
    if not labels:
        raise UserError(
            tr("no example has a class, or entities"),
            where=tune.train,
            remedy=tr("Name the column with tune.columns"),
        )
    if tune.task == "classify" and len(labels) < 2 and not tune.several:
        raise UserError(
            tr("all examples have one class: {name}", name=labels[0]),
            where=tune.train,
            remedy=tr("Name the column of the class with tune.columns.label"),
        )
    return labels


def check_labels(examples: Sequence[Example], labels: Sequence[str], tune: TuneConfig) -> None:
    """Brings classes into one form, and refuses those that there are not.

    Raises:
        UserError: a class is none of those, with file and line.
    """
    known = set(labels)
    for example in examples:
        if tune.task == "classify":
            label = example["label"]
            if tune.several and not isinstance(label, list):
                example["label"] = label = [label]
            if not tune.several and isinstance(label, list):
                raise UserError(
                    tr("there are several classes, one is wanted"),
                    where=example["place"],
                    remedy=tr("Set tune.several if any number may be right"),
                )
            said = label if isinstance(label, list) else [label]
        elif tune.task == "tag":
            said = [kind for *_, kind in example["entities"]]
        else:
            return
        for one in said:
            if one not in known:
                raise UserError(
                    tr("the class {name!r} is none of those of training", name=one),
                    where=example["place"],
                    remedy=tr("Known: {names}", names=", ".join(labels[:20])),
                )
