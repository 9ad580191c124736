"""What a flight's searches amount to, for other programs: CoarseLocalizationInfo, GeoJSON, KML and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Blueprint, Response, jsonify, url_for

from coarseloc.core import ids
from coarseloc.store.flights import StoredFlight
from coarseloc.store.runs import StoredRun
from search.export.files import FORMATS
from search.export.formats import Document, FlightFeatures, csv_row, to_csv
from search.export.infos import FrameInfo, frame_infos
from search.export.records import SCHEMAS, json_schema
from web.language import _
from web.pages import address, page
from web.problems import Problem
from web.selection import Shown, model, shown_searches, stored_flight, the_method
from web.state import the_gallery

routes = Blueprint("export", __name__)


@page(routes, "/flights/<flight_id>/export", "export", twin="/flights/<flight_id>/export-page.json")
def export_page(flight_id: str) -> dict[str, Any]:
    """The formats, each with its address, and the record of the first frame as it will be."""
    stored, shown = _asked(flight_id)
    first = stored.flight.frames[0].index if stored.flight.frames else None
    preview = next((one.info for one in _infos(stored, shown, first) if one.info), None) if shown.runs else None
    chosen = {"set": shown.reference_set, "asked": shown.asked_key}
    return {
        "flight": {"id": flight_id, "frames": len(stored.flight.frames)},
        **shown.as_json(),
        "models": [model(key, run) for key, run in shown.runs.items()],
        "records": len(shown.runs) * len(stored.flight.frames),
        "files": {
            suffix: address("export.whole", {"flight_id": flight_id, "suffix": suffix}, chosen) for suffix in FORMATS
        },
        "schemas": {name: url_for("export.schema", name=name) for name in SCHEMAS},
        "preview": preview.to_json() if preview else None,
    }


@routes.get("/flights/<flight_id>/<int:frame>/info/<int:run>.json")
def record(flight_id: str, frame: int, run: int) -> Response:
    """One CoarseLocalizationInfo, named as `coarseloc export` names it."""
    stored, shown = _asked(flight_id, run)
    for one in _infos(stored, shown, frame):
        if one.run.id == run:
            if one.info is None:
                raise Problem(404, one.error or "")
            response = jsonify(one.info.to_json())
            backbone = ids.slug(one.run.spec.backbone)
            return _attachment(response, f"{flight_id}_{frame:05d}_{backbone}.json")
    raise Problem(404, _("This flight has no frame {index} in run {run}.", index=frame, run=run))


@routes.get("/flights/<flight_id>/export.<suffix>")
def whole(flight_id: str, suffix: str) -> Response:
    """The searches that the address names, as one file, written while it is sent."""
    if suffix not in FORMATS:
        raise Problem(404, _("Format {name} is not known: ask for {known}.", name=suffix, known=", ".join(FORMATS)))
    stored, shown = _asked(flight_id)
    if not shown.runs:
        raise Problem(404, _("No search of this flight has come to its end."))
    infos = _infos(stored, shown)
    writers = {
        "json": (_document, "application/json"),
        "geojson": (_geojson, "application/geo+json"),
        "kml": (_kml, "application/vnd.google-earth.kml+xml"),
        "csv": (_csv, "text/csv; charset=utf-8"),
    }
    write, content_type = writers[suffix]
    response = Response(write(stored, infos), content_type=content_type)
    response.headers["Cache-Control"] = "no-cache"
    return _attachment(response, f"{flight_id}.{suffix}")


@routes.get("/schemas/<name>")
def schema(name: str) -> Response:
    if name not in SCHEMAS:
        raise Problem(404, _("There is no schema of this name."))
    return Response(json_schema(SCHEMAS[name]), content_type="application/schema+json")


def _asked(flight_id: str, run: int | None = None) -> tuple[StoredFlight, Shown]:
    database = the_gallery().database
    return stored_flight(database, flight_id), shown_searches(database, flight_id, run)


def _infos(stored: StoredFlight, shown: Shown, frame: int | None = None) -> Iterator[FrameInfo]:
    here = the_gallery()
    group: Sequence[StoredRun] = list(shown.runs.values())
    frames = None if frame is None else [frame]
    return frame_infos(here.database, here.settings.thumbnails, stored.flight, group, frames, method=the_method())


def _attachment(response: Response, filename: str) -> Response:
    response.headers.set("Content-Disposition", "attachment", filename=filename)
    return response


# --- the formats --------------------------------------------------------------------------------


def _document(stored: StoredFlight, infos: Iterator[FrameInfo]) -> Iterator[str]:
    document = Document(stored.flight)
    yield document.head()
    yield from map(document.add, infos)
    yield document.tail()


def _geojson(stored: StoredFlight, infos: Iterator[FrameInfo]) -> Iterator[str]:
    yield json.dumps(_features(stored, infos).to_geojson(), ensure_ascii=False, allow_nan=False)


def _kml(stored: StoredFlight, infos: Iterator[FrameInfo]) -> Iterator[str]:
    yield _features(stored, infos).to_kml()


def _features(stored: StoredFlight, infos: Iterator[FrameInfo]) -> FlightFeatures:
    features = FlightFeatures(stored.flight)
    for one in infos:
        features.add(one)
    return features


def _csv(stored: StoredFlight, infos: Iterator[FrameInfo]) -> Iterator[str]:
    yield to_csv([csv_row(stored.flight, one) for one in infos])
