"""Export a flight's searches (CoarseLocalizationInfo, GeoJSON, KML, CSV) and its stored tracks for other programs."""

from __future__ import annotations

import io
import json
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, urljoin

from flask import Blueprint, Response, g, jsonify, request, stream_with_context, url_for
from pydantic import Field

from coarseloc.core import ids
from coarseloc.store.flights import StoredFlight
from coarseloc.store.runs import FrameResult, StoredRun
from search.answered_frames import AnsweredFrames
from search.export.features import FlightFeatures
from search.export.files import (
    FORMATS,
    TRACK_FORMATS,
    TrackRefusal,
    projected_grid,
    track_contents,
    track_refusal,
)
from search.export.formats import Document, csv_row, to_csv
from search.export.infos import FrameInfo, frame_infos
from search.export.kml import flight_kml
from search.export.records import SCHEMAS, CoarseLocalizationInfo, FrameFailure, Heading, json_schema
from search.export.tracks import FlightTrack, finished_tracks
from web.fix_texts import answer_state, method_text
from web.gallery_rows import picked_rows
from web.language import _, translate
from web.models import AnswerModel, file_below
from web.pages import address, page
from web.pages.images import frame_url
from web.problems import Problem
from web.selection import (
    NamedFlight,
    RunParameters,
    RunSelection,
    RunView,
    answering_runs,
    chosen_method,
    run_facts,
    selected_runs,
    stored_flight,
)
from web.state import current_state

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid

routes = Blueprint("export", __name__)

REPORT_ROWS = 200
MOST_NAMED = 5000  # frames in one statement

TRACK_MEDIA = {
    ".geojson": "application/geo+json",
    ".kml": "application/vnd.google-earth.kml+xml",
    ".gpx": "application/gpx+xml",
    ".nmea": "text/plain",
    ".mcap": "application/octet-stream",
    ".zip": "application/zip",
}


class TrackFile(AnswerModel):
    """A format of a flight's stored tracks: where it is, or why it is not."""

    format: str
    file: str | None = Field(description="its address; null where it is refused")
    refusal: TrackRefusal | None
    text: str | None = Field(description="the refusal in words, and what to do")


class ExportPage(AnswerModel):
    """The formats of a flight's searches and tracks, each with its address, and the first frame's record."""

    flight: NamedFlight
    reference_sets: list[str]
    reference_set: str | None
    asked: list[RunParameters]
    asked_key: str | None
    methods: list[str]
    method: str
    models: list[RunView]
    records: int = Field(ge=0)
    files: dict[str, str]
    tracks: list[TrackFile]
    schemas: dict[str, str]
    preview: dict[str, Any] | None = Field(description="a CoarseLocalizationInfo")


@page(routes, "/flights/<flight_id>/export", "export", twin="/flights/<flight_id>/export-page.json")
def export_page(flight_id: str) -> ExportPage:
    """The formats, each with its address, and the record of the first frame as it will be."""
    stored, selection = _selection(flight_id)
    frames = stored.flight.frames
    infos = _infos(stored, selection, frames[0].index if frames else None) if selection.runs else iter(())
    preview = next((info.info for info in infos if info.info), None)
    query = {
        "set": selection.reference_set,
        "asked": selection.parameters_key,
        "method": request.args.get("method"),
    }
    return ExportPage(
        flight=NamedFlight(id=flight_id, frames=len(frames)),
        **selection.choices(),
        models=[RunView(**run_facts(key, run)) for key, run in selection.runs.items()],
        records=len(selection.runs) * len(frames),
        files={
            suffix: address("export.whole", {"flight_id": flight_id, "suffix": suffix}, query) for suffix in FORMATS
        },
        tracks=_track_files(flight_id, request.args.get("method")),
        schemas={name: url_for("export.schema", name=name) for name in SCHEMAS},
        preview=preview.to_json() if preview else None,
    )


@routes.get("/flights/<flight_id>/<int:frame>/info/<int:run>.json")
def record(flight_id: str, frame: int, run: int) -> Response:
    """One CoarseLocalizationInfo, named as `coarseloc export` names it."""
    stored, selection = _selection(flight_id, run)
    for info in _infos(stored, selection, frame):
        if info.run.id == run:
            if info.info is None:
                raise Problem(404, info.error or "")
            response = jsonify(info.info.to_json())
            backbone = ids.slug(info.run.spec.backbone)
            return _attachment(response, f"{flight_id}_{frame:05d}_{backbone}.json")
    raise Problem(404, _("This flight has no frame {index} in run {run}.", index=frame, run=run))


