"""A fix as every program reads it. Of a frame without a match no position leaves this module."""

from __future__ import annotations

from dataclasses import asdict

from coarseloc.core.fixes import METHOD, FrameFix, Pose2D, ellipse
from coarseloc.core.types import Covariance, LonLat
from search.answers import FixErrors
from search.export.records import (
    EllipseInfo,
    FixConditionsInfo,
    FixErrorsInfo,
    FixInfo,
    FixPointInfo,
    RunnerUpInfo,
)

NOT_VERIFIED = "the run was not verified"


def fix_info(fix: FrameFix | None) -> FixInfo:
    """The record of a fix; `match` is null where the frame was not looked for."""
    if fix is None:
        return _without_position(None, NOT_VERIFIED, None)
    conditions = None if fix.conditions is None else FixConditionsInfo(**asdict(fix.conditions))
    if not isinstance(pose := fix.answer, Pose2D):
        return _without_position(fix.match, pose.reason, conditions).model_copy(
            update={name: getattr(pose, name, None) for name in ("score", "margin", "probability", "fit_digest")}
        )
    runner_up = pose.runner_up
    return FixInfo(
        match=True,
        reason=None,
        ground=point_info(pose.ground, pose.ground_covariance_m2),
        aircraft=point_info(pose.aircraft, pose.aircraft_covariance_m2),
        heading_deg=heading_info(pose.heading_deg),
        heading_sd_deg=pose.heading_sd_deg,
        tilt_deg=pose.tilt_deg,
        scale=pose.scale,
        score=pose.score,
        margin=pose.margin,
        probability=pose.probability,
        method=pose.method,
        attitude=pose.attitude,
        fit_digest=pose.fit_digest,
        corners=pose.corners,
        runner_up=None
        if runner_up is None
        else RunnerUpInfo(
            **runner_up.location._asdict(), heading_deg=heading_info(runner_up.heading_deg), score=runner_up.score
        ),
        conditions=conditions,
    )


def heading_info(degrees: float) -> float:
    """A heading in [0, 360)."""
    return degrees % 360.0 % 360.0  # once would leave 360 of a hair below 0


def fix_errors_info(errors: FixErrors | None) -> FixErrorsInfo | None:
    if errors is None:
        return None
    return FixErrorsInfo(
        fix_ground_m=errors.ground_m, fix_aircraft_m=errors.aircraft_m, heading_error_deg=errors.heading_deg
    )


def _without_position(match: bool | None, reason: str, conditions: FixConditionsInfo | None) -> FixInfo:
    return FixInfo(
        match=match, reason=reason, ground=None, aircraft=None, heading_deg=None, heading_sd_deg=None, tilt_deg=None,
        scale=None, score=None, margin=None, probability=None, method=METHOD if match is False else None,
        attitude=None, fit_digest=None, corners=None, runner_up=None, conditions=conditions,
    )  # fmt: skip


def point_info(location: LonLat | None, covariance: Covariance | None) -> FixPointInfo | None:
    """A position with its covariance and ellipse; None where either is unknown."""
    if location is None or covariance is None:
        return None
    return FixPointInfo(
        lon=location.lon,
        lat=location.lat,
        covariance_m2=(
            (covariance.east_east, covariance.east_north),
            (covariance.east_north, covariance.north_north),
        ),
        ellipse_95=EllipseInfo(**asdict(ellipse(covariance))),
    )
