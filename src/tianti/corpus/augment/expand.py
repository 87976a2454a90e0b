"""Expansion: the same said otherwise, by words, sentences and spans.

The word operations are EDA's (Wei and Zou 2019, "EDA: easy data augmentation techniques").
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from pathlib import Path
from random import Random

from tianti.errors import UserError, not_installed, os_errors_named
from tianti.files import file_stamp
from tianti.messages import tr

_PIECES = re.compile(r"\s+|[A-Za-z0-9][\w'’-]*|[\u3400-\u9fff]+|[^\s]")
_SENTENCE = re.compile(r"[^.!?。！？\n]+(?:[.!?。！？]+[\"'”’」』)]*|$)\s*")
_HAN = re.compile("[\u3400-\u9fff]")
MASK = "____"
_WORDNET_FILES = ("data.adj", "data.adv", "data.noun", "data.verb")
_COMMONEST = {"be", "is", "are", "was", "were", "have", "has", "had", "do", "does", "did", "get"}

Synonyms = dict[str, list[str]]


def pieces(text: str) -> list[str]:
    """Cuts a text into words, blanks and signs that join to the text again."""
    out: list[str] = []
    for piece in _PIECES.findall(text):
        if len(piece) > 1 and _HAN.match(piece):
            out.extend(_segmented(piece))
        else:
            out.append(piece)
    return out


def _segmented(run: str) -> list[str]:
    try:
        import jieba
    except ImportError as error:
        raise not_installed("jieba", "chinese", "corpus.augment") from error
    jieba.setLogLevel(60)
    return jieba.lcut(run)


def _is_word(piece: str) -> bool:
    return piece[0].isalnum()


def load_synonyms(path: str | None) -> Synonyms:
    """Reads synonyms: our own short list, a table, or a WordNet folder.

    Args:
        path: None for our own; a file with a word and its synonyms a line, between tabs or commas;
            or a folder with WordNet's `data.noun`, `data.verb`, `data.adj` and `data.adv`.

    Raises:
        UserError: there is no such file, or no synonyms in it.
    """
    stamp = None
    if path is not None:
        place = Path(path).expanduser()
        with os_errors_named(place):
            stamp = file_stamp(place)
    return _synonyms(path, stamp)


@functools.lru_cache(maxsize=4)
def _synonyms(path: str | None, stamp: tuple[int, int] | None) -> Synonyms:
    if path is None:
        text = resources.files("tianti.corpus.augment").joinpath("synonyms.json").read_text("utf-8")
        groups = [group.split() for groups in json.loads(text).values() for group in groups]
        return _by_word(groups)
    place = Path(path).expanduser()
    if place.is_dir():
        found = _by_word(_wordnet_groups(place))
    else:
        with os_errors_named(place):
            lines = place.read_text("utf-8").splitlines()
        found = {}
        for line in lines:
            words = [part.strip() for part in re.split(r"[\t,，]", line) if part.strip()]
            if len(words) > 1:
                found.setdefault(words[0], []).extend(words[1:])
    if not found:
        raise UserError(
            tr("there are no synonyms here"),
            where=path,
            remedy=tr("A line is a word and its synonyms, between tabs; or name a WordNet folder"),
        )
    return found


def _wordnet_groups(folder: Path) -> list[list[str]]:
    """Gives the words of each set of synonyms (wndb(5WN)): hexadecimal count, then words."""
    groups = []
    for name in _WORDNET_FILES:
        if not (folder / name).is_file():
            continue
        for line in (folder / name).read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            fields = line.split(" ")
            count = int(fields[3], 16)
            words = [fields[4 + 2 * n].split("(")[0] for n in range(count)]
            groups.append([word for word in words if word.isalpha() and word.islower()])
    return groups


def _by_word(groups: list[list[str]]) -> Synonyms:
    table: Synonyms = {}
    for group in groups:
        for word in group:
            others = [other for other in group if other != word]
            if others and word not in _COMMONEST:
                known = table.setdefault(word, [])
                known.extend(other for other in others if other not in known)
    return table


def synonym(text: str, rate: float, random: Random, table: Synonyms) -> str:
    """Says words by their synonyms."""
    return "".join(_other_word(piece, table, random, rate) for piece in pieces(text))


def _other_word(piece: str, table: Synonyms, random: Random, rate: float = 1.0) -> str:
    found = table.get(piece.lower())
    if not found or random.random() >= rate:
        return piece
    other = random.choice(found)
    return other.capitalize() if piece[0].isupper() else other


def random_insert(text: str, rate: float, random: Random, table: Synonyms) -> str:
    """Puts a synonym of some word of the same text at other places."""
    parts = pieces(text)
    known = sorted({part.lower() for part in parts if part.lower() in table})
    if not known:
        return text
    out = []
    for part in parts:
        out.append(part)
        if _is_word(part) and random.random() < rate:
            extra = random.choice(table[random.choice(known)])
            out.append(extra if _HAN.match(extra) else f" {extra}")
    return "".join(out)


def random_swap(text: str, rate: float, random: Random) -> str:
    """Changes the places of words that stand in one line."""
    out = []
    for line in text.splitlines(keepends=True):
        parts = pieces(line)
        words = [place for place, part in enumerate(parts) if _is_word(part)]
        for _ in range(sum(random.random() < rate / 2 for _ in words)):
            one, two = random.choice(words), random.choice(words)
            parts[one], parts[two] = parts[two], parts[one]
        out.append("".join(parts))
    return "".join(out)


def random_delete(text: str, rate: float, random: Random) -> str:
    """Leaves words out."""
    kept: list[str] = []
    for part in pieces(text):
        if _is_word(part) and random.random() < rate:
            # Of the blanks around a word that went, one is enough.
            if kept and kept[-1] == " ":
                kept.pop()
            continue
        kept.append(part)
    return "".join(kept)


def sentence_shuffle(text: str, rate: float, random: Random) -> str:
    """Changes the order of sentences within their paragraph."""
    out = []
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\n")
        sentences = _SENTENCE.findall(body)
        if len(sentences) < 2 or "".join(sentences) != body:
            out.append(line)
            continue
        moving = [place for place in range(len(sentences)) if random.random() < rate]
        order = moving[:]
        random.shuffle(order)
        # A last sentence has no blank after it; where it moves to, one is wanted.
        spaced = [sentence.rstrip() for sentence in sentences]
        gap = " " if any(sentence[-1:] == " " for sentence in sentences) else ""
        moved = spaced[:]
        for here, there in zip(moving, order, strict=True):
            moved[here] = spaced[there]
        out.append(gap.join(moved) + line[len(body) :])
    return "".join(out)


def span_mask(text: str, rate: float, random: Random) -> str:
    """Puts a blank for spans of about three words (Raffel et al. 2020, section 3.1.4)."""
    parts = pieces(text)
    out: list[str] = []
    place = 0
    while place < len(parts):
        if _is_word(parts[place]) and random.random() < rate / 3:
            words = 1 + min(int(random.expovariate(0.5)), 7)
            while place < len(parts) and words and "\n" not in parts[place]:
                words -= _is_word(parts[place])
                place += 1
            out.append(MASK)
            continue
        out.append(parts[place])
        place += 1
    return "".join(out)
