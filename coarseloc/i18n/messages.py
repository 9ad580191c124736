"""What commands say, in the reader's language: sentences with values in them, matched against their English.

A message is written in English where it arises, as an f-string; `messages.ko.json` holds its Korean under the same
text, its values numbered: "run {0} is not known". tests/unit/test_i18n_messages.py holds every key against the source.
Values are copied as they are, but a sentence among them is translated too. What is not in the table stays English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from coarseloc.i18n import DEFAULT, LANGUAGES, Translator, translator

_VALUE = re.compile(r"\{(\d+)\}")
_FEW_LETTERS = 4


def language_of_environment(environment: Mapping[str, str]) -> str:
    """The language that COARSELOC_LANG names, else the locale (POSIX: LC_ALL, LC_MESSAGES, LANG), else English."""
    names = ("COARSELOC_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    stated = next((value for name in names if (value := environment.get(name))), DEFAULT)
    language = re.split(r"[_.@-]", stated)[0].lower()
    return language if language in LANGUAGES else DEFAULT


@cache
def message_translator(language: str) -> Translator:
    """A function from a message in English to the same in `language`. Raises InputError for an unknown language."""
    translate_text = translator(language)
    if language == DEFAULT:
        return translate_text
    sentences = messages(language)
    # Those with the longest text of their own first: "{0}: {1}" would match nearly all.
    patterns = [
        (re.compile(_pattern(english), re.DOTALL), translated)
        for english, translated in sorted(sentences.items(), key=lambda entry: -len(_VALUE.sub("", entry[0])))
    ]

    def translate(message: str) -> str:
        if (text := translate_text(message)) != message:  # as it stands: a template may look like another's sentence
            return text
        for pattern, translated in patterns:
            if match := pattern.fullmatch(message):
                values = {number: translate_value(value) for number, value in match.groupdict().items()}
                return _VALUE.sub(r"{v\1}", translated).format_map(values)
        head, separator, tail = message.partition(": ")  # a file's name before what is said of it
        return f"{head}{separator}{translate(tail)}" if separator else message

    def translate_value(value: str) -> str:
        return translate(value) if " " in value else value  # a sentence, not a name

    return translate


@cache
def messages(language: str) -> dict[str, str]:
    """{English with numbered values: translation}."""
    text = resources.files(__package__).joinpath(f"messages.{language}.json").read_text(encoding="utf-8")
    sentences: dict[str, str] = json.loads(text)
    return sentences


def _pattern(english: str) -> str:
    parts = _VALUE.split(english)  # text, number, text, …
    # Hardly any text of its own would match any sentence: "{0}: {1} of {2} {3}" is of single words.
    inner = r"\S+?" if sum(map(str.isalpha, "".join(parts[::2]))) < _FEW_LETTERS else ".*?"
    values = dict.fromkeys(parts[3:-2:2], inner)
    return "".join(
        re.escape(part) if i % 2 == 0 else f"(?P<v{part}>{values.get(part, '.*?')})" for i, part in enumerate(parts)
    )
