"""Every message exists in every language, with the same places to fill in."""

from __future__ import annotations

import ast
import json
import re
import string
from pathlib import Path

import pytest

import tianti
from tianti.corpus.overview import STATISTICS
from tianti.corpus.rules import RULES
from tianti.messages import LANGUAGES, catalogue, current_language, in_all_languages, tr

PACKAGE = Path(tianti.__file__).parent
# Built from parts where they are shown: chart labels of splits, reasons and stages.
COMPOSED = [
    *(f"model, {split}" for split in ("train", "validation", "test")),
    *("train", "validation", "test", "late", "documents"),
    *("too_short", "exact_duplicate", "near_duplicate", "semantic_duplicate", "unreadable"),
    *("other_language", "low_quality", "unlikely_text", "predictable_text", "in_evaluation_set"),
    *("exact", "near", "semantic", "filter", "dedup"),
    *("clean", "lines", "redact", "measure", "language", "quality", "decontaminate"),
    *("classifier", "perplexity", "minhash", "write", "splits"),
    *(rule.name for rules in RULES.values() for rule in rules),
    *STATISTICS,
    # Figures of tasks.
    *("accuracy", "accuracy_by_sum", "accuracy_by_token", "accuracy_by_byte", "bits_per_byte"),
    *("perplexity", "calibration_error", "brier", "matthews", "exact_match", "f1", "repetition"),
    *("distinct_1", "distinct_2", "compression_ratio"),
    *(f"{name}_{kind}" for name in ("f1", "precision", "recall") for kind in ("macro", "weighted")),
]


def messages() -> set[str]:
    """Gives every literal given to `tr`, `t` or `_REMEDIES`."""
    found = set(COMPOSED)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                literals = [a for a in node.args if isinstance(a, ast.Constant)]
                if node.func.id in ("tr", "t") and literals:
                    found.add(literals[0].value)
                if node.func.id == "bars":
                    found.add(node.args[1].value)
    for path in PACKAGE.rglob("*.j2"):
        found.update(re.findall(r'\bt\("([^"]+)"\)', path.read_text("utf-8")))
    from tianti.errors import _REMEDIES, ANY_OTHER_REMEDY
    from tianti.recipe import _CONSTRAINTS
    from tianti.runs.terminal import _ROWS

    found.update(_CONSTRAINTS.values())
    found.update(part for pair in _REMEDIES.values() for part in pair)
    found.update(label for _, label in _ROWS)
    found.update([ANY_OTHER_REMEDY, "byte 3-grams, test", "xz -9e, test"])
    return {text for text in found if re.search(r"[A-Za-z]{2}", text)}


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_message_is_translated_and_none_is_left_over(language):
    translated = catalogue(language)
    wanted = messages()
    assert sorted(wanted - set(translated)) == []
    assert sorted(set(translated) - wanted) == []
    for english, other in translated.items():
        assert places(english) == places(other), english
        assert other.strip()


def test_catalogues_are_sorted_so_that_changes_are_readable():
    for path in (PACKAGE / "locale").glob("*.json"):
        keys = list(json.loads(path.read_text("utf-8")))
        assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"TIANTI_LANG": "zh-CN", "LANG": "en_US.UTF-8"}, "zh-CN"),
        ({"LANG": "zh_CN.UTF-8"}, "zh-CN"),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_is_the_environments(monkeypatch, environment, language):
    for name in ("TIANTI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert current_language() == language


def test_messages_fill_in_their_places(monkeypatch):
    monkeypatch.setenv("TIANTI_LANG", "zh-CN")
    assert tr("there is no stage {name!r}", name="x") == "没有阶段 'x'"
    assert tr("text without a translation") == "text without a translation"


def test_a_message_is_told_in_every_language(monkeypatch):
    monkeypatch.setenv("TIANTI_LANG", "zh-CN")
    message = tr("Did you mean {name!r}? {remedy}", name="x", remedy=tr("Use device=cpu"))
    told = in_all_languages(message)
    assert told["zh-CN"] == message
    assert told["en"] == "Did you mean 'x'? Use device=cpu"
    assert in_all_languages("3") == {"en": "3", "zh-CN": "3"}
