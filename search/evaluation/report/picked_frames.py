"""Frames that somebody picked, as one file to read: what was answered, and the hits beside each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coarseloc.i18n import Translator
from coarseloc.store.runs import FrameResult
from search.evaluation.report.page import Page, Section, Table, write_page
from search.evaluation.report.pictures import labelled_strips

HITS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class PickedFlight:
    """A flight's picked rows: their figures as text, and each search's result for each frame."""

    flight_id: str
    figures: Table
    results: Sequence[tuple[str, FrameResult]]  # (label of the search, result), of a frame one after the other


def write_picked_frames(
    flights: Sequence[PickedFlight],
    notes: Sequence[str],
    out: Path,
    thumbnails: Path,
    language: str,
    translate: Translator,
) -> None:
    """Write the picked frames of some flights as one HTML file that needs nothing else. notes: what the reader asked."""
    sections = [
        Section(
            f"flight-{number}", flight.flight_id, body=_strips(flight, thumbnails, translate), table=flight.figures,
            open=True,
        )
        for number, flight in enumerate(flights, 1)
    ]  # fmt: skip
    rows = sum(len(flight.figures.rows) for flight in flights)
    facts = [(translate("rows"), str(rows)), (translate("flights"), str(len(flights)))]
    page = Page(translate("Picked frames"), notes, facts, sections, language=language, translate=translate)
    write_page(page, out)


def _strips(flight: PickedFlight, thumbnails: Path, translate: Translator) -> str:
    labelled_by_frame: dict[int, list[tuple[str, FrameResult]]] = {}
    for label, result in flight.results:
        if result.hits:
            labelled_by_frame.setdefault(result.frame.index, []).append((label, result))
    return "".join(
        labelled_strips(labelled[0][1].frame, labelled, thumbnails, HITS_SHOWN, translate)
        for labelled in labelled_by_frame.values()
    )
