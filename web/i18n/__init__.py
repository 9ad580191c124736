"""English and Korean. English is the key, `ko.json` holds the Korean; a test holds the two together.

Templates and modules say `_("Flights")`, `_("{n} of {total}", n=3, total=9)`; `_n` chooses between one and many.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from flask import g, request

LANGUAGES = {"en": "English", "ko": "한국어"}
DEFAULT = "en"


@cache
def dictionary(language: str) -> dict[str, str]:
    """{English: translation}; empty for English itself."""
    if language == DEFAULT:
        return {}
    text = resources.files(__package__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    translations: dict[str, str] = json.loads(text)
    return translations


def chosen() -> str:
    """The language of this request: `?lang=`, the reader's earlier choice, or what the browser prefers.

    `?words=` is a figure's own, which is kept by its address and must not change with the reader's choice.
    """
    for wanted in (request.args.get("words"), request.args.get("lang"), request.cookies.get("lang")):
        if wanted in LANGUAGES:
            return wanted
    return request.accept_languages.best_match(list(LANGUAGES), DEFAULT) or DEFAULT


def translate(text: str, **values: object) -> str:
    """`text` in the request's language, with its {placeholders} filled in."""
    # Before the request is accepted (a foreign Host), nobody has chosen a language.
    translated = dictionary(g.get("language", DEFAULT)).get(text, text)
    return translated.format(**values) if values else translated


def translate_count(one: str, many: str, n: int, **values: object) -> str:
    """`translate(one, n=n)` for exactly one, else `translate(many, n=n)`."""
    return translate(one if n == 1 else many, n=n, **values)


_ = translate
