"""What metrics call a word: in Chinese a character, elsewhere what letters and digits make."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

# Scripts without blanks between words: Han, kana, Bopomofo; Thai, Lao, Myanmar, Khmer, Tibetan.
_UNSPACED = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
    "\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0edf\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3"
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA = re.compile("[\u3041-\u309f\u30a1-\u30ff]")
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W_])+")


def normalize(text: str) -> str:
    """Gives a text in lower case and compatibility form: full width is half width."""
    return unicodedata.normalize("NFKC", text).lower()


@lru_cache(maxsize=65_536)
def words(text: str) -> tuple[str, ...]:
    """Gives the words of a text without punctuation, each character of unspaced scripts alone.

    Of English in ASCII these are the words of rouge-score's own tokenizer.
    """
    return tuple(_WORD.findall(normalize(text)))


def script(texts: Sequence[str]) -> str:
    """Gives `ja` where there is kana, `zh` where Han characters prevail, else `other`."""
    kana = han = letters = 0
    for text in texts:
        kana += len(_KANA.findall(text))
        han += len(_HAN.findall(text))
        letters += sum(character.isalpha() for character in text)
    if kana > 0.1 * max(letters, 1):
        return "ja"
    return "zh" if han > 0.3 * max(letters, 1) else "other"
