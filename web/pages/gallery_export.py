"""Export the gallery's rows: in the formats of a flight, or as a report to read and to print."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Response, g, request, stream_with_context

from coarseloc.core import ids
from coarseloc.store.flights import StoredFlight
from coarseloc.store.runs import FrameResult, StoredRun
from search.answered_frames import AnsweredFrames
from search.export.infos import FrameInfo, frame_infos
from web.fix_texts import answer_state, method_text
from web.gallery_rows import picked_rows
from web.language import _, translate
from web.pages.export_files import archive, attachment, file_writer, without_folders
from web.problems import Problem
from web.selection import stored_flight
from web.state import current_state

routes = Blueprint("gallery_export", __name__)

REPORT_ROWS = 200
MOST_NAMED = 5000  # frames in one statement


@routes.get("/gallery/export.<suffix>")
def gallery_rows(suffix: str) -> Response:
    """The gallery's rows that are picked, else all that the address asks for: a file, or an archive of one for each
    flight and method."""
    writer = file_writer(suffix)
    groups = _row_groups(*picked_rows())
    methods = Counter(group.flight_id for group in groups)
    files = {
        f"{group.flight_id}_{group.method}.{suffix}" if methods[group.flight_id] > 1 else f"{group.flight_id}.{suffix}":
        writer.write(_stored(group), _group_infos(group), None)
        for group in groups
    }  # fmt: skip
    if not files:
        raise Problem(404, _("No frame fits: there is nothing to export."))
    if len(files) == 1:
        ((name, content),) = files.items()
        response = Response(stream_with_context(content), content_type=writer.content_type)
    else:
        name = f"gallery_{suffix}.zip"
        contents = {ids.file_name(inner): "".join(parts).encode() for inner, parts in files.items()}
        response = Response(archive(contents), content_type="application/zip")
    response.headers["Cache-Control"] = "no-cache"
    return attachment(response, name)


@routes.get("/gallery/report.html")
def gallery_report() -> Response:
    """The same rows as one HTML file to read and to print, with pictures inside; so many at most."""
    from search.evaluation.report.page import Table
    from search.evaluation.report.picked_frames import PickedFlight, write_picked_frames

    table, rows = picked_rows()
    if not rows:
        raise Problem(404, _("No frame fits: there is nothing to export."))
    notes = [request.full_path.removesuffix("?")]
    if len(rows) > REPORT_ROWS:
        notes.append(_("Of {total} rows the first {n}.", total=len(rows), n=REPORT_ROWS))
        rows = rows[:REPORT_ROWS]
    titles = (
        *(_("frame"), _("Backbone"), _("Answer"), _("State"), _("Error"), _("Heading off"), _("Probability")),
        *(_("Margin"), _("Agree")),
    )
    figures: dict[str, list[list[str]]] = {}
    for row in rows:
        figures.setdefault(table.text(row, "flight"), []).append(_figure_cells(table, row))
    results: dict[str, list[tuple[str, FrameResult]]] = {}
    for group in _row_groups(table, rows):
        label = method_text(group.method)
        results.setdefault(group.flight_id, []).extend(
            (f"{info.run.spec.backbone} · {label}", info.result) for info in _group_infos(group)
        )
    picked = [PickedFlight(flight_id, Table(titles, cells), results[flight_id]) for flight_id, cells in figures.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.html"
        thumbnails = current_state().settings.thumbnails
        write_picked_frames(picked, notes, out, thumbnails, g.language, translate)
        response = Response(out.read_bytes(), content_type="text/html; charset=utf-8")
    return attachment(response, "gallery-report.html")


def _figure_cells(table: AnsweredFrames, row: int) -> list[str]:
    def cell(column: str, form: str, unit: str = "") -> str:
        value = table.number(row, column)
        return "–" if value is None else format(value, form) + unit

    agreeing, of = table.agreeing[row].tolist()
    method, state = table.text(row, "method"), table.text(row, "state")
    return [
        *(str(int(table.frame[row])), table.text(row, "model"), method_text(method), answer_state(state)),
        *(
            cell("error", ".1f", " m"),
            cell("heading-off", ".1f", "°"),
            cell("probability", ".3f"),
            cell("margin", ".4f"),
        ),
        f"{agreeing}/{of}" if of else "–",
    ]


class _RowGroup(NamedTuple):
    """Rows of one flight by one method."""

    flight_id: str
    method: str
    frames: list[tuple[StoredRun, set[int]]]  # of each run


def _row_groups(table: AnsweredFrames, rows: Sequence[int]) -> list[_RowGroup]:
    frames: dict[tuple[str, str], dict[int, set[int]]] = {}
    for row in rows:
        group = frames.setdefault((table.text(row, "flight"), table.text(row, "method")), {})
        group.setdefault(int(table.run[row]), set()).add(int(table.frame[row]))
    return [
        _RowGroup(flight_id, method, [(table.runs[number], indices) for number, indices in by_run.items()])
        for (flight_id, method), by_run in frames.items()
    ]


def _stored(group: _RowGroup) -> StoredFlight:
    return stored_flight(current_state().database, group.flight_id)


def _group_infos(group: _RowGroup) -> Iterator[FrameInfo]:
    """The records of a group's rows, run by run."""
    state, flight = current_state(), _stored(group).flight
    for run, frames in group.frames:
        named = sorted(frames) if len(frames) <= MOST_NAMED else None  # a statement takes only so many
        infos = frame_infos(state.database, state.settings.thumbnails, flight, [run], named, method=group.method)
        yield from (without_folders(info) for info in infos if info.result.frame.index in frames)
