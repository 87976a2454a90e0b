"""Makes text canonical before it is compared, split and counted."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.batch import text_column
from tianti.corpus.config import CleanConfig
from tianti.corpus.kernels import code_point, kernel, text_buffers
from tianti.errors import not_installed

# What a text needs.
UNTIDY, FOREIGN, ODD, PARTED = 1, 2, 4, 8
# Bytes copied at a time.
_STEP = 32
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_TRAILING_BLANKS = re.compile(r"[ \t]+\n")
_MANY_EMPTY_LINES = re.compile(r"\n{4,}")
# What UTF-8 looks like when it was read as Latin-1 or Windows-1252: a lead byte and its followers.
_MOJIBAKE_MARKS = re.compile("\u00e2\u20ac|\u00c3[\u0080-\u00bf\u20ac]|\u00c2[\u00a0-\u00bf]")
_C4_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_C4_ENDS = (".", "?", "!", '"', "'", "。", "？", "！", "”", "’", "」")
_C4_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


@dataclass(frozen=True)
class Cleaned:
    """Texts after cleaning.

    Args:
        column: Arrow strings.
        bytes_in: UTF-8 bytes before.
    """

    column: pa.Array
    bytes_in: int


def clean_texts(column: pa.Array, config: CleanConfig) -> Cleaned:
    """Gives a column of texts cleaned as `clean_text` does, most without leaving their bytes."""
    data, offsets = text_buffers(column)
    bytes_in = int(offsets[-1] - offsets[0])
    flags = _what_is_needed(data, offsets, config.normalize == "NFC")
    if config.chinese != "keep" or config.c4_lines:
        flags |= ODD
    flags[_odd_once_joined(column, flags, config)] |= ODD
    for place in np.flatnonzero(flags & (FOREIGN | ODD)).tolist():
        if flags[place] & ODD or _is_denormal(column[place].as_py(), config):
            flags[place] |= ODD
    odd = np.flatnonzero(flags & ODD)
    if len(odd):
        cleaned = [clean_text(text, config) for text in column.take(pa.array(odd)).to_pylist()]
        column = _replaced(column, odd, text_column(cleaned))
        data, offsets = text_buffers(column)
        # What is left of them needs no more.
        flags[odd] = 0
    if not (flags & UNTIDY).any():
        return Cleaned(column, bytes_in)
    tidy, ends = _tidied(data, offsets, flags)
    column = pa.LargeStringArray.from_buffers(len(column), pa.py_buffer(ends), pa.py_buffer(tidy))
    return Cleaned(column, bytes_in)


def _replaced(column: pa.Array, places: np.ndarray, others: pa.Array) -> pa.Array:
    """Gives a column with other texts at some places, which are in order."""
    parts, begun = [], 0
    for number, place in enumerate(places.tolist()):
        parts += [column.slice(begun, place - begun), others.slice(number, 1)]
        begun = place + 1
    return pa.concat_arrays([*parts, column.slice(begun)])


def _odd_once_joined(column: pa.Array, flags: np.ndarray, config: CleanConfig) -> np.ndarray:
    """Gives the texts in which what control characters parted makes other characters together."""
    parted = np.flatnonzero((flags & PARTED > 0) & (flags & ODD == 0))
    if not len(parted):
        return parted
    data, offsets = text_buffers(column.take(pa.array(parted)))
    joined = _tidied(data, offsets, np.full(len(parted), UNTIDY, np.uint8))
    needed = _what_is_needed(*joined, config.normalize == "NFC")
    return parted[needed & (FOREIGN | ODD) > 0]


def _is_denormal(text: str, config: CleanConfig) -> bool:
    return config.normalize != "none" and not unicodedata.is_normalized(config.normalize, text)


@kernel
def _what_is_needed(data: np.ndarray, offsets: np.ndarray, composed: bool) -> np.ndarray:
    """Gives `UNTIDY` for texts with blanks or control characters to take out, `FOREIGN` for those
    not in ASCII alone, `ODD` for those that seem to be in a wrong encoding, `PARTED` for those
    where control characters may stand between what belongs together.

    Where only NFC matters (`composed`), texts of characters that it leaves alone are not foreign.
    """
    flags = np.zeros(len(offsets) - 1, np.uint8)
    for text in range(len(flags)):
        start, stop = offsets[text], offsets[text + 1]
        flag = 0
        piece = data[start:stop]
        foreign = controls = lines = latin = returns = False
        # Without a branch this becomes wide instructions; most texts need no more.
        for at in range(len(piece)):
            byte = piece[at]
            foreign |= byte >= np.uint8(0x80)
            latin |= byte == np.uint8(0xC3)
            lines |= byte == np.uint8(0x0A)
            returns |= byte == np.uint8(0x0D)
            low = (byte < np.uint8(0x20)) & (byte != np.uint8(0x0A)) & (byte != np.uint8(0x09))
            controls |= (low & (byte != np.uint8(0x0D))) | (byte == np.uint8(0x7F))
        untidy = controls | returns
        if foreign and not (composed and _is_composed(piece)):
            flag |= FOREIGN
        if untidy:
            flag |= UNTIDY
        if foreign and controls:
            flag |= PARTED
        elif latin:
            for at in range(start, stop):
                if data[at] == 0xC3 and _is_mojibake(data, at, stop):
                    flag |= ODD
        if lines and not untidy and _has_blanks_to_take_out(piece):
            flag |= UNTIDY
        if stop > start and (data[start] == 0x0A or data[stop - 1] == 0x0A):
            flag |= UNTIDY
        flags[text] = flag
    return flags


@kernel
def _has_blanks_to_take_out(piece: np.ndarray) -> bool:
    """Tells whether there are blanks before line ends, or more than two empty lines together."""
    found = False
    after = piece[1:]
    for at in range(len(after)):
        blank = (piece[at] == np.uint8(0x20)) | (piece[at] == np.uint8(0x09))
        found |= blank & (after[at] == np.uint8(0x0A))
    second, third, fourth = piece[1:], piece[2:], piece[3:]
    for at in range(len(fourth)):
        two = (piece[at] == np.uint8(0x0A)) & (second[at] == np.uint8(0x0A))
        found |= two & (third[at] == np.uint8(0x0A)) & (fourth[at] == np.uint8(0x0A))
    return found


@kernel
def _is_composed(piece: np.ndarray) -> bool:
    """Tells whether all characters are ones that NFC leaves alone, whatever stands beside them.

    These are Latin up to U+02FF, Greek and Cyrillic letters, general punctuation, arrows, frames
    and emoji, and what Chinese and Japanese are written with; others may be too.
    """
    at = 0
    while at < len(piece):
        first = piece[at]
        if first < 0x80:
            at += 1
        elif first < 0xCC:
            at += 2
        elif 0xE4 <= first <= 0xE9:
            # U+4000 to U+9FFF.
            at += 3
        elif first < 0xE0:
            point = code_point(piece, at)
            # Behind the combining marks: Greek has some that become others.
            if not 0x388 <= point <= 0x482:
                return False
            at += 2
        elif first < 0xF0:
            point = code_point(piece, at)
            punctuation = 0x2002 <= point <= 0x205F or 0x3001 <= point <= 0x3029
            kana = 0x3041 <= point <= 0x3096 or 0x309B <= point <= 0x30FF
            wide = 0xFF01 <= point <= 0xFFEE or 0x3400 <= point <= 0x3FFF
            sign = 0x2100 <= point <= 0x2125 or 0x2190 <= point <= 0x21FF
            sign |= 0x2460 <= point <= 0x27FF or 0xFE00 <= point <= 0xFE0F
            if not (punctuation or kana or wide or sign):
                return False
            at += 3
        else:
            if not 0x1F000 <= code_point(piece, at) <= 0x1FAFF:
                return False
            at += 4
    return True


@kernel
def _is_mojibake(data: np.ndarray, at: int, stop: int) -> bool:
    """Tells whether the bytes from C3 on are one of `_MOJIBAKE_MARKS`."""
    if at + 3 >= stop:
        return False
    second, third, fourth = data[at + 1], data[at + 2], data[at + 3]
    euro = at + 4 < stop and third == 0xE2 and fourth == 0x82 and data[at + 4] == 0xAC
    if second == 0xA2:
        return euro
    if second == 0x83:
        return euro or third == 0xC2
    return second == 0x82 and third == 0xC2 and fourth >= 0xA0


@kernel
def _tidied(
    data: np.ndarray, offsets: np.ndarray, flags: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the bytes and offsets of texts, those flagged `UNTIDY` without carriage returns,
    control characters, blanks before line ends, more than two empty lines, and outer newlines."""
    out = np.empty(offsets[len(offsets) - 1] - offsets[0], np.uint8)
    ends = np.zeros(len(offsets), np.int64)
    put = 0
    text = -1
    while text + 1 < len(flags):
        text += 1
        begun = text
        while text < len(flags) and not flags[text] & UNTIDY:
            ends[text + 1] = put + offsets[text + 1] - offsets[begun]
            text += 1
        # What stays goes along in one piece.
        whole = data[offsets[begun] : offsets[text]]
        place = out[put : put + len(whole)]
        for at in range(len(whole)):
            place[at] = whole[at]
        put += len(whole)
        if text == len(flags):
            break
        start, stop = offsets[text], offsets[text + 1]
        first = put
        at = start - 1
        while at + 1 < stop:
            at += 1
            while at + _STEP <= stop:
                # Most of a text stays as it is; without a sign the compiler makes this wide.
                here, there = np.uint64(at), np.uint64(put)
                odd = False
                for offset in range(np.uint64(_STEP)):
                    byte = data[here + offset]
                    odd |= (byte < np.uint8(0x20)) | (byte == np.uint8(0x7F))
                    out[there + offset] = byte
                if odd:
                    break
                at += _STEP
                put += _STEP
            while at < stop and data[at] >= 0x20 and data[at] != 0x7F:
                out[put] = data[at]
                at += 1
                put += 1
            if at == stop:
                break
            byte = data[at]
            if byte == 0x0D:
                if at + 1 < stop and data[at + 1] == 0x0A:
                    continue
                byte = np.uint8(0x0A)
            if byte == 0x0A:
                while put > first and (out[put - 1] == 0x20 or out[put - 1] == 0x09):
                    put -= 1
                full = put - first >= 3 and out[put - 1] == 0x0A
                if put == first or (full and out[put - 2] == 0x0A and out[put - 3] == 0x0A):
                    continue
            elif (byte < 0x20 and byte != 0x09) or byte == 0x7F:
                continue
            out[put] = byte
            put += 1
        while put > first and out[put - 1] == 0x0A:
            put -= 1
        ends[text + 1] = put
    return out[:put], ends


