"""Makes text canonical before it is compared, split and counted."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa

from tianti.corpus.config import CleanConfig
from tianti.corpus.kernels import kernel, text_buffers
from tianti.errors import UserError
from tianti.messages import tr

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


def clean_texts(texts: list[str], config: CleanConfig) -> list[str]:
    """Gives texts cleaned; those that need nothing are told by one pass over their bytes."""
    column = text_column(texts)
    flags = _what_is_needed(*text_buffers(column))
    foreign = config.chinese != "keep" or config.c4_lines
    return [
        clean_text(text, config)
        if foreign or flag & 1 or (flag & 2 and _is_odd(text, config))
        else text
        for text, flag in zip(texts, flags.tolist(), strict=True)
    ]


def text_column(texts: list[str]) -> pa.Array:
    """Gives texts as a column; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return pa.array(
            [text.encode("utf-8", "replace").decode() for text in texts], pa.large_string()
        )


def _is_odd(text: str, config: CleanConfig) -> bool:
    if config.normalize != "none" and not unicodedata.is_normalized(config.normalize, text):
        return True
    return config.repair_encoding and _MOJIBAKE_MARKS.search(text) is not None


@kernel
def _what_is_needed(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Gives 1 for texts with something to take out, plus 2 for those not in ASCII alone."""
    flags = np.zeros(len(offsets) - 1, np.uint8)
    for text in range(len(flags)):
        start, stop = offsets[text], offsets[text + 1]
        newlines = 1
        before = np.uint8(0x0A)
        flag = 0
        for at in range(start, stop):
            byte = data[at]
            if byte >= 0x20:
                if byte >= 0x7F:
                    flag |= 1 if byte == 0x7F else 2
                newlines = 0
            elif byte == 0x0A:
                newlines += 1
                if newlines > 3 or before == 0x20 or before == 0x09 or at == start:
                    flag |= 1
            elif byte == 0x09:
                newlines = 0
            else:
                flag |= 1
            before = byte
        if stop > start and data[stop - 1] == 0x0A:
            flag |= 1
        flags[text] = flag
    return flags


def clean_text(text: str, config: CleanConfig) -> str:
    """Gives text in one Unicode form, with `\\n` line ends and without control characters.

    Args:
        text: any text.
        config: what is done.
    """
    if config.repair_encoding and _MOJIBAKE_MARKS.search(text):
        text = _repaired(text)
    if config.normalize != "none":
        text = unicodedata.normalize(config.normalize, text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    text = _TRAILING_BLANKS.sub("\n", text)
    text = _MANY_EMPTY_LINES.sub("\n\n\n", text).strip("\n")
    if config.chinese != "keep":
        text = _chinese_converter(config.chinese).convert(text)
    return c4_lines(text) if config.c4_lines else text


def _repaired(text: str) -> str:
    import ftfy

    return ftfy.fix_encoding(text)


@functools.cache
def _chinese_converter(script: str) -> Any:
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise UserError(
            tr("OpenCC is not installed"),
            where="corpus.clean.chinese",
            remedy="pip install 'tianti[chinese]'",
        ) from error
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
