"""ROUGE (Lin 2004) through rouge-score, over words that know Chinese."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tianti.errors import not_installed
from tianti.evaluate.metrics.text import words

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# rougeLsum takes lines for sentences; without lines, sentences end here.
_SENTENCE_END = re.compile(r"(?<=[。！？；!?])\s*|(?<=\.)\s+")


def rouge(prediction: str, references: Sequence[str], *, stem: bool = False) -> dict[str, float]:
    """Gives the F measures of an item, 0 to 100, each against its best reference.

    Args:
        prediction: a text.
        references: one or more.
        stem: Porter's stems of English words of over 3 letters, as published figures have it.

    Raises:
        UserError: rouge-score is not installed.
    """
    scorer = _scorer(stem)
    text, targets = _lines(prediction), [_lines(reference) for reference in references]
    found = scorer.score_multi(targets, text)
    return {kind: 100 * found[kind].fmeasure for kind in KINDS}


def _lines(text: str) -> str:
    if "\n" in text.strip():
        return text
    return "\n".join(part for part in _SENTENCE_END.split(text) if part)


@lru_cache
def _scorer(stem: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import Tokenizer
    except ImportError as error:
        raise not_installed("rouge-score", "eval") from error

    class Words(Tokenizer):  # type: ignore[misc]
        def __init__(self) -> None:
            self._stem = _porter() if stem else None

        def tokenize(self, text: str) -> list[str]:
            found = words(text)
            if self._stem is None:
                return list(found)
            return [self._stem(w) if len(w) > 3 and w.isascii() else w for w in found]

    return RougeScorer(list(KINDS), tokenizer=Words())


def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer().stem
