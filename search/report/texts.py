"""What reports say, in English and Korean. The English text is the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
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


def how_timed(batch: int | None, say: Say) -> str:
    """Whether a time is a frame's own, or its share of a batch's."""
    if batch is None:
        return say("batch size not recorded")
    if batch == 1:
        return say("one frame at a time")
    return say("batches of up to {n}, their time divided by their frames").format(n=batch)


def threads_of(threads: Mapping[str, int] | None, say: Say) -> str:
    """`search.facts.threads` as a reader sees them; an older run does not record them."""
    if not threads:
        return say("threads not recorded")
    return say("torch {torch}, FAISS {faiss}, OpenMP {omp} threads").format(**threads)


@cache
def korean() -> dict[str, str]:
    """{English: Korean}."""
    found: dict[str, str] = json.loads(resources.files("search.report").joinpath("ko.json").read_text(encoding="utf-8"))
    return found
