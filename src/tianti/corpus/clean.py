"""Makes text canonical before it is compared, split and counted."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_TRAILING_BLANKS = re.compile(r"[ \t]+\n")
_MANY_EMPTY_LINES = re.compile(r"\n{4,}")


def clean_text(text: str, normalize: Literal["NFC", "NFKC", "none"]) -> str:
    """Gives text in one Unicode form, with `\\n` line ends and without control characters.

    Args:
        text: any text.
        normalize: the Unicode form, or `none`.
    """
    if normalize != "none":
        text = unicodedata.normalize(normalize, text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    text = _TRAILING_BLANKS.sub("\n", text)
    return _MANY_EMPTY_LINES.sub("\n\n\n", text).strip("\n")
