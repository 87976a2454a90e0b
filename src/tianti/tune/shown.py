"""What a report shows of a tuning: examples as tokens, and what is said of others."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from tianti.tokens.examples import IGNORED, Examples
from tianti.tokens.tokenizer import Tokenizer
from tianti.tune.form import Form

SHOWN_EXAMPLES, SHOWN_PREDICTIONS = 6, 24
LONGEST_TEXT = 400


def shown_tokens(
    examples: Examples, form: Form, tokenizer: Tokenizer
) -> list[list[dict[str, str]]]:
    """Gives some examples, token by token with what is wanted there."""
    starts, found = examples.starts, []
    numbers = range(0, len(examples), max(1, len(examples) // SHOWN_EXAMPLES))
    names = form.tags if form.task == "tag" else form.labels
    told = form.classes or form.task == "align"
    for number in list(numbers)[:SHOWN_EXAMPLES]:
        here = slice(int(starts[number]), int(starts[number + 1]))
        ids, labels = examples.ids[here].tolist(), examples.labels[here].tolist()
        pieces = []
        # Of text it is the next token that is wanted: it is marked where it stands.
        before = labels if told else [IGNORED, *labels[:-1]]
        for index, label in zip(ids, before, strict=True):
            wanted = ""
            if label != IGNORED:
                wanted = names[label] if names and label < len(names) else "✓"
            text = tokenizer.decode_bytes([index]).decode("utf-8", "replace")
            pieces.append({"text": text, "wanted": "" if wanted == "O" else wanted})
        if not told and labels and labels[-1] != IGNORED:
            last = tokenizer.decode_bytes([labels[-1]]).decode("utf-8", "replace")
            pieces.append({"text": last, "wanted": "✓"})
        found.append(pieces)
    return found


def shown_predictions(path: Path) -> list[dict[str, str]]:
    """Gives some test examples with what was wanted and said, wrong ones first."""
    if not path.is_file():
        return []
    # A file's lines, and not those of `str.splitlines`: texts have other ends of lines in them.
    with path.open(encoding="utf-8") as file:
        told = [_shown(json.loads(line)) for line in islice(file, 2000)]
    wrong = [row for row in told if row["wanted"] != row["said"]]
    right = [row for row in told if row["wanted"] == row["said"]]
    return [*wrong[:SHOWN_PREDICTIONS], *right[: SHOWN_PREDICTIONS // 3]]


def _shown(row: dict[str, Any]) -> dict[str, str]:
    said, messages = row["predicted"], row.get("messages") or row.get("prompt")
    if messages:
        asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        answer = row.get("chosen", row.get("completion", messages[-1]["content"]))
        return {
            "asked": _short("\n".join(message["content"] for message in asked)),
            "wanted": _short(answer),
            "said": _short(said["text"]),
        }
    if "entities" in said:
        text = row["text"]
        true = [f"{text[start:end]} ({kind})" for start, end, kind in row["entities"]]
        found = [f"{one['text']} ({one['type']})" for one in said["entities"]]
        return {"asked": _short(text), "wanted": "; ".join(true), "said": "; ".join(found)}
    if "value" in said:
        return {
            "asked": _short(row["text"]),
            "wanted": f"{row['label']:.4g}",
            "said": f"{said['value']:.4g}",
        }
    label = row["label"]
    wanted = ", ".join(label) if isinstance(label, list) else label
    told = ", ".join(said["labels"]) if "labels" in said else said["label"]
    asked = " ‖ ".join(part for part in (row["text"], row.get("pair")) if part)
    return {"asked": _short(asked), "wanted": wanted, "said": told}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
