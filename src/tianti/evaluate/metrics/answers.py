"""Answers to questions: exact match and token F1, as in the scripts of SQuAD and CMRC 2018."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from tianti.errors import not_installed

# What CMRC 2018's script drops. It names the ellipsis as two characters, which no single one
# equals, so that one stays.
_DROPPED = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PIECES = re.compile(r"[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")


def english_answer(text: str) -> str:
    """Gives an answer in lower case, without punctuation, articles and double blanks (SQuAD)."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def chinese_answer(text: str) -> str:
    """Gives an answer in lower case, without the punctuation that CMRC 2018 drops."""
    return "".join(c for c in text.lower().strip() if c not in _DROPPED)


def exact_match(prediction: str, references: Sequence[str], *, chinese: bool) -> float:
    """Gives 1 where the answer equals some reference once both are bare, else 0."""
    bare: Callable[[str], str] = chinese_answer if chinese else english_answer
    return float(any(bare(prediction) == bare(reference) for reference in references))


def token_f1(prediction: str, references: Sequence[str], *, chinese: bool) -> float:
    """Gives the best F1 over the references.

    English as in SQuAD: of words, in any order. Chinese as in CMRC 2018: of the longest common run
    of characters, words of other scripts counting as one.

    Raises:
        UserError: Chinese with words that need NLTK to be told apart, and it is not installed.
    """
    measure = _chinese_f1 if chinese else _english_f1
    return max((measure(prediction, reference) for reference in references), default=0.0)


def _english_f1(prediction: str, reference: str) -> float:
    found, true = english_answer(prediction).split(), english_answer(reference).split()
    if not found or not true:
        return float(found == true)
    common = sum((Counter(found) & Counter(true)).values())
    return 2 * common / (len(found) + len(true))


def _chinese_f1(prediction: str, reference: str) -> float:
    found, true = chinese_tokens(prediction), chinese_tokens(reference)
    if not found or not true:
        return float(found == true)
    return 2 * _longest_common_run(found, true) / (len(found) + len(true))


def chinese_tokens(text: str) -> list[str]:
    """Gives each Chinese character of a bare text, and the words of what stands between."""
    tokens: list[str] = []
    for piece in _PIECES.findall(chinese_answer(text)):
        chinese = "\u4e00" <= piece[0] <= "\u9fa5"
        tokens.extend([piece] if chinese else _foreign_words(piece))
    return tokens


def _foreign_words(text: str) -> list[str]:
    if all(part.isalnum() for part in text.split()):
        return text.split()
    try:
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError as error:
        raise not_installed("nltk", "eval") from error
    return NLTKWordTokenizer().tokenize(text)


def _longest_common_run(one: list[str], other: list[str]) -> int:
    best, above = 0, [0] * (len(other) + 1)
    for token in one:
        row = [0] * (len(other) + 1)
        for place, candidate in enumerate(other, 1):
            if token == candidate:
                row[place] = above[place - 1] + 1
                best = max(best, row[place])
        above = row
    return best
