"""The language of a request, and texts in it.

Templates and modules say `_("Flights")`, `_("{n} of {total}", n=3, total=9)`; `_n` chooses between singular and plural.
"""

from __future__ import annotations

from flask import g, request

from coarseloc.i18n import DEFAULT, LANGUAGES, translator


def request_language() -> str:
    """The language of this request: `?lang=`, the reader's earlier choice, or what the browser prefers.

    `?words=` is a figure's own, which is kept by its address and must not change with the reader's choice.
    """
    for language in (request.args.get("words"), request.args.get("lang"), request.cookies.get("lang")):
        if language in LANGUAGES:
            return language
    return request.accept_languages.best_match(list(LANGUAGES), DEFAULT) or DEFAULT


def translate(text: str, **values: object) -> str:
    """`text` in the request's language, with its {placeholders} filled in."""
    # Before the request is accepted (a foreign Host), nobody has chosen a language.
    translated = translator(g.get("language", DEFAULT))(text)
    return translated.format(**values) if values else translated


def translate_count(singular: str, plural: str, n: int, **values: object) -> str:
    """`translate(singular, n=n)` for n = 1, else `translate(plural, n=n)`."""
    return translate(singular if n == 1 else plural, n=n, **values)


_ = translate
