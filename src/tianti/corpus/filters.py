"""Quality rules: which documents stay, told from statistics that were taken before.

Rules and thresholds of Gopher (Rae et al. 2021, table A1 and section A1.1), C4 (Raffel et al. 2020)
and FineWeb (Penedo et al. 2024) as datatrove applies them; the Chinese ones are counterparts by
characters (docs/corpus.md gives where each comes from). A rule is a statistic, a side and a
threshold, so thresholds can be changed without measuring again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tianti.corpus.config import QualityConfig
from tianti.errors import UserError
from tianti.messages import tr


@dataclass(frozen=True)
class Rule:
    """Drops a document whose statistic is below or above a threshold.

    Args:
        name: also the reason.
        statistic: column it looks at.
        least: smallest value that stays.
        most: largest value that stays.
    """

    name: str
    statistic: str
    least: float | None = None
    most: float | None = None


RULES: dict[str, tuple[Rule, ...]] = {
    "gopher_quality": (
        Rule("gopher_short_doc", "words", least=50),
        Rule("gopher_long_doc", "words", most=100_000),
        Rule("gopher_below_avg_threshold", "mean_word_length", least=3),
        Rule("gopher_above_avg_threshold", "mean_word_length", most=10),
        Rule("gopher_too_many_hashes", "hashes_per_word", most=0.1),
        Rule("gopher_too_many_ellipsis", "ellipses_per_word", most=0.1),
        Rule("gopher_too_many_bullets", "bullet_lines", most=0.9),
        Rule("gopher_too_many_end_ellipsis", "ellipsis_lines", most=0.3),
        Rule("gopher_below_alpha_threshold", "alpha_words", least=0.8),
        Rule("gopher_enough_stop_words", "stop_words", least=2),
    ),
    "gopher_repetition": (
        Rule("dup_para_frac", "dup_paragraphs", most=0.3),
        Rule("dup_para_char_frac", "dup_paragraph_chars", most=0.2),
        Rule("dup_line_frac", "dup_lines", most=0.3),
        Rule("dup_line_char_frac", "dup_line_chars", most=0.2),
        Rule("top_2_gram", "top_2_gram", most=0.2),
        Rule("top_3_gram", "top_3_gram", most=0.18),
        Rule("top_4_gram", "top_4_gram", most=0.16),
        Rule("duplicated_5_n_grams", "dup_5_gram", most=0.15),
        Rule("duplicated_6_n_grams", "dup_6_gram", most=0.14),
        Rule("duplicated_7_n_grams", "dup_7_gram", most=0.13),
        Rule("duplicated_8_n_grams", "dup_8_gram", most=0.12),
        Rule("duplicated_9_n_grams", "dup_9_gram", most=0.11),
        Rule("duplicated_10_n_grams", "dup_10_gram", most=0.10),
    ),
    "c4": (
        Rule("lorem_ipsum", "c4_lorem_ipsum", most=0),
        Rule("curly_bracket", "c4_curly_bracket", most=0),
        Rule("too_few_sentences", "c4_sentences", least=5),
    ),
    "fineweb": (
        Rule("line_punct_ratio", "punctuated_lines", least=0.12),
        Rule("short_line_ratio", "short_lines", most=0.67),
        Rule("char_dup_ratio", "dup_full_line_chars", most=0.01),
        Rule("list_ratio", "newlines_per_word", most=0.3),
    ),
    "chinese": (
        Rule("zh_short_doc", "han_chars", least=50),
        Rule("zh_long_doc", "han_chars", most=200_000),
        Rule("zh_few_characters", "han_share", least=0.5),
        Rule("zh_no_punctuation", "han_per_stop", most=120),
        Rule("zh_too_much_punctuation", "han_per_stop", least=3),
        Rule("zh_punctuated_lines", "punctuated_lines", least=0.12),
        Rule("zh_dup_line_chars", "dup_line_chars", most=0.2),
        Rule("zh_function_words", "han_function_share", least=0.02),
        Rule("zh_top_4_gram", "top_4_gram", most=0.16),
        Rule("zh_dup_10_gram", "dup_10_gram", most=0.10),
    ),
}
_NAMES = {rule.name for rules in RULES.values() for rule in rules}


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
    """Gives the rules in their order, with the thresholds that were asked for.

    Raises:
        UserError: a threshold has the name of no rule.
    """
    for name in config.thresholds:
        if name not in _NAMES:
            raise UserError(
                tr("there is no rule {name!r}", name=name),
                where="corpus.quality.thresholds",
                remedy=tr("Rules: {names}", names=", ".join(sorted(_NAMES))),
            )
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
