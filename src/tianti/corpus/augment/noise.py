"""Noise of typing, of optical reading and of hearing, in English and Chinese.

Each function takes a text, the share of its places that change, and a source of chance; a place is
a character or word that can change in that way.
"""

from __future__ import annotations

import re
from random import Random

from tianti.corpus.augment.chinese import homophones, lookalikes

# What lies beside each key of a QWERTY keyboard.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_KEYS: dict[str, str] = {}
for _row, _letters in enumerate(_ROWS):
    for _column, _letter in enumerate(_letters):
        _KEYS[_letter] = "".join(
            _ROWS[row][column]
            for row in range(max(_row - 1, 0), min(_row + 2, 3))
            for column in range(_column - 1, _column + 2)
            if 0 <= column < len(_ROWS[row])
            and (row, column) != (_row, _column)
            # A row is shifted by half a key against the one above it.
            and not (row < _row and column == _column - 1)
            and not (row > _row and column == _column + 1)
        )
_READ_AS = {
    "rn": "m m",
    "m": "rn",
    "cl": "d",
    "d": "cl",
    "vv": "w",
    "w": "vv",
    "l": "1 I i",
    "1": "l I",
    "I": "l 1",
    "O": "0",
    "0": "O o",
    "o": "0 c",
    "e": "c",
    "c": "e",
    "h": "b",
    "b": "h 6",
    "S": "5",
    "5": "S",
    "B": "8",
    "8": "B",
    "g": "9 q",
    "q": "g",
    "Z": "2",
    "2": "Z",
    "u": "v",
    "n": "u",
    "t": "f",
    "f": "t",
    ".": ",",
    ",": ".",
    "。": ".",
    "，": ",",
    "；": ";",
}
_READ_PATTERN = re.compile("|".join(map(re.escape, sorted(_READ_AS, key=len, reverse=True))))
_HEARD_AS = """there their they're|to too two|your you're|its it's|hear here|know no|right write|
new knew|one won|for four|by buy bye|see sea|son sun|would wood|week weak|whole hole|wear where|
which witch|weather whether|than then|affect effect|accept except|piece peace|principal principle|
allowed aloud|past passed|led lead|break brake|through threw|wait weight|way weigh|meet meat|
steel steal|plain plane|pair pair pear|fair fare|great grate|hour our|flower flour|role roll|
site sight cite|some sum|tail tale|threw through|waste waist|rain reign|road rode|sail sale"""
_HOMOPHONES: dict[str, list[str]] = {}
for _group in _HEARD_AS.replace("\n", "").split("|"):
    for _word in _group.split():
        _HOMOPHONES.setdefault(_word, []).extend(w for w in _group.split() if w != _word)
_FILLERS = {"en": ("um", "uh", "you know", "I mean", "like"), "zh": ("嗯", "那个", "就是", "呃")}
_WORD = re.compile(r"[A-Za-z][A-Za-z'’]*")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~、。，；：？！“”‘’（）《》〈〉【】「」『』…—·]")
_HAN = re.compile("[\u3400-\u9fff]")


def keyboard(text: str, rate: float, random: Random) -> str:
    """Hits the key beside the one that was meant."""

    def hit(letter: str) -> str:
        near = random.choice(_KEYS[letter.lower()])
        return near.upper() if letter.isupper() else near

    return "".join(
        hit(c) if c.lower() in _KEYS and c.isascii() and random.random() < rate else c for c in text
    )


def delete(text: str, rate: float, random: Random) -> str:
    """Leaves characters out."""
    return "".join(c for c in text if c.isspace() or random.random() >= rate)


def swap(text: str, rate: float, random: Random) -> str:
    """Writes neighbouring characters of a word in the wrong order."""
    out = list(text)
    place = 0
    while place + 1 < len(out):
        both = out[place].isalnum() and out[place + 1].isalnum()
        if both and out[place] != out[place + 1] and random.random() < rate:
            out[place], out[place + 1] = out[place + 1], out[place]
            place += 1
        place += 1
    return "".join(out)


def punctuation(text: str, rate: float, random: Random) -> str:
    """Leaves punctuation out."""
    return _PUNCTUATION.sub(lambda match: "" if random.random() < rate else match[0], text)


def homophone(text: str, rate: float, random: Random) -> str:
    """Writes Chinese characters of the same sound, as input methods offer them."""
    return _for_han(text, rate, random, homophones)


def lookalike(text: str, rate: float, random: Random) -> str:
    """Writes Chinese characters that look alike."""
    return _for_han(text, rate, random, lookalikes)


def _for_han(text: str, rate: float, random: Random, others: object) -> str:
    assert callable(others)
    out = []
    for character in text:
        if _HAN.match(character) and (found := others(character)) and random.random() < rate:
            character = random.choice(found)
        out.append(character)
    return "".join(out)


def ocr(text: str, rate: float, random: Random) -> str:
    """Reads print wrongly: letters, digits and Chinese characters that look alike."""

    def read(match: re.Match[str]) -> str:
        return random.choice(_READ_AS[match[0]].split()) if random.random() < rate else match[0]

    return lookalike(_READ_PATTERN.sub(read, text), rate, random)


def asr(text: str, rate: float, random: Random) -> str:
    """Writes down what was heard: no case or punctuation; words of one sound, fillers, repeats."""
    text = re.sub(r"[ \t]{2,}", " ", _PUNCTUATION.sub(_as_blank, text)).lower()

    def hear(match: re.Match[str]) -> str:
        word = match[0]
        if random.random() >= rate:
            return word
        if word in _HOMOPHONES:
            return random.choice(_HOMOPHONES[word])
        if random.random() < 0.5:
            return f"{word} {word}"
        return f"{random.choice(_FILLERS['en'])} {word}"

    text = homophone(_WORD.sub(hear, text), rate, random)
    pieces = re.split(r"(?<=[\u3400-\u9fff])\s+(?=[\u3400-\u9fff])", text)
    return "".join(
        piece
        + (random.choice(_FILLERS["zh"]) if random.random() < rate and _HAN.search(piece) else "")
        for piece in pieces
    )


def _as_blank(match: re.Match[str]) -> str:
    # An apostrophe inside a word is heard with it.
    return match[0] if match[0] in "'’" else " "
