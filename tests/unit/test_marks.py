"""Tags and notes as people type them."""

from __future__ import annotations

import unicodedata

import pytest

from coarseloc.core.errors import InputError
from coarseloc.core.marks import NOTE_CHARACTERS, TAG_CHARACTERS, parse_note, parse_tags


@pytest.mark.parametrize(
    ("texts", "tags"),
    [
        ([" Glint, to-check\tglint "], ("glint", "to-check")),
        (["구름、반사", "구름"], ("구름", "반사")),
        ([unicodedata.normalize("NFD", "구름 É")], ("é", "구름")),
        (["हिन्दी"], ("हिन्दी",)),
        (["", " ,, "], ()),
    ],
)
def test_tags_are_words_in_lower_case_each_once(texts: list[str], tags: tuple[str, ...]) -> None:
    assert parse_tags(texts) == tags


@pytest.mark.parametrize(
    "text", ["<b>x</b>", "a\u202eb", "x\x00", "a/b", "-x", "=1+1", "#glint", "x" * (TAG_CHARACTERS + 1), "x" * 10_000]
)
def test_what_is_no_tag_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(InputError, match="is no tag") as refused:
        parse_tags(["good", text])
    assert len(str(refused.value)) < 200 and not set("\u202e\x00\n") & set(str(refused.value))


def test_a_note_keeps_its_lines_and_any_markup_as_text() -> None:
    assert parse_note("  <script>\r\n\tsun\r <b> ") == "<script>\n\tsun\n <b>"
    assert len(parse_note("é" * NOTE_CHARACTERS)) == NOTE_CHARACTERS


@pytest.mark.parametrize(
    ("text", "said"), [("a" * 2001, "2001"), ("ab\u202ec", r"U\+202E as character 3"), ("\x1b[2J", "001B")]
)
def test_a_note_that_is_too_long_or_not_plain_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_note(text)
