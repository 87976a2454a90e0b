"""BLEU and chrF through sacrebleu, with the signature that says how they were computed."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tianti.errors import not_installed
from tianti.evaluate.metrics.text import script

Tokenize = Literal["auto", "13a", "zh", "char", "intl", "none", "ja-mecab"]


class _Corpus:
    """A statistic over segments whose counts add up."""

    def __init__(
        self, metric: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ):
        self._metric = metric
        counts = metric._extract_corpus_statistics(list(predictions), by_rank(references))
        self._counts = np.array(counts, dtype=np.float64)
        metric._compute_score_from_stats([int(c) for c in self._counts.sum(axis=0)])
        self.signature = str(metric.get_signature())

    def __call__(self, weights: np.ndarray) -> float:
        """Gives the score, 0 to 100."""
        counts = weights @ self._counts
        return float(self._metric._compute_score_from_stats(counts.tolist()).score)


def bleu(
    predictions: Sequence[str], references: Sequence[Sequence[str]], tokenize: Tokenize = "auto"
) -> _Corpus:
    """Gives BLEU (Papineni et al. 2002) as a statistic over segments.

    Orders that no segment is long enough for do not count, so short Chinese that is identical has
    100; where there is any 4-gram, the score is sacrebleu's default. Chinese is brought into
    compatibility form first, so full and half width are one.

    Args:
        predictions: one text an item.
        references: one or more an item.
        tokenize: of sacrebleu; `auto`: `zh` or `char` (Japanese) by the references, else `13a`.

    Raises:
        UserError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise not_installed("sacrebleu", "eval") from error
    chosen = tokenize if tokenize != "auto" else _by_script(references)
    if chosen in ("zh", "char"):
        predictions, references = _compatible(predictions, references)
    return _Corpus(BLEU(tokenize=chosen, effective_order=True), predictions, references)


def chrf(
    predictions: Sequence[str], references: Sequence[Sequence[str]], word_order: int = 0
) -> _Corpus:
    """Gives chrF (Popović 2015), or chrF++ with a word order of 2, as a statistic over segments.

    Raises:
        UserError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise not_installed("sacrebleu", "eval") from error
    if _by_script(references) != "13a":
        predictions, references = _compatible(predictions, references)
    return _Corpus(CHRF(word_order=word_order), predictions, references)


def by_rank(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Gives first references, second references and so on, None where an item has fewer."""
    most = max((len(each) for each in references), default=0)
    return [
        [each[rank] if rank < len(each) else None for each in references] for rank in range(most)
    ]


def _by_script(references: Sequence[Sequence[str]]) -> Literal["13a", "zh", "char"]:
    found = script([text for each in references[:200] for text in each])
    return "zh" if found == "zh" else "char" if found == "ja" else "13a"


def _compatible(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    def form(text: str) -> str:
        return unicodedata.normalize("NFKC", text)

    return [form(p) for p in predictions], [[form(text) for text in each] for each in references]
