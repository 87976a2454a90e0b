"""Task files: those that come along, and a user's own."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tianti.errors import UserError, from_os_error
from tianti.evaluate.tasks.config import Task
from tianti.messages import tr

_ADAPTER: TypeAdapter[Any] = TypeAdapter(Task)


def library() -> dict[str, Path]:
    """Gives the files of the tasks that come along, by name."""
    folder = Path(str(resources.files("tianti.evaluate.tasks") / "library"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_task(name: str, changes: dict[str, Any] | None = None) -> tuple[Task, Path]:
    """Reads a task.

    Args:
        name: of one that comes along, or the path of a YAML file.
        changes: settings by path (`few_shot.k`) that are other than in the file.

    Returns:
        The task and the folder beside which its data may lie.

    Raises:
        UserError: there is no such task, or the file is none; every mistake is named.
    """
    path = library().get(name, Path(name))
    if name not in library() and path.suffix not in (".yaml", ".yml"):
        remedy = tr("`tianti tasks` lists them; a file of your own ends in .yaml")
        if guess := difflib.get_close_matches(name, library(), n=1):
            remedy = tr("Did you mean {name!r}? {remedy}", name=guess[0], remedy=remedy)
        raise UserError(tr("there is no task of this name"), where=name, remedy=remedy)
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise from_os_error(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            tr("this is no YAML ({reason})", reason=" ".join(str(error).split())),
            where=path,
        ) from error
    return parse_task(values, str(path), changes), path.parent


def parse_task(values: Any, where: str, changes: dict[str, Any] | None = None) -> Task:
    """Gives the task that a mapping describes; see `load_task`."""
    if not isinstance(values, dict):
        raise UserError(tr("a task is a mapping such as: kind: choice"), where=where)
    for name, value in (changes or {}).items():
        inner = values
        *outer, last = name.split(".")
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(str, _place(problem['loc'], values)))}: {_said(problem['msg'])}"
            for problem in error.errors()
        ]
        raise UserError("; ".join(mistakes), where=where) from error


def _place(place: tuple[int | str, ...], values: dict[str, Any]) -> tuple[int | str, ...]:
    # Pydantic names the kind that the mapping chose before the field.
    kind = values.get("kind")
    return place[1:] or ("kind",) if place and place[0] == kind else place or ("kind",)


def _said(message: str) -> str:
    return re.sub(r"^Value error, ", "", message)
