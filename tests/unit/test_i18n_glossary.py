"""One word for each thing: the Korean of pages, reports and commands keeps to docs/ko/glossary.md."""

from __future__ import annotations

import re
from pathlib import Path

from coarseloc.i18n import dictionary
from coarseloc.i18n.messages import messages

GLOSSARY = Path(__file__).parents[2] / "docs/ko/glossary.md"
NO_TEXT = re.compile(r"\{[^}]*\}|`[^`]*`|--\S+|\S*[_.]\w\S*")  # values, code, options, names of files


def test_every_translation_keeps_to_the_glossary():
    rows = [
        line.strip("| ").split("|")[:2] for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if "|" in line
    ]
    words = {english.strip(): [form.strip() for form in korean.split("/")] for english, korean in rows[2:]}
    assert len(words) > 20
    strays = [
        (word, english, korean)
        for word, forms in words.items()
        for english, korean in (dictionary("ko") | messages("ko")).items()
        if re.search(rf"\b{word}s?\b", NO_TEXT.sub("", english), re.IGNORECASE)
        and not any(form in korean for form in forms)
    ]
    assert strays == []


def test_no_word_stands_beside_the_glossarys_for_the_same_thing():
    others = {"집합": "세트"}
    texts = (dictionary("ko") | messages("ko")).values()
    assert [text for text in texts for word in others if word in text] == []
