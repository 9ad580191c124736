"""English and Korean. English is the key, `ko.json` holds the Korean; a test holds the two together.

One table for pages and reports, so that a term has one Korean word wherever it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import resources

from coarseloc.core.errors import InputError

LANGUAGES = {"en": "English", "ko": "한국어"}
DEFAULT = "en"
Translator = Callable[[str], str]


@cache
def dictionary(language: str) -> dict[str, str]:
    """{English: translation}; empty for English itself."""
    if language == DEFAULT:
        return {}
    text = resources.files(__package__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    translations: dict[str, str] = json.loads(text)
    return translations


@cache
def translator(language: str) -> Translator:
    """A function from an English text to the same text in `language`. Raises InputError for an unknown language."""
    if language not in LANGUAGES:
        raise InputError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    translations = dictionary(language)
    return lambda text: translations.get(text, text)
