"""What decides whether a stage must be done again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from pydantic import BaseModel


def plain(value: Any) -> Any:
    """Gives a config as plain JSON values.

    Raises:
        TypeError: there is something in it that has no plain form.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def fingerprint(stage: str, version: int, config: Any, inputs: dict[str, str]) -> str:
    """Gives the identity of what a stage would make.

    Args:
        stage: its name.
        version: of its code: raised by us whenever the same config would give another output.
        config: plain values.
        inputs: fingerprints of the stages it reads.
    """
    text = json.dumps([stage, version, config, inputs], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Gives what differs between two plain configs, as `a.b: 1 → 2`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted({*before, *after})
            for line in changes(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if before == after else [f"{path or 'config'}: {_short(before)} → {_short(after)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
