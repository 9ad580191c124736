"""What reports say, in English and Korean. The English text is the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources

from coarseloc.embedding import specs
from coarseloc.errors import InputError

LANGUAGES = ("en", "ko")
Say = Callable[[str], str]


@cache
def say_in(language: str) -> Say:
    """A function from an English text to the same in `language`; InputError for one that is not here."""
    if language not in LANGUAGES:
        raise InputError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    words = {} if language == "en" else korean()
    return lambda text: words.get(text, text)


def stand_ins(backbones: Iterable[str], say: Say) -> list[str]:
    """A warning where some are none of the six DINOv3 backbones."""
    known = {name for name, row in specs.BACKBONES.items() if row.is_dinov3}
    strangers = [name for name in dict.fromkeys(backbones) if name not in known]
    warning = say(
        "{names}: none of the six DINOv3 backbones. Read their figures as what this pipeline does with them, "
        "not as DINOv3's."
    )
    return [warning.format(names=", ".join(strangers))] if strangers else []


@cache
def korean() -> dict[str, str]:
    """{English: Korean}."""
    found: dict[str, str] = json.loads(resources.files("search.report").joinpath("ko.json").read_text(encoding="utf-8"))
    return found
