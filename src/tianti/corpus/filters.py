"""Quality rules: which documents stay, told from statistics that were taken before.

A rule is a statistic, a side and a threshold, so thresholds can be changed without measuring again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tianti.corpus.config import QualityConfig
from tianti.corpus.rules import RULES, Rule


def statistics_needed(config: QualityConfig) -> list[str]:
    """Gives the columns that the rules of a config look at."""
    return sorted({rule.statistic for rule in _rules(config)})


def thresholds_in_force(config: QualityConfig) -> dict[str, list[float]]:
    """Gives the thresholds of each statistic that the rules of a config look at."""
    found: dict[str, list[float]] = {}
    for rule in _rules(config):
        marks = [mark for mark in (rule.least, rule.most) if mark is not None]
        found.setdefault(rule.statistic, []).extend(marks)
    return found


def _rules(config: QualityConfig) -> list[Rule]:
    """Gives the rules in their order, with the thresholds that were asked for."""
    rules = []
    for group in config.filters:
        for rule in RULES[group]:
            if rule.name not in config.thresholds:
                rules.append(rule)
                continue
            value = config.thresholds[rule.name]
            if value is not None:
                least, most = (value, None) if rule.least is not None else (None, value)
                rules.append(Rule(rule.name, rule.statistic, least, most))
    return rules


def failing_rules(
    columns: dict[str, np.ndarray], config: QualityConfig, chinese: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Gives for each document the first rule it fails.

    Args:
        columns: the statistics, `(documents,)` each.
        config: rules and thresholds.
        chinese: which documents are mostly Chinese; the Chinese rules are for these, the others
            for the rest.

    Returns:
        Numbers of rules, int16, -1 for a document that stays; and the names they stand for.
    """
    failed = np.full(len(chinese), -1, np.int16)
    rules = _rules(config)
    chinese_rules = {rule.name for rule in RULES["chinese"]}
    with_chinese = "chinese" in config.filters
    for number, rule in enumerate(rules):
        value = columns[rule.statistic]
        bad = np.zeros(len(value), bool)
        if rule.least is not None:
            # A share of nothing is no number, and no reason to drop.
            bad |= value < rule.least
        if rule.most is not None:
            bad |= value > rule.most
        if rule.name in chinese_rules:
            bad &= chinese
        elif with_chinese:
            bad &= ~chinese
        failed[bad & (failed < 0)] = number
    return failed, [rule.name for rule in rules]


def rules_table() -> list[dict[str, Any]]:
    """Gives all rules with their thresholds, for the guide."""
    return [
        {"filter": group, "rule": rule.name, "statistic": rule.statistic}
        | ({"least": rule.least} if rule.least is not None else {"most": rule.most})
        for group, rules in RULES.items()
        for rule in rules
    ]
