"""Further tokens for a tokenizer that exists: what it had stays as it was.

Merges are learnt as byte-pair encoding learns them (Sennrich et al. 2016, arXiv:1508.07909), but
from texts as the tokenizer cuts them already, and come after all that it has: a further token taken
apart gives what the text was before.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Tokenizer as HuggingFaceTokenizer

from tianti.errors import UserError
from tianti.messages import tr
from tianti.tokens.tokenizer import Tokenizer

LONGEST = 64
# SentencePiece's mark.
WORD_START = "\u2581"
Pair = tuple[int, int]


@dataclass(frozen=True)
class Further:
    """A tokenizer with further tokens.

    Args:
        tokenizer: it.
        pieces: of each further token, in order, the earlier ones that its text was made of.
    """

    tokenizer: Tokenizer
    pieces: list[list[int]]


def with_further_tokens(tokenizer: Tokenizer, texts: Iterable[str], count: int) -> Further:
    """Gives a tokenizer with up to `count` further tokens, fewer where texts have no more pairs.

    Args:
        tokenizer: what is to grow.
        texts: what is to become shorter.
        count: tokens wanted.

    Raises:
        UserError: the tokenizer has no merges.
    """
    written = json.loads(tokenizer.inner.to_str())
    model = written["model"]
    if model["type"] != "BPE":
        raise UserError(
            tr("a tokenizer of kind {kind} has no merges to learn", kind=model["type"]),
            where="tune.more_tokens",
            remedy=tr("Leave more_tokens out"),
        )
    words = _words(tokenizer, texts)
    names = {index: name for name, index in model["vocab"].items()}
    first = tokenizer.vocab_size
    pieces: list[list[int]] = []
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    for one, other in _merges(words, names, set(model["vocab"]), first, count):
        pair = [names[one], names[other]]
        number = first + len(pieces)
        names[number] = "".join(pair)
        model["vocab"][names[number]] = number
        model["merges"].append(" ".join(pair) if as_text else pair)
        parts = (pieces[part - first] if part >= first else [part] for part in (one, other))
        pieces.append([piece for part in parts for piece in part])
    # Beside a larger vocabulary special tokens would be given other numbers, unless it has them.
    for special in written["added_tokens"]:
        model["vocab"].setdefault(special["content"], special["id"])
    inner = HuggingFaceTokenizer.from_str(json.dumps(written, ensure_ascii=False))
    return Further(Tokenizer(inner, tokenizer.special), pieces)


def _words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[tuple[int, ...]]:
    """Gives how often each run of tokens comes that no token may reach beyond."""
    words: Counter[tuple[int, ...]] = Counter()
    for text in texts:
        encoding = tokenizer.inner.encode(text, add_special_tokens=False)
        word: list[int] = []
        before: int | None = None
        for index, number in zip(encoding.ids, encoding.word_ids, strict=True):
            if number != before and word:
                words[tuple(word)] += 1
                word = []
            before = number
            word.append(index)
        if word:
            words[tuple(word)] += 1
    return words


def _merges(
    counted: Counter[tuple[int, ...]],
    names: dict[int, str],
    known: set[str],
    first: int,
    count: int,
) -> list[Pair]:
    """Gives the pairs that are merged, the most frequent of the moment first."""
    words = [list(word) for word in counted]
    times = list(counted.values())
    totals: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        for pair in pairwise(word):
            totals[pair] += times[number]
            places[pair].add(number)
    heap = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(heap)
    texts = dict(names)
    there = set(known)
    found: list[Pair] = []
    while heap and len(found) < count:
        negative, pair = heapq.heappop(heap)
        if totals[pair] != -negative:
            if totals[pair] > 1:
                heapq.heappush(heap, (-totals[pair], pair))
            continue
        if totals[pair] < 2:
            break
        name = texts[pair[0]] + texts[pair[1]]
        if name in there or len(name) > LONGEST or _joins_too_much(texts[pair[0]], name):
            totals[pair] = 0
            continue
        made = first + len(found)
        found.append(pair)
        texts[made] = name
        there.add(name)
        changed: set[Pair] = set()
        for number in places.pop(pair):
            word = words[number]
            merged = _merged(word, pair, made)
            for old in pairwise(word):
                totals[old] -= times[number]
            for new in pairwise(merged):
                totals[new] += times[number]
                places[new].add(number)
                if made in new:
                    changed.add(new)
            words[number] = merged
        totals[pair] = 0
        for new in sorted(changed):
            heapq.heappush(heap, (-totals[new], new))
    return found


def _joins_too_much(first: str, name: str) -> bool:
    """Tells whether a token would hold bytes that only stand for text by themselves (`<0xE4>`), or
    would reach over the beginning of a word where words are not cut beforehand."""
    if "<0x" in name:
        return True
    return WORD_START in name[len(first) :] and bool(name.strip(WORD_START))


def _merged(word: list[int], pair: Pair, made: int) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(word):
        if at + 1 < len(word) and (word[at], word[at + 1]) == pair:
            found.append(made)
            at += 2
        else:
            found.append(word[at])
            at += 1
    return found