@routes.get("/flights/<flight_id>/export.<suffix>")
def whole(flight_id: str, suffix: str) -> Response:
    """The searches that the address names, as one file, written while it is sent."""
    writer = _writer(suffix)
    grid = projected_grid(request.args.get("crs"))
    stored, selection = _selection(flight_id)
    if not selection.runs:
        raise Problem(404, _("No search of this flight has come to its end."))
    infos = _infos(stored, selection, grid=grid)
    if grid is not None:  # a grid that does not serve here is refused before anything is sent
        infos = chain(list(islice(infos, 1)), infos)
    response = Response(stream_with_context(writer.write(stored, infos, grid)), content_type=writer.content_type)
    response.headers["Cache-Control"] = "no-cache"
    return _attachment(response, f"{flight_id}.{suffix}")


@routes.get("/flights/<flight_id>/tracks.<suffix>")
def tracks(flight_id: str, suffix: str) -> Response:
    """The flight's stored tracks as `coarseloc export --format` writes them; several files in one archive."""
    if suffix not in TRACK_FORMATS:
        known = ", ".join(TRACK_FORMATS)
        raise Problem(404, _("Format {name} is not known: ask for {known}.", name=suffix, known=known))
    stored_flight(current_state().database, flight_id)
    stored_tracks = _tracks(flight_id)
    if refusal := track_refusal(stored_tracks, suffix):
        raise Problem(404 if refusal == "no-track" else 400, _refusal_text(refusal))
    contents = track_contents(stored_tracks, [suffix], None)
    if len(contents) == 1:
        ((name, content),) = contents.items()
    else:
        name, content = f"{ids.file_name(flight_id)}_{suffix}.zip", _archive(contents)
    response = Response(content, content_type=TRACK_MEDIA[name[name.rindex(".") :]])
    response.headers["Cache-Control"] = "no-cache"
    return _attachment(response, name)


def _tracks(flight_id: str) -> list[FlightTrack]:
    """Those that the chosen method names, by default the smoothed ones; none where none is stored."""
    return finished_tracks(current_state().database, flight_id, method=chosen_method())


def _track_files(flight_id: str, method: str | None) -> list[TrackFile]:
    stored_tracks = _tracks(flight_id)
    rows = []
    for name in TRACK_FORMATS:
        refusal = track_refusal(stored_tracks, name)
        url = address("export.tracks", {"flight_id": flight_id, "suffix": name}, {"method": method})
        text = _refusal_text(refusal) if refusal else None
        rows.append(TrackFile(format=name, file=None if refusal else url, refusal=refusal, text=text))
    return rows


def _refusal_text(refusal: TrackRefusal) -> str:
    texts = {
        "no-track": _("This flight has no finished track of this kind: run coarseloc track to its end first."),
        "no-time": _("This format needs times, and nothing says when every frame was taken."),
        "no-utc": _(
            "This format needs UTC, and how far the frames' times are from it is not known: "
            "export by coarseloc export with --utc-offset."
        ),
        "no-extra": _("The server lacks the extra mcap: install coarseloc[mcap] on it."),
    }
    return texts[refusal]


