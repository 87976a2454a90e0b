"""Groups of files: the unit of work, of resuming and of what a lost worker costs.

A group is prepared by one call that reads its files and writes, each complete or not at all:
`NAME.arrow` (documents), `NAME.signatures.npy`, `NAME.quarantine.jsonl` and last `NAME.json`, the
manifest that says it is finished. NAME carries a hash of files, settings and code version, so a
group is done again exactly when one of them changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tianti.corpus.config import PrepareConfig, Source
from tianti.corpus.sources import file_state, format_of, list_files, source_state
from tianti.errors import Damaged
from tianti.files import read_json

VERSION = 4
GROUP_BYTES = 32 << 20


@dataclass(frozen=True)
class Group:
    """Files of one source that are prepared together.

    Args:
        name: its place and its fingerprint.
        task: what the worker is called with, JSON values.
        num_bytes: of its files.
    """

    name: str
    task: dict[str, Any]
    num_bytes: int


def plan_groups(
    config: PrepareConfig, out: Path, references: str = "", group_bytes: int = GROUP_BYTES
) -> list[Group]:
    """Cuts the sources into groups, held-out sources first.

    Of two equal texts the first counts, so one that would be trained on yields to one held out.

    Args:
        config: sources and steps.
        out: where the groups are written.
        references: hash of what all groups are compared with.
        group_bytes: about how much text a group holds.
    """
    order = {"test": 0, "validation": 1}
    ranked = sorted(config.sources, key=lambda source: order.get(source.split or "", 2))
    settings = config.model_dump(mode="json", exclude={"sources"})
    compared = references
    if wants_all_sources(config):
        # What lines are too common depends on every file.
        compared += json.dumps([source_state(source) for source in config.sources])
    groups: list[Group] = []
    for source in ranked:
        for files in _cut(source, group_bytes):
            groups.append(_group(len(groups), source, files, settings, compared, out))
    return groups


def wants_all_sources(config: PrepareConfig) -> bool:
    """Tells whether what a group becomes depends on the other groups."""
    return config.clean.boilerplate_lines is not None or config.dedup.lines is not None


def _cut(source: Source, group_bytes: int) -> list[list[dict[str, Any]]]:
    """Gives the files of a source in groups; plain JSONL files are cut at line ends."""
    if source.builtin:
        return [[{"builtin": source.builtin}]]
    groups: list[list[dict[str, Any]]] = []
    room = 0
    for path in list_files(source):
        for piece in _pieces(file_state(path), source, group_bytes):
            size = piece["stop"] - piece["start"]
            if not groups or size > room:
                groups.append([])
                room = group_bytes
            groups[-1].append(piece)
            room -= size
    return groups


def _pieces(state: dict[str, Any], source: Source, group_bytes: int) -> list[dict[str, Any]]:
    path, size = state["path"], state["bytes"]
    whole = {**state, "start": 0, "stop": size, "part": False}
    plain = format_of(path, source) == "jsonl" and path.lower().endswith((".jsonl", ".ndjson"))
    if "://" in path or not plain or size < 2 * group_bytes:
        return [whole]
    pieces, start = [], 0
    with open(path, "rb") as file:
        while start < size:
            file.seek(min(start + group_bytes, size))
            # A line that never ends is read in bounded steps.
            while block := file.readline(1 << 20):
                if block.endswith(b"\n"):
                    break
            stop = min(file.tell(), size)
            pieces.append({**state, "start": start, "stop": stop, "part": True})
            start = stop
    return pieces


def _group(
    number: int,
    source: Source,
    files: list[dict[str, Any]],
    settings: dict[str, Any],
    compared: str,
    out: Path,
) -> Group:
    identity = {
        "version": VERSION,
        "source": source.model_dump(mode="json"),
        "files": files,
        "settings": settings,
        "compared": compared,
    }
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    name = f"{number:06d}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    task = {
        "name": name,
        "number": number,
        "source": source.model_dump(mode="json"),
        "files": files,
        "settings": settings,
        "out": str(out),
    }
    return Group(name, task, sum(file.get("stop", 0) - file.get("start", 0) for file in files))


def finished(group: Group, out: Path) -> dict[str, Any] | None:
    """Gives the manifest of a group that is finished, None for one that is to be done."""
    path = out / f"{group.name}.json"
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
        complete = all(
            (out / name).stat().st_size == size for name, size in manifest["files"].items()
        )
    except (Damaged, OSError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def remove_leftovers(groups: list[Group], out: Path) -> None:
    """Removes what groups left that are no longer asked for, and what was never finished."""
    wanted = {group.name for group in groups}
    for path in out.iterdir():
        if path.is_file() and (
            path.name.startswith(".") or (path.name[:6].isdigit() and path.name[:19] not in wanted)
        ):
            path.unlink()
