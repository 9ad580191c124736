"""Export a flight's searches (CoarseLocalizationInfo, GeoJSON, KML, CSV) and its stored tracks for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request, stream_with_context, url_for
from pydantic import Field

from coarseloc.core import ids
from coarseloc.store.flights import StoredFlight
from search.export.files import (
    FORMATS,
    TRACK_FORMATS,
    TrackRefusal,
    projected_grid,
    track_contents,
    track_refusal,
)
from search.export.infos import FrameInfo, frame_infos
from search.export.records import SCHEMAS, json_schema
from search.export.tracks import FlightTrack, finished_tracks
from web.language import _
from web.models import AnswerModel
from web.pages import address, page
from web.pages.export_files import archive, attachment, file_writer, without_folders
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
            return attachment(response, f"{flight_id}_{frame:05d}_{backbone}.json")
    raise Problem(404, _("This flight has no frame {index} in run {run}.", index=frame, run=run))


@routes.get("/flights/<flight_id>/export.<suffix>")
def whole(flight_id: str, suffix: str) -> Response:
    """The searches that the address names, as one file, written while it is sent."""
    writer = file_writer(suffix)
    grid = projected_grid(request.args.get("crs"))
    stored, selection = _selection(flight_id)
    if not selection.runs:
        raise Problem(404, _("No search of this flight has come to its end."))
    infos = _infos(stored, selection, grid=grid)
    if grid is not None:  # a grid that does not serve here is refused before anything is sent
        infos = chain(list(islice(infos, 1)), infos)
    response = Response(stream_with_context(writer.write(stored, infos, grid)), content_type=writer.content_type)
    response.headers["Cache-Control"] = "no-cache"
    return attachment(response, f"{flight_id}.{suffix}")


@routes.get("/flights/<flight_id>/tracks.<suffix>")
def tracks(flight_id: str, suffix: str) -> Response:
    """The flight's stored tracks as `coarseloc export --format` writes them; several files in one archive."""
    if suffix not in TRACK_FORMATS:
        formats = ", ".join(TRACK_FORMATS)
        raise Problem(404, _("Format {name} is not known: ask for {known}.", name=suffix, known=formats))
    stored_flight(current_state().database, flight_id)
    stored_tracks = _tracks(flight_id)
    if refusal := track_refusal(stored_tracks, suffix):
        raise Problem(404 if refusal == "no-track" else 400, _refusal_text(refusal))
    contents = track_contents(stored_tracks, [suffix], None)
    if len(contents) == 1:
        ((name, content),) = contents.items()
    else:
        name, content = f"{ids.file_name(flight_id)}_{suffix}.zip", archive(contents)
    response = Response(content, content_type=TRACK_MEDIA[name[name.rindex(".") :]])
    response.headers["Cache-Control"] = "no-cache"
    return attachment(response, name)


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
    return map(without_folders, infos)
