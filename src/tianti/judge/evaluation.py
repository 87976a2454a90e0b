"""One model, one task: every item asked once, kept as it is answered, judged in the end."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tianti.errors import Damaged, UserError, os_errors_named
from tianti.evaluate.contamination import TrainingText
from tianti.evaluate.models.base import LanguageModel
from tianti.evaluate.statistics import interval
from tianti.evaluate.tasks.config import Task
from tianti.evaluate.tasks.kinds import kind_of
from tianti.evaluate.tasks.kinds.base import Item, Kind, Question
from tianti.evaluate.tasks.rows import Row, content_hash, evenly, matching, read_rows, resolve
from tianti.evaluate.tasks.shots import Examples
from tianti.files import read_json, sha256_file, write_json
from tianti.messages import tr
from tianti.progress import SILENT, Display
from tianti.runs.results import without_nan

# Raised by hand whenever the same settings give other answers than before.
VERSION = 3
ITEMS, RESULT, READS = "items.jsonl", "result.json", "reads.json"
# Between two times of writing answers down: characters asked about, and most items.
_CHUNK_CHARACTERS, _CHUNK_ITEMS = 65_536, 512
_LOOKED_AT = 16
_SHOWN, _SHOWN_CHARACTERS = 8, 600


@dataclass(frozen=True)
class Prepared:
    """A task with its items.

    Args:
        task: its settings.
        kind: what asks and judges.
        rows: the items.
        examples: what may stand before them.
        data: hashes of the files, which results are kept under.
        path: of the items' file.
    """

    task: Task
    kind: Kind
    rows: list[Row]
    examples: Examples
    data: tuple[str, ...]
    path: str

    def question(self, number: int) -> Question:
        """Gives an item as it is asked, its examples before it."""
        row, where = self.rows[number], f"{self.task.name}, {tr('item {n}', n=number)}"
        shots = self.examples.of(row)
        separator = self.task.few_shot.separator
        prefix = "".join(self.kind.example(shot, where) + separator for shot in shots)
        question = self.kind.question(row, where)
        return Question(**(vars(question) | {"prefix": prefix}))

    def group(self, number: int) -> str | None:
        """Gives the group of an item, where the task has groups."""
        if self.task.group is None:
            return None
        row = self.rows[number]
        if self.task.group not in row:
            raise UserError(
                tr("there is no field {field!r}", field=self.task.group),
                where=f"{self.path}: {tr('item {n}', n=number)}",
                remedy=tr("Its fields are: {fields}", fields=", ".join(map(str, row))[:200]),
            )
        return str(row[self.task.group])


def prepare(task: Task, beside: Path, data: Path | None) -> Prepared:
    """Reads the items of a task and what its examples are chosen from.

    Args:
        task: the settings.
        beside: folder of the task file.
        data: folder of data.

    Raises:
        UserError: a file is not there or is not what it should be; there are no items; examples
            would come from what is tested.
    """
    path = resolve(task.data, beside, data)
    everything = read_rows(path, getattr(task, "documents", None))
    rows = evenly(matching(everything, task.where), task.limit)
    if not rows:
        raise UserError(
            tr("no item is left of {count}", count=len(everything)),
            where=path,
            remedy=tr("Check `where` and the file"),
        )
    pool: list[Row] = []
    hashes = [_hash_of(path)]
    if task.few_shot.k:
        if task.few_shot.data is None:
            raise UserError(
                tr("few_shot.data does not say where examples come from"),
                where=task.name,
                remedy=tr("Name a file of training items"),
            )
        other = resolve(task.few_shot.data, beside, data)
        hashes.append(_hash_of(other))
        same = hashes[0] == hashes[1]
        if same and task.few_shot.where == task.where:
            raise UserError(
                tr("examples would be taken from the items that are tested"),
                where=other,
                remedy=tr("Name a file of training items in few_shot.data"),
            )
        pool = matching(read_rows(other), task.few_shot.where)
    # All that matches is tested in some run, so none of it may stand before an item.
    tested = matching(everything, task.where)
    kind = kind_of(task)
    examples = Examples(task.few_shot, pool, tested, kind.asked, task.name)
    if (
        pool
        and task.few_shot.choose == "first"
        and examples.rows[: task.few_shot.k] != (pool[: task.few_shot.k])
    ):
        raise UserError(
            tr("an example is one of the items that are tested"),
            where=task.name,
            remedy=tr("Take it out of few_shot.data"),
        )
    return Prepared(task, kind, rows, examples, tuple(hashes), path)


def _hash_of(path: str) -> str:
    return path if "://" in path else sha256_file(Path(path))


def key_of(model: LanguageModel, prepared: Prepared, training: TrainingText | None = None) -> str:
    """Gives the hash of all that decides a result: weights, tokenizer, task, data, version."""
    parts = [VERSION, model.identity, prepared.task.model_dump(mode="json"), *prepared.data]
    parts += [training.identity] if training is not None else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def evaluate(
    model: LanguageModel,
    prepared: Prepared,
    out: Path,
    display: Display = SILENT,
    training: TrainingText | None = None,
    shared: Path | None = None,
) -> dict[str, Any]:
    """Gives the result of a task, from what is kept or by asking what is not.

    Args:
        model: whoever answers.
        prepared: the task with its items.
        out: folder in which results are kept, `TASK/KEY` for each.
        display: shows progress.
        training: the text the model was trained on, where it is known: items that stand in it are
            told apart.
        shared: folder that counts how often items are read; `out` when not given.

    Returns:
        What `result.json` holds: `figures` with their intervals, `groups`, `details`, and what it
        was measured with.

    Raises:
        UserError: an item cannot be asked, or the model fails; finished items stay.
    """
    task, key = prepared.task, key_of(model, prepared, training)
    folder = out / task.name / key
    if (folder / RESULT).is_file():
        try:
            kept = read_json(folder / RESULT)
            # The newest is what was asked for last, whether it was answered now or before.
            os.utime(folder / RESULT)
            return kept
        except Damaged:
            display.say(tr("{path} is damaged: it is written again", path=folder / RESULT))
    with os_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    step = _chunk(prepared)
    items = whole_items(folder / ITEMS, step, len(prepared.rows))
    began = time.perf_counter()
    with display.task(task.name, len(prepared.rows), "items") as progress:
        progress.start_at(len(items))
        while len(items) < len(prepared.rows):
            numbers = range(len(items), min(len(items) + step, len(prepared.rows)))
            made = _ask(model, prepared, numbers, training)
            _append(folder / ITEMS, made)
            items.extend(made)
            progress.advance(len(made))
    reads = _count_read((shared or out) / READS, prepared, key)
    result = _result(model, prepared, key, items, known=training is not None) | {
        "test_reads": reads,
        "seconds": round(time.perf_counter() - began, 3),
    }
    write_json(folder / RESULT, without_nan(result))
    return read_json(folder / RESULT)


def _result(
    model: LanguageModel, prepared: Prepared, key: str, items: Sequence[Item], *, known: bool
) -> dict[str, Any]:
    """Gives what the items say; `known` is whether they were looked up in the training text."""
    task = prepared.task
    return {
        "task": task.name,
        "kind": task.kind,
        "language": task.language,
        "description": task.description,
        "model": {"name": model.name, "identity": model.identity, "step": model.step},
        "key": key,
        "version": VERSION,
        "n": len(items),
        **judge(prepared.kind, items),
        "contamination": _contamination(prepared.kind, items) if known else None,
        "worst": _worst(prepared, items),
        "published": task.published,
        "few_shot": {
            "k": task.few_shot.k,
            "choose": task.few_shot.choose,
            "left_out": prepared.examples.leaked,
        },
        "truncated": sum("truncated" in item for item in items),
        "settings": task.model_dump(mode="json"),
    }


def _chunk(prepared: Prepared) -> int:
    """Gives how many items are asked together: a function of the task, so that a resumed evaluation
    asks the same ones together.
    """
    looked_at = min(_LOOKED_AT, len(prepared.rows))
    written = 4 * prepared.task.max_tokens if prepared.task.kind == "generate" else 0
    characters = 1 + looked_at * written
    for question in map(prepared.question, range(looked_at)):
        parts = [question.prefix, question.context, *question.contexts, *question.options]
        characters += sum(map(len, parts))
    return max(1, min(_CHUNK_ITEMS, _CHUNK_CHARACTERS * looked_at // characters))


def _ask(
    model: LanguageModel, prepared: Prepared, numbers: range, training: TrainingText | None
) -> list[Item]:
    questions = [prepared.question(number) for number in numbers]
    answers = prepared.kind.answer(model, questions)
    if not all(np.isfinite(answer.get("nats", 0.0)).all() for answer in answers):
        raise UserError(
            tr("its likelihoods are no numbers"),
            where=model.name,
            remedy=tr("Its weights are damaged, or its training diverged: take another checkpoint"),
        )
    known: Sequence[float | None] = [None] * len(numbers)
    if training is not None:
        known = training.shares([_texts_in(prepared.rows[number]) for number in numbers])
    made = []
    for number, answer, share in zip(numbers, answers, known, strict=True):
        item = {"item": number, "hash": content_hash(prepared.rows[number])}
        if (group := prepared.group(number)) is not None:
            item["group"] = group
        if training is not None:
            item["in_training"] = share
        made.append(item | answer)
    return made


def judge(kind: Kind, items: Sequence[Item]) -> dict[str, Any]:
    """Gives figures over all items and by group, with what pictures need."""
    figures = {
        name: interval(statistic, len(items)).as_dict()
        for name, statistic in kind.figures(items).items()
    }
    groups: dict[str, Any] = {}
    for name in sorted({item["group"] for item in items if "group" in item}):
        members = [item for item in items if item["group"] == name]
        groups[name] = interval(kind.figures(members)[kind.headline], len(members)).as_dict()
    return {
        "headline": kind.headline,
        "higher_is_better": kind.higher_is_better,
        "figures": figures,
        "chances": kind.chances(items),
        "groups": groups,
        "details": kind.details(items),
    }


def _texts_in(value: Any) -> list[str]:
    """Gives all texts of an item, those in lists and mappings too."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inner for text in _texts_in(part)]


