"""The files that pages offer: their formats, what the GeoJSON holds, their names and archives."""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote, urljoin

from flask import Response, request
from pydantic import Field

from coarseloc.core import ids
from coarseloc.store.flights import StoredFlight
from search.export.features import FlightFeatures
from search.export.files import FORMATS
from search.export.formats import Document, csv_row, to_csv
from search.export.infos import FrameInfo
from search.export.kml import flight_kml
from search.export.records import CoarseLocalizationInfo, FrameFailure, Heading
from web.language import _
from web.models import AnswerModel, file_below
from web.pages.images import frame_url
from web.problems import Problem

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid


def attachment(response: Response, filename: str) -> Response:
    """Name the file that a browser saves, in characters beyond Latin-1 too (RFC 6266)."""
    name = ids.file_name(filename)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    names = {"filename": plain} if plain == name else {"filename": plain, "filename*": f"UTF-8''{quote(name, safe='')}"}
    response.headers.set("Content-Disposition", "attachment", **names)
    return response


def archive(contents: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for name, content in contents.items():
            files.writestr(name, content)
    return archive.getvalue()


def without_folders(frame_info: FrameInfo) -> FrameInfo:
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


def file_writer(suffix: str) -> FileWriter:
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
    tags: str | None = Field(default=None, description="with spaces between them")
    note: str | None = None


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
