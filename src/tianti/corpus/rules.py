"""The published quality rules: which statistic, which side, which threshold.

Rules and thresholds of Gopher (Rae et al. 2021, table A1 and section A1.1), C4 (Raffel et al. 2020)
and FineWeb (Penedo et al. 2024) as datatrove applies them; the Chinese ones are counterparts by
characters (docs/corpus.md gives where each comes from).
"""

from __future__ import annotations

from dataclasses import dataclass

# What is measured of every document: columns of prepared tables.
STATISTICS = (
    "words",
    "mean_word_length",
    "hashes_per_word",
    "ellipses_per_word",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "stop_words",
    "dup_paragraphs",
    "dup_paragraph_chars",
    "dup_lines",
    "dup_line_chars",
    "top_2_gram",
    "top_3_gram",
    "top_4_gram",
    "dup_5_gram",
    "dup_6_gram",
    "dup_7_gram",
    "dup_8_gram",
    "dup_9_gram",
    "dup_10_gram",
    "punctuated_lines",
    "short_lines",
    "dup_full_line_chars",
    "newlines_per_word",
    "c4_sentences",
    "c4_lorem_ipsum",
    "c4_curly_bracket",
    "han_chars",
    "han_share",
    "han_per_stop",
    "han_function_share",
)


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
RULE_NAMES = {rule.name for rules in RULES.values() for rule in rules}
