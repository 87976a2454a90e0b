"""How rare documents are: by the words in them, or by the shapes of their sentences.

The surprisal of an item is -log2 of its share of all items. A document is as rare as the mean
surprisal of the tenth of its items that surprise most: a single odd word in a long text, or the
length of the text, says little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tianti.corpus.kernels import kernel
from tianti.tokens.shards import TokenSplit
from tianti.tokens.tokenizer import Tokenizer

_SHARE_THAT_COUNTS = 0.1
_READ_TOKENS = 1 << 22
_SHAPE_BUCKETS = 1 << 20
# As many of the commonest words stand for themselves: they are the grammar of a language.
_GRAMMAR_WORDS = 256
_SUFFIXES = ("ing", "ed", "ly", "tion", "ness", "ment", "able", "er", "est", "ies", "s")
BANDS = (1e-6, 1e-5, 1e-4, 1e-3, 1.0)


@dataclass(frozen=True)
class DocumentRarity:
    """How rare each document is.

    Args:
        scores: bits of surprisal, float64 `(documents,)`.
    """

    scores: np.ndarray

    def rarest(self, share: float, tokens: np.ndarray) -> np.ndarray:
        """Gives which documents are the rarest, of about this share of all tokens; bool."""
        order = np.argsort(-self.scores, kind="stable")
        until = np.searchsorted(np.cumsum(tokens[order]), share * tokens.sum())
        out = np.zeros(len(order), bool)
        out[order[: max(int(until), 1)]] = True
        return out


def token_counts(split: TokenSplit, repeats: np.ndarray | None = None) -> np.ndarray:
    """Gives how often each id comes, end-of-text left out; int64 `(vocabulary,)`.

    Args:
        split: the tokens.
        repeats: times each document comes; once when not given.
    """
    counts = np.zeros(split.index["vocab_size"], np.int64)
    for first, last, ids in _in_pieces(split):
        lengths = split.document_lengths[first:last]
        weights = None if repeats is None else np.repeat(repeats[first:last], lengths)
        counts += np.bincount(ids, weights=weights, minlength=len(counts)).astype(np.int64)
    counts[split.index["end_of_text"]] = 0
    return counts


def document_rarity(
    split: TokenSplit, tokenizer: Tokenizer, by: str, counted: TokenSplit | None = None
) -> DocumentRarity:
    """Measures every document of a split.

    Args:
        split: the tokens.
        tokenizer: that made them.
        by: `token` for rare words, `shape` for rare patterns of sentences.
        counted: the split whose counts say what is rare; the split itself when not given. What does
            not come there counts as coming half a time.
    """
    counted = counted or split
    counts = token_counts(counted)
    if by == "token":

        def items(ids: np.ndarray) -> np.ndarray:
            return ids

    else:
        classes = shape_classes(tokenizer, counts)

        def items(ids: np.ndarray) -> np.ndarray:
            return _trigrams(classes[ids], int(classes[split.index["end_of_text"]]))

        counts = _counts_of(counted, items, _SHAPE_BUCKETS)
    surprisal = -np.log2(np.maximum(counts, 0.5) / counts.sum()).astype(np.float32)
    scores = [
        _document_scores(surprisal[items(ids)], split.document_lengths[first:last])
        for first, last, ids in _in_pieces(split)
    ]
    return DocumentRarity(np.concatenate(scores) if scores else np.zeros(0))


def _counts_of(
    split: TokenSplit, items: Callable[[np.ndarray], np.ndarray], size: int
) -> np.ndarray:
    counts = np.zeros(size, np.int64)
    for _, _, ids in _in_pieces(split):
        counts += np.bincount(items(ids), minlength=size)
    return counts


def _in_pieces(split: TokenSplit) -> Iterator[tuple[int, int, np.ndarray]]:
    """Gives whole documents, about `_READ_TOKENS` of tokens at a time: first, last, ids."""
    ends = np.cumsum(split.document_lengths)
    first = start = 0
    while first < len(ends):
        last = max(int(np.searchsorted(ends, start + _READ_TOKENS, side="right")), first + 1)
        yield first, last, split.read(start, int(ends[last - 1]))
        first, start = last, int(ends[last - 1])


@kernel
def _document_scores(surprisal: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Gives the mean of the highest tenth of each document's values; its last is end-of-text."""
    out = np.zeros(len(lengths), np.float64)
    at = 0
    for document in range(len(lengths)):
        size = lengths[document] - 1
        if size > 0:
            values = np.sort(surprisal[at : at + size])
            highest = max(1, int(size * _SHARE_THAT_COUNTS))
            out[document] = values[size - highest :].mean()
        at += lengths[document]
    return out


