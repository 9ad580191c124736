"""A whole flight for other programs: its records as one document, or as a table (CSV). Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coarseloc.core import ids
from coarseloc.core.types import Flight
from search.answers import fix_errors
from search.export.features import marks_properties
from search.export.fix_infos import fix_info
from search.export.infos import FrameInfo, frame_facts, frame_failure
from search.export.records import SCHEMA_VERSION, EllipseInfo, FixPointInfo, FlightLocalizations

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid


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
            self._failures.append(frame_failure(frame_info).model_dump(mode="json"))
            return ""
        text = self._separator + _json(frame_info.info.to_json())
        self._separator = ",\n"
        return text

    def tail(self) -> str:
        """The text after the last record."""
        return f'],\n"failures": {_json(self._failures)}}}\n'


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# --- CSV ----------------------------------------------------------------------------------------


def csv_row(flight: Flight, frame_info: FrameInfo, grid: ProjectedGrid | None = None) -> dict[str, Any]:
    """One frame of one run; unknown values are None, which is an empty cell. With x and y where a grid is asked for."""
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
        )
    )
    if info is not None:
        values = info.estimate.location.model_dump()
        values |= info.estimate.model_dump(include={"heading_deg", "place_id", "score", "margin"})
        values |= {"agreement": info.estimate.agreement.backbones, "agreement_of": info.estimate.agreement.of}
        values |= info.errors.model_dump() if info.errors else {}
        values |= {f"{name}_ms": value for name, value in info.timing_ms.model_dump().items()}
        estimate |= {name: values[name] for name in estimate if name in values}
    row |= estimate | {"error": frame_info.error} | _fix_columns(frame_info)
    facts = frame_facts(flight, frame)
    del facts["yaw_deg"]  # is the true heading
    row |= facts | marks_properties(frame_info.marks)
    return row if grid is None else row | _grid_columns(row, grid)


def _fix_columns(frame_info: FrameInfo) -> dict[str, Any]:
    """A frame's fix; without a match, or of a frame that could not be searched, it has no position."""
    result = frame_info.result
    fix = fix_info(result.fix)
    errors = fix_errors(result.fix.pose if result.fix else None, result.frame.truth)
    columns = {
        "fix_match": fix.match,
        "fix_reason": fix.reason if result.fix or frame_info.info else None,
        **_fix_point("fix", fix.ground),
        **_fix_point("fix_aircraft", fix.aircraft),
    }
    names = ("heading_deg", "heading_sd_deg", "tilt_deg", "scale", "score", "margin", "probability", "attitude")
    return columns | {
        **{f"fix_{name}": getattr(fix, name) for name in names},
        "fix_ground_m": errors and errors.ground_m,
        "fix_aircraft_m": errors and errors.aircraft_m,
        "fix_heading_error_deg": errors and errors.heading_deg,
        "verify_ms": fix.conditions and fix.conditions.verify_ms,
    }


def _fix_point(name: str, point: FixPointInfo | None) -> dict[str, Any]:
    ellipse = point.ellipse_95.model_dump() if point else {}
    return {
        f"{name}_lon": point and point.lon,
        f"{name}_lat": point and point.lat,
        **{f"{name}_ellipse_{axis}": ellipse.get(axis) for axis in EllipseInfo.model_fields},
    }


def _grid_columns(row: dict[str, Any], grid: ProjectedGrid) -> dict[str, Any]:
    """x and y beside each longitude and latitude."""
    columns: dict[str, Any] = {"crs": grid.crs}
    for prefix in ("", "truth_", "fix_", "fix_aircraft_"):
        lon, lat = row[f"{prefix}lon"], row[f"{prefix}lat"]
        position = None if lon is None else grid.position(lon, lat)
        columns |= {f"{prefix}x": position and position.x, f"{prefix}y": position and position.y}
    return columns


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: ids.spreadsheet_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()
