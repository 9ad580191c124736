"""A whole flight for other programs: its records as one document; estimates and truth as GeoJSON, KML and CSV. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from coarseloc.core.types import Flight
from coarseloc.store.runs import FrameResult
from search.export.infos import FrameInfo
from search.export.records import SCHEMA_VERSION, CoarseLocalizationInfo, FlightLocalizations, FrameFailure

_DECIMALS = 7  # of a degree, about a centimetre: RFC 7946 advises against more digits than the precision


class Document:
    """A `FlightLocalizations` as text, piece by piece: a whole flight's would be tens of megabytes at once."""

    def __init__(self, flight: Flight) -> None:
        self._empty = FlightLocalizations(
            schema_version=SCHEMA_VERSION,
            flight_id=flight.flight_id,
            started_at=flight.started_at,
            truth_source=flight.truth_source,
            frames=len(flight.frames),
            localizations=[],
            failures=[],
        )
        self._failures: list[dict[str, Any]] = []
        self._separator = "\n"

    def head(self) -> str:
        """The text before the first record."""
        facts = self._empty.model_dump(mode="json", exclude={"localizations", "failures"})
        return _json(facts)[:-1] + ', "localizations": ['

    def add(self, frame_info: FrameInfo) -> str:
        """The text of a record; empty for a frame that could not be searched, which is listed at the end."""
        if frame_info.info is None:
            self._failures.append(_failure(frame_info).model_dump(mode="json"))
            return ""
        text = self._separator + _json(frame_info.info.to_json())
        self._separator = ",\n"
        return text

    def tail(self) -> str:
        """The text after the last record."""
        return f'],\n"failures": {_json(self._failures)}}}\n'


def _failure(frame_info: FrameInfo) -> FrameFailure:
    return FrameFailure(
        frame_index=frame_info.result.frame.index,
        filename=frame_info.result.frame.filename,
        encoder=frame_info.run.spec.backbone,
        reference_set=frame_info.run.reference_set.name,
        angle_deg=frame_info.run.parameters["angle_deg"],
        error=frame_info.error or "",
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class FlightFeatures:
    """A point for each estimate, and one for each frame's truth. Only points: none needs cutting at the
    antimeridian (RFC 7946, 3.1.9)."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._truths: dict[int, dict[str, Any]] = {}
        self._estimates: list[dict[str, Any]] = []

    def add(self, frame_info: FrameInfo) -> None:
        frame = frame_info.result.frame
        if frame.truth.location is not None:
            properties = {"kind": "truth", **self._frame(frame_info.result), "heading_deg": frame.truth.yaw_deg}
            self._truths.setdefault(frame.index, _point(*frame.truth.location, properties))
        if frame_info.info is not None:
            self._estimates.append(
                _point(*_location(frame_info.info), self._frame(frame_info.result) | _estimate(frame_info.info))
            )

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection (RFC 7946)."""
        return {"type": "FeatureCollection", "features": [*self._truths.values(), *self._estimates]}

    def to_kml(self) -> str:
        """KML 2.2: a folder for the truth and one for each backbone, a placemark for each frame."""
        folders: dict[str, list[str]] = {}
        for feature in (*self._truths.values(), *self._estimates):
            properties = feature["properties"]
            folders.setdefault(properties.get("encoder", properties["kind"]), []).append(_placemark(feature))
        kml_folders = "".join(
            f"<Folder><name>{_text(name)}</name>\n{''.join(marks)}</Folder>\n" for name, marks in folders.items()
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
            f"<name>{_text(self._flight.flight_id)}</name>\n{kml_folders}</Document></kml>\n"
        )

    def _frame(self, result: FrameResult) -> dict[str, Any]:
        return {
            "flight_id": self._flight.flight_id,
            "frame_index": result.frame.index,
            "filename": result.frame.filename,
        }


def _location(info: CoarseLocalizationInfo) -> tuple[float, float]:
    return info.estimate.location.lon, info.estimate.location.lat


def _estimate(info: CoarseLocalizationInfo) -> dict[str, Any]:
    return {
        "kind": "estimate",
        "encoder": info.encoder,
        "reference_set": info.reference_set.name,
        "angle_deg": info.query.angle_deg,
        "place_id": info.estimate.place_id,
        "heading_deg": info.estimate.heading_deg,
        "score": info.estimate.score,
        "margin": info.estimate.margin,
        "agreement": info.estimate.agreement.backbones,
        "error_m": info.errors and info.errors.error_m,
        "heading_error_deg": info.errors and info.errors.heading_error_deg,
    }


def _point(lon: float, lat: float, properties: dict[str, Any]) -> dict[str, Any]:
    coordinates = [round(lon, _DECIMALS), round(lat, _DECIMALS)]
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": coordinates}, "properties": properties}


# --- KML ----------------------------------------------------------------------------------------

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _placemark(feature: dict[str, Any]) -> str:
    lon, lat = feature["geometry"]["coordinates"]
    properties = feature["properties"]
    data = "".join(
        f'<Data name="{name}"><value>{_text(value)}</value></Data>'
        for name, value in properties.items()
        if value is not None
    )
    return (
        f"<Placemark><name>{properties['frame_index']}</name><ExtendedData>{data}</ExtendedData>"
        f"<Point><coordinates>{lon},{lat}</coordinates></Point></Placemark>\n"
    )


def _text(value: object) -> str:
    """Escape a value; characters that XML cannot hold, as a file's name can, become the replacement character."""
    return escape(_NOT_XML.sub("\ufffd", str(value)))


# --- CSV ----------------------------------------------------------------------------------------


def csv_row(flight: Flight, frame_info: FrameInfo) -> dict[str, Any]:
    """One frame of one run; unknown values are None, which is an empty cell."""
    run, frame, info = frame_info.run, frame_info.result.frame, frame_info.info
    truth = frame.truth.location
    row: dict[str, Any] = {
        "flight_id": flight.flight_id,
        "frame_index": frame.index,
        "filename": frame.filename,
        "reference_set": run.reference_set.name,
        "encoder": run.spec.backbone,
        "input_px": run.spec.input_px,
        "precision": run.spec.precision,
        "angle_deg": run.parameters["angle_deg"],
        "backend": run.environment["backend"],
        "device": run.environment["device"],
        "truth_lon": truth and truth.lon,
        "truth_lat": truth and truth.lat,
        "truth_heading_deg": frame.truth.yaw_deg,
    }
    estimate = dict.fromkeys(
        (
            *("lon", "lat", "heading_deg", "place_id", "score", "margin", "agreement", "agreement_of"),
            *("error_m", "best_error_m", "heading_error_deg", "inside_footprint", "on_map"),
            *("decode_ms", "embed_ms", "search_ms", "total_ms"),
            *("fix_ground_m", "fix_aircraft_m", "verify_ms"),
        )
    )
    if info is not None:
        estimate |= info.estimate.location.model_dump()
        estimate |= info.estimate.model_dump(include={"heading_deg", "place_id", "score", "margin"})
        estimate |= {"agreement": info.estimate.agreement.backbones, "agreement_of": info.estimate.agreement.of}
        estimate |= info.errors.model_dump() if info.errors else {}
        estimate |= {f"{name}_ms": value for name, value in info.timing_ms.model_dump().items()}
    return row | estimate | {"error": frame_info.error}


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
