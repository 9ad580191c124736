"""Truth, estimates and fixes of a flight as GeoJSON features (RFC 7946). Pure.

`points` are the features of `<flight>.geojson`; each layer of `LAYERS` has one kind of shape and is a file of its own,
since a GIS opens a file of one kind as one layer. Of a frame without a match nothing shows a fix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from coarseloc.core.fixes import Pose2D, ellipse
from coarseloc.core.marks import FrameMarks
from coarseloc.core.types import Covariance, Flight, Frame, LonLat
from search.answers import FixErrors, fix_errors
from search.export import geometries
from search.export.infos import FrameInfo, frame_failure
from search.export.records import CoarseLocalizationInfo, FrameFailure

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid

Feature = dict[str, Any]

LAYERS = ("ellipses", "errors", "footprints")


@dataclass(frozen=True, slots=True)
class MatchedFrame:
    """A frame with a fix, and what it was asked with."""

    frame: Frame
    facts: Mapping[str, Any]  # of the frame, see `frame_properties`
    question: Mapping[str, Any]
    pose: Pose2D
    errors: FixErrors | None  # None without truth

    @property
    def points(self) -> Iterator[tuple[str, LonLat, Covariance, float | None]]:
        """(name, position, covariance, metres from the truth) of what the fix places."""
        pose, errors = self.pose, self.errors
        yield "ground", pose.ground, pose.ground_covariance_m2, errors.ground_m if errors else None
        if pose.aircraft and pose.aircraft_covariance_m2:
            yield "aircraft", pose.aircraft, pose.aircraft_covariance_m2, errors.aircraft_m if errors else None


class FlightFeatures:
    """Collects frames; gives the features of each layer. What a frame's fix looks like is drawn when it is asked for:
    a whole flight's polygons are a hundred megabytes."""

    def __init__(self, flight: Flight, grid: ProjectedGrid | None = None) -> None:
        self.flight = flight
        self.truths: dict[int, Feature] = {}
        self.estimates: list[Feature] = []
        self.matched: list[MatchedFrame] = []
        self.failures: list[FrameFailure] = []
        self.verified = False  # some frame was looked for in metres
        self._grid = grid

    def add(self, frame_info: FrameInfo) -> None:
        frame, fix, info = frame_info.result.frame, frame_info.result.fix, frame_info.info
        facts = frame_properties(self.flight, frame) | marks_properties(frame_info.marks)
        if frame.truth.location is not None and frame.index not in self.truths:
            properties = {"kind": "truth", **facts, "heading_deg": frame.truth.yaw_deg}
            self.truths[frame.index] = self._point(frame.truth.location, properties)
        if info is None:
            self.failures.append(frame_failure(frame_info))
        else:
            location = LonLat(info.estimate.location.lon, info.estimate.location.lat)
            self.estimates.append(self._point(location, facts | _estimate(info)))
        self.verified |= fix is not None and fix.match is not None
        if fix and fix.pose:
            question = {
                "encoder": frame_info.run.spec.backbone,
                "reference_set": frame_info.run.reference_set.name,
                "angle_deg": frame_info.run.parameters["angle_deg"],
            }
            self.matched.append(MatchedFrame(frame, facts, question, fix.pose, fix_errors(fix.pose, frame.truth)))

    def points(self) -> list[Feature]:
        """Truth once a frame, an estimate of every run, and the points of its fixes."""
        fixes = [feature for matched in self.matched for feature in self.fix_points(matched)]
        return [*self.truths.values(), *self.estimates, *fixes]

    def layer(self, name: str) -> Iterator[Feature]:
        """The features of one of `LAYERS`."""
        draw = {"ellipses": self.ellipses, "errors": self.error_lines, "footprints": self.footprints}[name]
        for matched in self.matched:
            yield from draw(matched)

    def fix_points(self, matched: MatchedFrame) -> Iterator[Feature]:
        """What a fix places: the ground under the frame's middle, and the aircraft where it is known."""
        for name, location, covariance, error_m in matched.points:
            axes = {f"ellipse_{axis}": value for axis, value in asdict(ellipse(covariance)).items()}
            yield self._point(location, self._fix("fix", matched, name) | axes | {"error_m": error_m})

    def ellipses(self, matched: MatchedFrame) -> Iterator[Feature]:
        """The ellipse of each point, that holds it with 95 %."""
        for name, location, covariance, error_m in matched.points:
            axes = ellipse(covariance)
            properties = self._fix("ellipse", matched, name) | asdict(axes) | {"error_m": error_m}
            yield feature_of(geometries.polygon(geometries.ellipse_ring(location, axes)), properties)

    def error_lines(self, matched: MatchedFrame) -> Iterator[Feature]:
        """The line from the truth to each point."""
        truth = matched.frame.truth.location
        for name, location, _, error_m in matched.points:
            if truth is not None:
                properties = self._fix("error", matched, name) | {"error_m": error_m}
                yield feature_of(geometries.line(truth, location), properties)

    def footprints(self, matched: MatchedFrame) -> Iterator[Feature]:
        """The frame's outline as it lies on the ground, turned and tilted."""
        ring = matched.pose.corners[::-1]  # the picture's corners run clockwise, a polygon's counter-clockwise
        yield feature_of(geometries.polygon(ring), self._fix("footprint", matched, None))

    def to_geojson(self) -> Feature:
        """A FeatureCollection of the points, and beside them the frames that have no place."""
        failures = [failure.model_dump(mode="json") for failure in self.failures]
        return {"type": "FeatureCollection", "features": self.points(), "failures": failures}

    def _fix(self, kind: str, matched: MatchedFrame, point: str | None) -> dict[str, Any]:
        pose = matched.pose
        return {
            "kind": kind,
            **({"point": point} if point else {}),
            **matched.facts,
            **matched.question,
            "heading_deg": pose.heading_deg % 360.0,
            "heading_sd_deg": pose.heading_sd_deg,
            "score": pose.score,
            "margin": pose.margin,
            "probability": pose.probability,
            "attitude": pose.attitude,
        }

    def _point(self, location: LonLat, properties: dict[str, Any]) -> Feature:
        in_grid = self._grid.position(*location).model_dump() if self._grid else {}
        return feature_of(geometries.point(location), properties | in_grid)


def frame_properties(flight: Flight, frame: Frame) -> dict[str, Any]:
    """What every feature of a frame says of it."""
    return {
        "flight_id": flight.flight_id,
        "frame_index": frame.index,
        "filename": frame.filename,
        "taken_at": frame.time and frame.time.isoformat(),
    }


def marks_properties(marks: FrameMarks) -> dict[str, Any]:
    """What people wrote on a frame; tags with spaces between them, since a GIS filters texts and no lists."""
    return {"tags": " ".join(marks.tags) or None, "note": marks.note or None}


def layer_text(features: Iterable[Feature]) -> str:
    """A FeatureCollection with a feature a line."""
    lines = ",\n".join(json.dumps(feature, ensure_ascii=False, allow_nan=False) for feature in features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'


def feature_of(geometry: dict[str, Any] | None, properties: dict[str, Any]) -> Feature:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


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
        "method": info.estimate.method,
        "fix_match": info.estimate.fix.match,
        "fix_reason": info.estimate.fix.reason,
    }
