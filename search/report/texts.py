"""What reports say, in English and Korean. The English text is the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import resources

from coarseloc.errors import InputError

LANGUAGES = ("en", "ko")
Say = Callable[[str], str]


def say_in(language: str) -> Say:
    """A function from an English text to the same in `language`; InputError for one that is not here."""
    if language not in LANGUAGES:
        raise InputError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    words = {} if language == "en" else korean()
    return lambda text: words.get(text, text)


@cache
def korean() -> dict[str, str]:
    """{English: Korean}."""
    found: dict[str, str] = json.loads(resources.files("search.report").joinpath("ko.json").read_text(encoding="utf-8"))
    return found
