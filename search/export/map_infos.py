"""From a frame looked for on a whole map to the record that other programs read."""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import Any

from coarseloc.core import geo
from coarseloc.core.camera import Camera
from coarseloc.core.fixes import NoMatch, Pose2D, ellipse
from coarseloc.core.types import Covariance, Flight, Frame, LonLat
from coarseloc.localize.registration.fix import FITTED, METHOD
from search.export.infos import truth_info
from search.export.records import (
    EllipseInfo,
    FixErrorsInfo,
    FixInfo,
    FixPointInfo,
    MapEstimateInfo,
    MapInfo,
    MapLocalizationInfo,
    MapQueryInfo,
    MapTimingMs,
    TruthInfo,
)
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
        errors=_errors(fix, truth) if isinstance(fix, Pose2D) and truth is not None else None,
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


def fix_info(fix: Pose2D | NoMatch) -> FixInfo:
    """A fix as every program reads it. Of a frame without a match no position leaves this function."""
    if isinstance(fix, NoMatch):
        return FixInfo(
            match=False, reason=fix.reason, ground=None, aircraft=None, heading_deg=None, heading_sd_deg=None,
            tilt_deg=None, scale=None, probability=fix.probability, method=METHOD, attitude=None,
            fit_digest=FITTED.digest,
        )  # fmt: skip
    return FixInfo(
        match=True,
        reason=None,
        ground=_point(fix.ground, fix.ground_covariance_m2),
        aircraft=fix.aircraft and fix.aircraft_covariance_m2 and _point(fix.aircraft, fix.aircraft_covariance_m2),
        heading_deg=fix.heading_deg % 360.0,
        heading_sd_deg=fix.heading_sd_deg,
        tilt_deg=fix.tilt_deg,
        scale=fix.scale,
        probability=fix.probability,
        method=fix.method,
        attitude=fix.attitude,
        fit_digest=fix.fit_digest,
    )


def _point(location: LonLat, covariance: Covariance) -> FixPointInfo:
    ellipse_95 = ellipse(covariance)
    return FixPointInfo(
        lon=location.lon,
        lat=location.lat,
        covariance_m2=(
            (covariance.east_east, covariance.east_north),
            (covariance.east_north, covariance.north_north),
        ),
        ellipse_95=EllipseInfo(**asdict(ellipse_95)),
    )


def _errors(fix: Pose2D, truth: TruthInfo) -> FixErrorsInfo:
    position = LonLat(truth.location.lon, truth.location.lat)
    turned = None
    if truth.heading_deg is not None:
        turned = geo.heading_difference(truth.heading_deg, fix.heading_deg)
    return FixErrorsInfo(
        fix_ground_m=float(geo.distance_m(*position, *fix.ground)),
        fix_aircraft_m=None if fix.aircraft is None else float(geo.distance_m(*position, *fix.aircraft)),
        heading_error_deg=turned,
    )