def clean_text(text: str, config: CleanConfig) -> str:
    """Gives text in one Unicode form, with `\\n` line ends and without control characters.

    Args:
        text: any text.
        config: what is done.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # First, because they may stand between the halves of what is to be mended.
    text = _CONTROL.sub("", text)
    if config.repair_encoding:
        text = _repaired(text)
    if config.normalize != "none":
        text = unicodedata.normalize(config.normalize, text)
    text = _TRAILING_BLANKS.sub("\n", text)
    text = _MANY_EMPTY_LINES.sub("\n\n\n", text).strip("\n")
    if config.chinese != "keep":
        text = _chinese_converter(config.chinese).convert(text)
    return c4_lines(text) if config.c4_lines else text


def _repaired(text: str) -> str:
    """Mends text read in a wrong encoding, and again what was read wrongly more than once."""
    if not _MOJIBAKE_MARKS.search(text):
        return text
    # Line by line, as ftfy itself advises: what is right in one line says nothing of the next.
    return "\n".join(_repaired_line(line) for line in text.split("\n"))


def _repaired_line(line: str) -> str:
    before = None
    while line != before and _MOJIBAKE_MARKS.search(line):
        import ftfy

        # Mending shortens, so this ends; it may bring control characters to light.
        before, line = line, _CONTROL.sub("", ftfy.fix_encoding(line))
    return line


@functools.cache
def _chinese_converter(script: str) -> Any:
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise not_installed("OpenCC", "chinese", "corpus.clean.chinese") from error
    return OpenCC("t2s" if script == "simplified" else "s2t")


def c4_lines(text: str) -> str:
    """Gives the lines that C4 keeps: three words, an end mark, no JavaScript or cookie notice.

    Raffel et al. (2020), section 2.2; citations such as [3] are taken out as there.
    """
    kept = []
    for raw in text.splitlines():
        line = raw.strip()
        words = line.split()
        if any(len(word) > 1000 for word in words):
            continue
        line = _C4_CITATION.sub("", line)
        if not line.endswith(_C4_ENDS) or line.endswith("..."):
            continue
        few = len(words) < 3 and not any("\u4e00" <= character <= "\u9fff" for character in line)
        lower = line.lower()
        if few or "javascript" in lower or any(phrase in lower for phrase in _C4_POLICY):
            continue
        kept.append(line)
    return "\n".join(kept)
