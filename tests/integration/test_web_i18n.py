"""English and Korean say the same things."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

from jinja2 import Environment
from jinja2.ext import extract_from_ast

import web
from coarseloc.i18n import LANGUAGES, dictionary
from search.evaluation import label_shifts, report
from search.evaluation.fix_scores import FIX_SCORES
from search.evaluation.report import preflight
from search.evaluation.report.localizability import EXCLUDED, NOT_MEASURED
from search.evaluation.report.rotation import ONE_HEADING_INDEX
from search.evaluation.report.truth_check import VERDICT_TEXTS
from search.evaluation.scores import SCORES
from search.evaluation.studies import limits
from search.evaluation.studies.altitude import CROPPED, NEAREST, PYRAMID, SINGLE
from search.evaluation.studies.positions import WITNESSES
from search.evaluation.studies.rotation import EIGHT_HEADINGS, EIGHT_QUERIES, FOUR_HEADINGS, KNOWN_YAW, ONE_HEADING
from search.evaluation.track_evaluation import TRACK_SCORES
from search.preflight import findings
from search.tracking import texts as track_texts

ROOT = Path(web.__file__).parent
CALLS = ("_", "_n", "translate", "translate_count", "translate_figure")


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


def texts_of_reports() -> set[str]:
    """From the sources, so that a text shown only in rare cases is not forgotten."""
    folder = Path(report.__file__).parent
    texts = {score.title for score in (*SCORES, *FIX_SCORES, *TRACK_SCORES)}
    texts |= {ONE_HEADING, FOUR_HEADINGS, EIGHT_HEADINGS, EIGHT_QUERIES, KNOWN_YAW}
    texts |= {*EXCLUDED.values(), *NOT_MEASURED.values(), *VERDICT_TEXTS.values()}
    texts |= {*label_shifts.SENTENCES.values(), *findings.SENTENCES.values()}
    texts |= {*preflight.VERDICTS.values(), *preflight.LEVEL_TEXTS.values(), *preflight.TOPICS.values()}
    texts |= {SINGLE, PYRAMID, NEAREST, CROPPED, ONE_HEADING_INDEX, *WITNESSES.values()}
    texts |= set(re.findall(r"translate\('([^']+)'\)", (folder / "page.html.j2").read_text(encoding="utf-8")))
    for file in (*folder.glob("*.py"), Path(limits.__file__), Path(track_texts.__file__)):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS
            if called and isinstance(node.args[0], ast.Constant):
                texts.add(node.args[0].value)
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "TITLE":
                texts.add(ast.literal_eval(node.value))
    return texts


def test_every_text_has_its_korean_and_no_korean_is_left_over() -> None:
    shown, korean = texts_of_templates() | texts_of_modules() | texts_of_reports(), dictionary("ko")
    assert shown - korean.keys() == set(), "texts without a translation in coarseloc/i18n/ko.json"
    assert korean.keys() - shown == set(), "translations that no page or report uses any more"


def test_a_term_has_one_korean_word() -> None:
    """The users' own: 참조데이터 for references, 유사도 for the score."""
    for english, korean in dictionary("ko").items():
        assert not re.search("기준 (타일|집합)|점수|격차", korean), english
        assert not re.search("참조(?!데이터)", korean), english


def test_translations_keep_their_placeholders() -> None:
    for english, korean in dictionary("ko").items():
        assert placeholders(english) == placeholders(korean), english


def test_translations_are_korean() -> None:
    symbols = re.compile(r"[^a-z]*(MA|PDM|SDM|IoU)?[^a-z]*m?")  # "PDM@3" is that in every language
    untranslated = [
        english
        for english, korean in dictionary("ko").items()
        if not re.search("[가-힣]", korean) and not symbols.fullmatch(english)
    ]
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