def shape_classes(tokenizer: Tokenizer, counts: np.ndarray) -> np.ndarray:
    """Gives the word class of each id, as far as its form tells it; int64 `(vocabulary,)`.

    The commonest words stand for themselves; others for their script, capitals and ending.
    """
    common = set(np.argsort(-counts, kind="stable")[:_GRAMMAR_WORDS].tolist())
    names: dict[str, int] = {}
    out = np.zeros(len(counts), np.int64)
    for index in range(len(counts)):
        text = tokenizer.decode_bytes([index]).decode("utf-8", "replace")
        name = f"={index}" if index in common else _shape(text)
        out[index] = names.setdefault(name, len(names) + 1)
    return out


def _shape(text: str) -> str:
    word = text.strip()
    begins = "_" if text[:1].isspace() else ""
    if not word:
        return "line" if "\n" in text else "blank"
    if re.fullmatch(r"[\d.,]+", word):
        return f"{begins}number"
    if any("\u3400" <= character <= "\u9fff" for character in word):
        return f"han{len(word)}"
    if not any(character.isalpha() for character in word):
        return f"{begins}{word[0]}"
    case = "XX" if word.isupper() and len(word) > 1 else "Xx" if word[0].isupper() else "x"
    ending = next((suffix for suffix in _SUFFIXES if word.lower().endswith(suffix)), "")
    return f"{begins}{case}{ending}"


def _trigrams(classes: np.ndarray, end: int) -> np.ndarray:
    """Gives a bucket for each class with the two before it; before a document stand two ends."""
    one = np.concatenate([[end], classes[:-1]])
    two = np.where(one == end, end, np.concatenate([[end, end], classes[:-2]])[: len(classes)])
    with np.errstate(over="ignore"):
        value = classes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + one.astype(np.uint64)
        value = value * np.uint64(0xBF58476D1CE4E5B9) + two.astype(np.uint64)
        value = value * np.uint64(0x94D049BB133111EB)
    return (value >> np.uint64(44)).astype(np.int64)


def rarity_table(before: np.ndarray, after: np.ndarray, tokenizer: Tokenizer) -> dict[str, Any]:
    """Gives what was rare before and after balancing.

    Args:
        before: count of each id.
        after: the same, as the documents come now.
        tokenizer: that made the ids.

    Returns:
        `bands`: for each band of frequency its `entries` and their share of tokens `before` and
        `after`; `raised`: the entries that gained most, with both counts.
    """
    frequency = before / max(before.sum(), 1)
    share = after / max(after.sum(), 1)
    bands, lower = [], 0.0
    for upper in BANDS:
        here = (frequency > lower) & (frequency <= upper)
        bands.append(
            {
                "up_to": upper,
                "entries": int(here.sum()),
                "before": float(frequency[here].sum()),
                "after": float(share[here].sum()),
            }
        )
        lower = upper
    gain = np.where(before > 0, share - frequency, 0) / np.maximum(frequency, 1e-12)
    likely = before >= 5
    top = [n for n in np.argsort(-np.where(likely, gain, -1), kind="stable")[:20] if gain[n] > 0]
    raised = [
        {
            "text": tokenizer.decode_bytes([int(n)]).decode("utf-8", "replace"),
            "before": int(before[n]),
            "after": int(after[n]),
        }
        for n in top
    ]
    return {"bands": bands, "raised": raised}
