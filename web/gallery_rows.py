"""The gallery's rows, and which of them an address asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import request

from coarseloc.core.marks import parse_tags
from coarseloc.store import marks
from search.answered_frames import NAMES, NUMBERS, AnsweredFrames, Keys, RowKey, answer_sources, answered_frames
from web.language import _
from web.problems import Problem
from web.state import current_state

_PICK = re.compile(r"(\d{1,18})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class RowChoice:
    """What an address asks of the gallery: rows by their texts and numbers, and their order."""

    names: Mapping[str, Sequence[str]]  # {column: texts}, none for all
    bounds: Mapping[str, tuple[float | None, float | None]]  # {column: (least, most)}
    tags: Sequence[str]  # of which a frame has one at least, none for all frames
    sort: str | None  # a column of numbers
    descending: bool

    @property
    def order(self) -> str:
        """As `?sort=` says it."""
        return "" if self.sort is None else f"-{self.sort}" if self.descending else self.sort


def gallery_table() -> AnsweredFrames:
    """All answers, read again only after one has come or a truth has changed."""
    state = current_state()
    with state.database.read() as session:
        sources = answer_sources(session)
        return state.answered_frames.recall(sources.mark, lambda: answered_frames(session, sources))


def row_choice() -> RowChoice:
    """Read the address. Raises Problem 400 for what is no number, and for an unknown column to sort by; InputError for
    what is no tag."""
    names = {name: [text for text in request.args.getlist(name) if text] for name in NAMES}
    bounds = {name: (_number(f"{name}-from"), _number(f"{name}-to")) for name in NUMBERS}
    order = request.args.get("sort", "")
    column = order.removeprefix("-") or None
    if column is not None and column not in NUMBERS:
        known = ", ".join(NUMBERS)
        raise Problem(400, _("There is no column {name} to sort by: ask for {known}.", name=column, known=known))
    return RowChoice(names, bounds, parse_tags(request.args.getlist("tag")), column, order.startswith("-"))


def chosen_rows(table: AnsweredFrames, choice: RowChoice) -> Keys:
    """The rows that an address asks for, in its order."""
    rows = table.select(choice.names, choice.bounds)
    if choice.tags:
        with current_state().database.read() as session:
            rows = table.of_frames(rows, marks.tagged_frames(session, choice.tags))
    return table.order(rows, choice.sort, choice.descending)


def picked_rows() -> tuple[AnsweredFrames, list[int]]:
    """The table, and its rows that `?pick=` names, else all that the address asks for, in its order."""
    table, choice = gallery_table(), row_choice()
    keys = [parse_key(text) for text in request.args.getlist("pick")]
    rows = table.order(table.rows_of(keys), choice.sort, choice.descending) if keys else chosen_rows(table, choice)
    return table, rows.tolist()


def parse_key(text: str) -> RowKey:
    """Read a row's key as addresses write it. Raises Problem 400 for another text."""
    match = _PICK.fullmatch(text)
    if match is None:
        raise Problem(400, _("{value} names no row of the gallery.", value=text))
    return RowKey(int(match[1]), int(match[2]))


def key_text(key: RowKey) -> str:
    return f"{key.localization}-{key.frame}"


def _number(name: str) -> float | None:
    text = request.args.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Problem(400, _("{name} is {value}: a number was expected.", name=name, value=text))
    return value
