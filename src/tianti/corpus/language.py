"""Names the language of texts.

CLD2 (Sites 2013, the detector of Chrome) where it is sure, py3langid (Lui and Baldwin 2012, trained
anew) where it is not.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

# Languages told right in at least 95 of 100 sentences (docs/corpus.md has the table).
_CODES = {"iw": "he", "jw": "jv", "nb": "no", "in": "id", "mo": "ro", "zh-Hant": "zh"}
# Written Chinese with words of a regional tongue; a filter for zh wants it.
_CODES |= {"wuu": "zh", "yue": "zh"}
# The second detector gives this score to text that holds nothing it knows.
_NOTHING_KNOWN = -1e30
_MAX_BYTES = 4096
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
UNKNOWN = "und"


@dataclass(frozen=True, slots=True)
class Language:
    """What language a text is in.

    Args:
        code: ISO 639-1 where there is one, else 639-3; `und` where it cannot be told.
        sure: whether the detector called itself sure.
        share: share of the text in this language, in [0, 1].
    """

    code: str
    sure: bool
    share: float


@functools.cache
def language_codes() -> frozenset[str]:
    """Gives the codes of all languages that can be told, and `und`."""
    import pycld2

    # Those with two x are scripts; the last three only the second detector knows.
    codes = {_code(code) for _, code in pycld2.LANGUAGES if not code.startswith("xx")}
    return frozenset(codes - {"un"} | {UNKNOWN, "an", "se", "wa"})


def detect_language(text: str, *, thorough: bool = True) -> Language:
    """Names the language of a text, by its first 4 KB.

    Args:
        text: any text.
        thorough: where the first detector is not sure, ask the second one, which is slow to load.
    """
    import pycld2

    sample = text[:_MAX_BYTES]
    plain = _INVISIBLE.sub("", sample)
    if not any(character.isalpha() for character in plain):
        return Language(UNKNOWN, False, 0.0)
    try:
        sure, _, found = pycld2.detect(plain.encode(), isPlainText=True, bestEffort=False)
    except pycld2.error:
        sure, found = False, ()
    if sure and found and found[0][1] != "un" and found[0][2] >= 80:
        return Language(_code(found[0][1]), True, found[0][2] / 100)
    if not thorough:
        code = _code(found[0][1]) if found and found[0][1] != "un" else UNKNOWN
        return Language(code, False, found[0][2] / 100 if found else 0.0)
    import py3langid

    code, score = py3langid.classify(plain)
    if score < _NOTHING_KNOWN:
        return Language(UNKNOWN, False, 0.0)
    share = next((row[2] / 100 for row in found if _code(row[1]) == _code(code)), 0.5)
    return Language(_code(code), False, share)


def _code(code: str) -> str:
    return _CODES.get(code, code.split("-")[0])