def _archive(contents: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for name, content in contents.items():
            files.writestr(name, content)
    return archive.getvalue()


@routes.get("/schemas/<name>")
def schema(name: str) -> Response:
    if name not in SCHEMAS:
        raise Problem(404, _("There is no schema of this name."))
    return Response(json_schema(SCHEMAS[name]), content_type="application/schema+json")


def _selection(flight_id: str, run_id: int | None = None) -> tuple[StoredFlight, RunSelection]:
    database = current_state().database
    return stored_flight(database, flight_id), selected_runs(database, flight_id, run_id)


def _infos(
    stored: StoredFlight, selection: RunSelection, frame: int | None = None, grid: ProjectedGrid | None = None
) -> Iterator[FrameInfo]:
    """Every frame's, or the one frame's, run by run."""
    state = current_state()
    runs, frames = answering_runs(state.database, selection), None if frame is None else [frame]
    infos = frame_infos(
        state.database, state.settings.thumbnails, stored.flight, runs, frames, method=chosen_method(), grid=grid
    )
    return map(_without_folders, infos)


def _without_folders(frame_info: FrameInfo) -> FrameInfo:
    """The record as it leaves this server: its files by their names below their folders'."""
    info = frame_info.info
    return frame_info if info is None else replace(frame_info, info=_file_names_only(info))


def _file_names_only(info: CoarseLocalizationInfo) -> CoarseLocalizationInfo:
    return info.model_copy(
        update={
            "query": info.query.model_copy(update={"path": file_below(info.query.path)}),
            "results": [hit.model_copy(update={"path": file_below(hit.path)}) for hit in info.results],
        }
    )


def _attachment(response: Response, filename: str) -> Response:
    """Name the file that a browser saves, in characters beyond Latin-1 too (RFC 6266)."""
    name = ids.file_name(filename)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    names = {"filename": plain} if plain == name else {"filename": plain, "filename*": f"UTF-8''{quote(name, safe='')}"}
    response.headers.set("Content-Disposition", "attachment", **names)
    return response


# --- rows of the gallery ------------------------------------------------------------------------


@routes.get("/gallery/export.<suffix>")
def gallery_rows(suffix: str) -> Response:
    """The gallery's rows that are picked, else all that the address asks for: a file, or an archive of one for each
    flight and method."""
    writer = _writer(suffix)
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
        response = Response(_archive(contents), content_type="application/zip")
    response.headers["Cache-Control"] = "no-cache"
    return _attachment(response, name)


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
    return _attachment(response, "gallery-report.html")


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
        yield from (_without_folders(info) for info in infos if info.result.frame.index in frames)


# --- the formats --------------------------------------------------------------------------------


def _document(stored: StoredFlight, infos: Iterator[FrameInfo], grid: ProjectedGrid | None) -> Iterator[str]:
    document = Document(stored.flight)
    yield document.head()
    yield from map(document.add, infos)
    yield document.tail()


def _geojson(stored: StoredFlight, infos: Iterator[FrameInfo], grid: ProjectedGrid | None) -> Iterator[str]:
    yield json.dumps(_features(stored, infos, grid).to_geojson(), ensure_ascii=False, allow_nan=False)


def _kml(stored: StoredFlight, infos: Iterator[FrameInfo], grid: ProjectedGrid | None) -> Iterator[str]:
    """Pictures come from this server, for as long as it runs: its files are not where the KML will be."""
    server = request.host_url
    features = _features(stored, infos, grid)
    yield flight_kml(features, lambda frame: urljoin(server, frame_url(stored.flight.flight_id, frame, "full")))


def _features(stored: StoredFlight, infos: Iterator[FrameInfo], grid: ProjectedGrid | None) -> FlightFeatures:
    features = FlightFeatures(stored.flight, grid)
    for info in infos:
        features.add(info)
    return features


def _csv(stored: StoredFlight, infos: Iterator[FrameInfo], grid: ProjectedGrid | None) -> Iterator[str]:
    yield to_csv([csv_row(stored.flight, info, grid) for info in infos])


class FileWriter(NamedTuple):
    """How a format's file is written, in parts."""

    write: Callable[[StoredFlight, Iterator[FrameInfo], ProjectedGrid | None], Iterator[str]]
    content_type: str


_WRITERS = {
    "json": FileWriter(_document, "application/json"),
    "geojson": FileWriter(_geojson, "application/geo+json"),
    "kml": FileWriter(_kml, "application/vnd.google-earth.kml+xml"),
    "csv": FileWriter(_csv, "text/csv; charset=utf-8"),
}


def _writer(suffix: str) -> FileWriter:
    if suffix not in _WRITERS:
        raise Problem(404, _("Format {name} is not known: ask for {known}.", name=suffix, known=", ".join(FORMATS)))
    return _WRITERS[suffix]


# --- what the GeoJSON holds (RFC 7946) ------------------------------------------------------------


class GeoJsonPoint(AnswerModel):
    type: Literal["Point"]
    coordinates: tuple[float, float]


class GridProperties(AnswerModel):
    """The point in the projected CRS that was asked for; without one these keys are not there."""

    crs: str | None = None
    x: float | None = None
    y: float | None = None


class FrameProperties(GridProperties):
    flight_id: str
    frame_index: int
    filename: str
    taken_at: str | None


class TruthProperties(FrameProperties):
    kind: Literal["truth"]
    heading_deg: float | None


class AnswerProperties(FrameProperties):
    encoder: str
    reference_set: str
    angle_deg: int | None


class EstimateProperties(AnswerProperties):
    kind: Literal["estimate"]
    place_id: str | None = Field(description="of the best tile; null where it is no tile's")
    heading_deg: float | None = Heading
    score: float
    margin: float | None
    agreement: int
    error_m: float | None
    heading_error_deg: float | None
    method: str
    fix_match: bool | None = Field(description="false: no match; null: not looked for")
    fix_reason: str | None


class FixProperties(AnswerProperties):
    kind: Literal["fix"]
    point: Literal["ground", "aircraft"]
    heading_deg: float = Heading
    heading_sd_deg: float
    score: float
    margin: float
    probability: float
    attitude: str
    ellipse_major_m: float = Field(description="semi-axes of the ellipse that holds the point with 95 %")
    ellipse_minor_m: float
    ellipse_azimuth_deg: float
    error_m: float | None


class GeoJsonFeature(AnswerModel):
    type: Literal["Feature"]
    geometry: GeoJsonPoint
    properties: TruthProperties | EstimateProperties | FixProperties


class GeoJsonFeatures(AnswerModel):
    type: Literal["FeatureCollection"]
    features: list[GeoJsonFeature]
    failures: list[FrameFailure] = Field(description="frames without a record, and why")
