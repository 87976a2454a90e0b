"""Chinese characters of the same sound, or of nearly the same look."""

from __future__ import annotations

import functools
from importlib import resources

from tianti.errors import not_installed


@functools.cache
def _alike() -> dict[str, str]:
    folder = resources.files("tianti.corpus.augment")
    table: dict[str, str] = {}
    for group in folder.joinpath("lookalikes.txt").read_text("utf-8").split():
        for character in group:
            others = group.replace(character, "")
            table[character] = table.get(character, "") + others
    return table


def lookalikes(character: str) -> str:
    """Gives the characters that one is taken for; none for most."""
    return _alike().get(character, "")


@functools.cache
def _sounds() -> tuple[dict[str, str], dict[str, str]]:
    """Gives the sound of each common character and the common characters of each sound."""
    try:
        from pypinyin import Style, pinyin
    except ImportError as error:
        raise not_installed("pypinyin", "chinese", "corpus.augment") from error
    # The 3,755 commonest characters: level one of GB 2312.
    common = [
        bytes([row, cell]).decode("gb2312")
        for row in range(0xB0, 0xD8)
        for cell in range(0xA1, 0xFF)
        if (row, cell) < (0xD7, 0xFA)
    ]
    sound_of = {c: pinyin(c, style=Style.NORMAL)[0][0] for c in common}
    of_sound: dict[str, str] = {}
    for character, sound in sound_of.items():
        of_sound[sound] = of_sound.get(sound, "") + character
    return sound_of, of_sound


def homophones(character: str) -> str:
    """Gives the common characters of the same sound, its tone left out.

    Raises:
        UserError: pypinyin is not installed.
    """
    sound_of, of_sound = _sounds()
    sound = sound_of.get(character)
    return of_sound[sound].replace(character, "") if sound else ""
