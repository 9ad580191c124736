"""A flight's track as GeoJSON features (RFC 7946): lines, points and ellipses, a file each. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coarseloc.core.fixes import ellipse
from search.answers import track_errors
from search.export import geometries
from search.export.features import Feature, feature_of, frame_properties
from search.export.track_infos import track_info
from search.export.tracks import FlightTrack, TrackFrame

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid


def lines(track: FlightTrack) -> Iterator[Feature]:
    """A line for each unbroken run of at least two frames with a position; nothing joins one to the next."""
    for number, segment in enumerate(track.segments(), start=1):
        locations = [tracked.position for tracked in segment if tracked.position is not None]
        if len(locations) < 2:
            continue
        first, last = segment[0].frame, segment[-1].frame
        properties = {
            "kind": "track",
            "flight_id": track.flight.flight_id,
            **_source(track),
            "segment": number,
            "point": segment[0].point,
            "frames": len(segment),
            "first_frame": first.index,
            "last_frame": last.index,
            "first_taken_at": first.time and first.time.isoformat(),
            "last_taken_at": last.time and last.time.isoformat(),
        }
        yield feature_of(geometries.line(*locations), properties)


def points(track: FlightTrack, grid: ProjectedGrid | None = None) -> Iterator[Feature]:
    """Every frame with its state; one without a position has no geometry. x and y with a grid."""
    for tracked in track.frames:
        location, covariance = tracked.position, tracked.covariance_m2
        info = track_info(tracked.estimate).model_dump(
            exclude={"location", "alternatives", "mode", "evidence", "options"}
        )
        properties: dict[str, Any] = {"kind": "track", **_frame(track, tracked), **info}
        if location is None or covariance is None:
            yield feature_of(None, properties)
            continue
        axes = {f"ellipse_{axis}": value for axis, value in asdict(ellipse(covariance)).items()}
        in_grid = grid.position(*location).model_dump() if grid else {}
        yield feature_of(geometries.point(location), properties | axes | {"error_m": _error_m(tracked)} | in_grid)


def ellipses(track: FlightTrack) -> Iterator[Feature]:
    """The ellipse around each position, that holds it with 95 %."""
    for tracked in track.frames:
        location, covariance = tracked.position, tracked.covariance_m2
        if location is None or covariance is None:
            continue
        axes = ellipse(covariance)
        properties = {
            "kind": "ellipse",
            "point": tracked.point,
            **_frame(track, tracked),
            "state": tracked.estimate.state,
            **asdict(axes),
            "error_m": _error_m(tracked),
        }
        yield feature_of(geometries.polygon(geometries.ellipse_ring(location, axes)), properties)


def _frame(track: FlightTrack, tracked: TrackFrame) -> dict[str, Any]:
    return frame_properties(track.flight, tracked.frame) | _source(track)


def _source(track: FlightTrack) -> dict[str, Any]:
    stored = track.stored
    return {
        "mode": stored.track_mode,
        "reference_set": stored.reference_set,
        "evidence": stored.evidence,
        "options": " ".join(stored.track_options),
    }


def _error_m(tracked: TrackFrame) -> float | None:
    errors = track_errors(tracked.estimate, tracked.frame.truth)
    return errors.location_m if errors else None
