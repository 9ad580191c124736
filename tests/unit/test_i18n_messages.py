"""Messages in Korean: each key is a text of the source, each value comes along, and what is not there stays English."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from coarseloc.i18n import dictionary
from coarseloc.i18n.messages import language_of_environment, message_translator, messages
from search.preflight.findings import SENTENCES, Finding

ROOT = Path(__file__).parents[2]
VALUE = re.compile(r"\{\d+\}")


@cache
def texts_of_the_source() -> dict[str, set[str]]:
    """{text: files}, an f-string with its values numbered."""
    texts: dict[str, set[str]] = {}
    for path in sorted(
        path for package in ("coarseloc", "ingest", "search") for path in (ROOT / package).rglob("*.py")
    ):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                count = iter(range(len(node.values)))
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else f"{{{next(count)}}}" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                text = node.value
            else:
                continue
            texts.setdefault(text, set()).add(path.name)
    return texts


def test_every_message_stands_in_the_source_and_its_korean_has_its_values():
    for english, korean in messages("ko").items():
        assert english in texts_of_the_source(), english
        assert sorted(VALUE.findall(english)) == sorted(VALUE.findall(korean)), english
        assert re.search("[가-힣]", korean), english
    assert sorted(messages("ko").keys() & dictionary("ko").keys()) == []  # one text, one Korean


@pytest.mark.parametrize(
    "command", ["demo", "ingest", "search", "track", "export", "evaluation", "localize", "live", "bundle", "terminal"]
)
def test_what_the_main_commands_print_is_there_in_korean(command):
    tree = ast.parse((ROOT / f"coarseloc/cli/{command}.py").read_text(encoding="utf-8"))
    printed = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "print"
        for argument in call.args
    }
    translate = message_translator("ko")
    for node in ast.walk(tree):
        if id(node) in printed and isinstance(node, ast.JoinedStr):
            count = iter(range(len(node.values)))
            english = "".join(str(p.value) if isinstance(p, ast.Constant) else f"{next(count)}" for p in node.values)
        elif id(node) in printed and isinstance(node, ast.Constant):
            english = str(node.value)
        else:
            continue
        if re.search("[a-z]{3}", english) and "larger backbone" not in english:
            assert re.search("[가-힣]", translate(english)), english


def test_values_are_copied_and_sentences_among_them_translated():
    translate = message_translator("ko")
    assert (
        translate("flight 'track' is not known: expected one of a, b") == "비행 'track'을(를) 모릅니다. 있는 것: a, b"
    )
    assert translate("ingest a b: 5 of 10 frames") == "수집 a b: 10 frames 중 5"
    unknown = "preflight: doubtful: A tile of a has only 96 px a side. The rest of it is magnified."
    assert translate(unknown) == unknown
    nested = translate(
        "doctor found problems with: run 5 is not finished: run the same `coarseloc search` again, it goes on"
    )
    assert nested.startswith("doctor가 찾은 문제: 실행 5이(가) 끝나지 않았습니다")
    assert translate("{} nobody has {0} this") == "{} nobody has {0} this"
    assert message_translator("en")("no failures") == "no failures"


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE", "COARSELOC_LANG": "ko"}, "ko"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
    ],
)
def test_the_language_is_the_readers(environment, language):
    assert language_of_environment(environment) == language


def test_findings_of_a_preflight_are_in_korean_with_the_sentences_among_their_values():
    translate = message_translator("ko")
    for key, sentence in SENTENCES.items():
        if re.search("[a-z]{3}", re.sub(r"\{\w+\}", "", sentence)):
            assert re.search("[가-힣]", translate(sentence)), key
    finding = Finding(
        "weights", "no", "no-backbone", {"reason": "backbone x: flight 'y' is not known: expected one of z. q"}
    )
    assert "비행 'y'을(를) 모릅니다" in finding.sentence(translate)
    assert finding.sentence() == finding.values["reason"]


def test_a_frame_of_a_live_flight_and_its_summary_are_in_korean():
    translate = message_translator("ko")
    line = translate("    3 tracking  37.5000000, 127.0300000 ± 1.2 m, 90.0°, p 0.990, 0.12 s old, 2 dropped")
    assert line.endswith("p 0.990, 0.12초 전, 2개 버림")
    assert translate("from arrival to estimate: median 0.12 s, largest 3.00 s").startswith("도착에서 추정까지")


def test_what_is_said_of_a_file_is_translated_behind_its_name() -> None:
    translated = message_translator("ko")("/data/f/labels.csv: its column altitude is in ft: converted")
    assert translated.startswith("/data/f/labels.csv: ") and "변환" in translated
    assert message_translator("ko")("a: b: c") == "a: b: c"
