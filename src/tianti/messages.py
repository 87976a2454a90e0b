"""Messages in the reader's language: English in the code, other languages in `locale/*.json`.

The language is `TIANTI_LANG` (`en` or `zh-CN`) or, failing that, the locale of the environment.
"""

from __future__ import annotations

import functools
import json
import os
from importlib import resources

LANGUAGES = ("en", "zh-CN")


def current_language() -> str:
    """Gives the language messages are shown in: one of `LANGUAGES`."""
    for variable in ("TIANTI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "zh-CN" if value.lower().startswith("zh") else "en"
    return "en"


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """Gives the translations of one language, keyed by the English text."""
    if language == "en":
        return {}
    text = resources.files("tianti").joinpath("locale", f"{language}.json").read_text("utf-8")
    return json.loads(text)


class Message(str):
    """A message in the current language that can be told in another one.

    Attributes:
        text: in English, `{names}` open.
        values: what fills them.
    """

    text: str
    values: dict[str, object]

    def told_in(self, language: str) -> str:
        """Gives the message in a named language, messages among its values too."""
        values = {
            name: value.told_in(language) if isinstance(value, Message) else value
            for name, value in self.values.items()
        }
        return tr_in(language, self.text, **values)


def tr(text: str, /, **values: object) -> Message:
    """Gives `text` in the current language with `{names}` filled in from `values`."""
    message = Message(tr_in(current_language(), text, **values))
    message.text, message.values = text, values
    return message


def in_all_languages(text: str) -> dict[str, str]:
    """Gives a message in every language; a text that is none stays as it is."""
    return {
        language: text.told_in(language) if isinstance(text, Message) else text
        for language in LANGUAGES
    }


def tr_in(language: str, text: str, /, **values: object) -> str:
    """Gives `text` in a named language; text without a translation stays English."""
    translated = catalogue(language).get(text, text)
    return translated.format(**values) if values else translated
