"""From a frame looked for on a whole map, or tracked, to the record that other programs read."""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import Any

from coarseloc.core import ids
from coarseloc.core.camera import Camera
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Flight, Frame
from coarseloc.localize.registration.fix import FITTED
from search.answers import fix_errors, track_errors
from search.export.fix_infos import fix_errors_info, fix_info
from search.export.infos import frame_facts, truth_info
from search.export.records import (
    FrameTrackInfo,
    MapEstimateInfo,
    MapInfo,
    MapLocalizationInfo,
    MapQueryInfo,
    MapTimingMs,
)
from search.export.track_infos import track_errors_info, track_info
from search.map_localization import MapLocalization, MapLocalizer


def map_localization_info(
    localization: MapLocalization, localizer: MapLocalizer, flight: Flight
) -> MapLocalizationInfo:
    """The record of one frame."""
    facts, camera = localizer.map, localizer.camera
    frame, fix = localization.frame, localization.fix
    truth = truth_info(frame.truth, flight.truth_source)
    return MapLocalizationInfo(
        schema_version="1.0",
        flight_id=flight.flight_id,
        frame_index=frame.index,
        query=MapQueryInfo(
            path=str(frame.path),
            filename=frame.filename,
            **frame_facts(flight, frame),
            footprint_m=localization.footprint_m,
            footprint_source=localization.footprint_source,
            **_camera_facts(camera),
        ),
        map=MapInfo(
            name=facts.name,
            gsd_m=facts.gsd_m,
            bbox=facts.bounds,
            registration_sd_m=facts.registration_sd_m,
            registration_sd_source=facts.registration_sd_source,
        ),
        timing_ms=MapTimingMs(
            decode=localization.decode_ms, verify=localization.register_ms, total=localization.register_ms
        ),
        estimate=None if fix is None else MapEstimateInfo(fix=fix_info(fix)),
        error=localization.error,
        truth=truth,
        errors=fix_errors_info(fix_errors(fix.pose if fix else None, frame.truth)),
    )


def frame_track_info(
    flight: Flight,
    frame: Frame,
    estimate: TrackEstimate,
    error: str | None,
    track_ms: float | None,
    larger_ms: float | None = None,
) -> FrameTrackInfo:
    """The record of a frame of a track."""
    return FrameTrackInfo(
        schema_version="1.0",
        flight_id=flight.flight_id,
        frame_index=frame.index,
        relative_path=frame.relative_path,
        taken_at=frame.time,
        track=track_info(estimate),
        error=error,
        truth=truth_info(frame.truth, flight.truth_source),
        errors=track_errors_info(track_errors(estimate, frame.truth)),
        track_ms=track_ms,
        larger_ms=larger_ms,
    )


def _camera_facts(camera: Camera) -> dict[str, Any]:
    """What a record says of the camera, but for the width of its frames."""
    return {
        "fov_deg": camera.fov_deg,
        "stabilised": bool(camera.stabilised),
        "distortion": camera.distortion and astuple(camera.distortion),
        "mount_yaw_deg": camera.mount_yaw_deg,
        "mount_pitch_deg": camera.mount_pitch_deg,
        "mount_roll_deg": camera.mount_roll_deg,
        "camera_digest": ids.digest(asdict(camera)),
    }


def answers_again(record: MapLocalizationInfo, localizer: MapLocalizer, frame: Frame) -> bool:
    """Whether the record of an earlier run says of this frame what a new run on this map would."""
    facts, camera_facts = localizer.map, _camera_facts(localizer.camera)
    query, estimate = record.query, record.estimate
    return (
        query.path == str(frame.path)
        and localizer.expects(frame, query.footprint_m)
        and query.model_dump(include=set(camera_facts)) == camera_facts
        and (record.map.name, record.map.bbox) == (facts.name, tuple(facts.bounds))
        and record.map.registration_sd_m == facts.registration_sd_m
        and (estimate is None or estimate.fix.fit_digest == FITTED.digest)
    )
