"""English and Korean say the same things."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

from jinja2 import Environment
from jinja2.ext import extract_from_ast

import web
from web.i18n import LANGUAGES, dictionary

ROOT = Path(web.__file__).parent
CALLS = ("_", "_n", "translate", "translate_count")


def texts_of_templates() -> set[str]:
    environment = Environment()
    found: set[str] = set()
    for path in (ROOT / "templates").glob("*.html"):
        for _line, _name, text in extract_from_ast(environment.parse(path.read_text(encoding="utf-8")), CALLS):
            found.update(one for one in ([text] if isinstance(text, str) else text) if one)
    return found


def texts_of_modules() -> set[str]:
    found: set[str] = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in CALLS:
                found.update(
                    one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )
    return found


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_has_its_korean_and_no_korean_is_left_over() -> None:
    wanted, korean = texts_of_templates() | texts_of_modules(), dictionary("ko")
    assert wanted - korean.keys() == set(), "texts without a translation in web/i18n/ko.json"
    assert korean.keys() - wanted == set(), "translations that no page uses any more"


def test_translations_keep_their_placeholders() -> None:
    for english, korean in dictionary("ko").items():
        assert placeholders(english) == placeholders(korean), english


def test_translations_are_korean() -> None:
    untranslated = [english for english, korean in dictionary("ko").items() if not re.search("[가-힣]", korean)]
    assert untranslated == []


def test_words_are_not_written_into_templates_past_the_dictionary() -> None:
    """Text between tags that is neither a placeholder, a sign nor a command is a forgotten translation."""
    for path in (ROOT / "templates").glob("*.html"):
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text(encoding="utf-8"), flags=re.S)
        bare = re.sub(r"<(code|kbd)\b.*?</\1>|<[^>]*>", " ", text, flags=re.S)
        words = set(re.findall(r"[A-Za-z]{3,}", bare)) - {"coarseloc", "JSON"}
        assert words == set(), f"{path.name}: {sorted(words)}"


def test_languages_are_english_and_korean() -> None:
    assert list(LANGUAGES) == ["en", "ko"]