def _contamination(kind: Kind, items: Sequence[Item]) -> dict[str, Any]:
    """Gives how many items stand in the training text, and the headline with and without them."""
    parts = {
        "clean": [item for item in items if item["in_training"] == 0],
        "touched": [item for item in items if item["in_training"]],
        "too_short": [item for item in items if item["in_training"] is None],
    }
    return {
        name: {
            "n": len(part),
            "figure": interval(kind.figures(part)[kind.headline], len(part)).as_dict()
            if part
            else None,
        }
        for name, part in parts.items()
    }


def _worst(prepared: Prepared, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Gives the worst errors as people would read them."""
    found = [(bad, item) for item in items if (bad := prepared.kind.badness(item)) is not None]
    found.sort(key=lambda pair: -pair[0])
    shown = []
    for bad, item in found[:_SHOWN]:
        question = prepared.question(item["item"])
        context = question.contexts[0] if question.contexts else question.context
        shown.append(
            {
                "item": item["item"],
                "score": bad,
                "context": context[-_SHOWN_CHARACTERS:],
                "options": [option[:_SHOWN_CHARACTERS] for option in question.options],
                "gold": item.get("gold"),
                "predicted": item.get("predicted"),
                "generated": item.get("generated"),
                "references": question.references,
            }
        )
    return shown


def read_items(path: Path) -> list[tuple[Item, int]]:
    """Gives the items a file holds, up to the first line that is none, and where each ends."""
    if not path.is_file():
        return []
    items: list[tuple[Item, int]] = []
    place = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            item = orjson.loads(line)
        except orjson.JSONDecodeError:
            break
        whole = line.endswith(b"\n") and isinstance(item, dict)
        if not whole or item.get("item") != len(items):
            break
        place += len(line)
        items.append((item, place))
    return items


def whole_items(path: Path, step: int, most: int) -> list[Item]:
    """Gives the items to go on from, and cuts off whatever follows them in the file.

    Args:
        path: the file.
        step: items asked together: what is not whole is dropped, because the last digits of an
            answer depend on what is asked beside it.
        most: items in all.
    """
    items = read_items(path)
    if len(items) != most:
        del items[len(items) // step * step :]
    whole = items[-1][1] if items else 0
    if path.is_file() and whole < path.stat().st_size:
        os.truncate(path, whole)
    return [item for item, _ in items]


def _append(path: Path, items: Sequence[Item]) -> None:
    with os_errors_named(path), open(path, "ab") as file:
        file.write(b"".join(orjson.dumps(item) + b"\n" for item in items))
        file.flush()
        os.fsync(file.fileno())


def _count_read(path: Path, prepared: Prepared, key: str) -> int:
    """Notes that this evaluation reads the test items, and gives how many have."""
    try:
        known = read_json(path) if path.is_file() else {}
    except Damaged as error:
        raise UserError(
            tr("the count of readings cannot be read"),
            where=path,
            remedy=tr("Delete the file: the count then begins anew"),
        ) from error
    keys = set(known.get(prepared.data[0], {}).get("keys", [])) | {key}
    known[prepared.data[0]] = {"file": Path(prepared.path).name, "keys": sorted(keys)}
    write_json(path, known)
    return len(keys)
