"""What people write on frames: tags to find them by, and a note. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from coarseloc.core import ids
from coarseloc.core.errors import InputError

MOST_TAGS = 20  # of a frame
TAG_CHARACTERS = 40
NOTE_CHARACTERS = 2000

_SEPARATORS = re.compile(r"[\s,，、]+")


@dataclass(frozen=True, slots=True)
class FrameMarks:
    """The tags of a frame, sorted, and its note; "" for none."""

    tags: tuple[str, ...] = ()
    note: str = ""


UNMARKED = FrameMarks()


def parse_tags(texts: Iterable[str]) -> tuple[str, ...]:
    """Read tags with white space or commas between them, each once, sorted. Tags are kept in lower case and NFC, so
    that `Glint` and `glint` are one. Raises InputError for what is no tag."""
    words = {_tag(word) for text in texts for word in _SEPARATORS.split(text) if word}
    return tuple(sorted(words))


def _tag(word: str) -> str:
    tag = unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).lower())
    # Letters, combining marks and digits of every script.
    fits = all(unicodedata.category(character)[0] in "LMN" or character in "-_." for character in tag)
    if not fits or len(tag) > TAG_CHARACTERS or unicodedata.category(tag[0])[0] not in "LN":
        shown = word if len(word) <= TAG_CHARACTERS else f"{word[:TAG_CHARACTERS]}…"
        raise InputError(
            f"{shown!r} is no tag: expected a word of up to {TAG_CHARACTERS} letters, digits, - _ and ., such as "
            "to-check"
        )
    return tag


def parse_note(text: str) -> str:
    """Read a note: NFC, without white space around it. Raises InputError where it is too long or has control
    characters other than line ends and tabs."""
    note = ids.label(text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(note) > NOTE_CHARACTERS:
        raise InputError(f"the note has {len(note)} characters: expected {NOTE_CHARACTERS} at most")
    if (visible := ids.visible(note)) != note:
        at = next(at for at, (a, b) in enumerate(zip(note, visible, strict=True)) if a != b)
        raise InputError(
            f"the note has the control character U+{ord(note[at]):04X} as character {at + 1}: take it out, only line "
            "ends and tabs are taken"
        )
    return note
