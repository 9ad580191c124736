"""Fixes of frames with the truth: the input of every score of fixes. Pure.

A fix tells where the line of sight meets the ground and, where the field of view is known, where the aircraft is. The
truth is the aircraft's. What a fix's ground point is held against follows from the truth's pitch and roll; where they
do not say, it is the aircraft's own position, and the error holds the lever of the tilt: 26 m at 5° from 300 m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.camera import BoresightLeg, Camera, sight_offset_m, tilt_lever_m
from coarseloc.core.fixes import FixConditions, FrameFix, Pose2D
from coarseloc.core.types import Bools, Covariance, Floats, Frame, LonLat, Pose

RIGHT_FOOTPRINTS = 0.05
"""A ground point is right within this share of the frame's width: other places are many times as far, and it does not
depend on what a fix claims of itself. It is the bound that `docs/accuracy.md` measures by."""

RIGHT_WITH_LEVER = 0.25
"""The same where the tilt's lever is in the error: poses farther apart than this are different places to the method."""

TRUTH_CHI2 = -2.0 * math.log(0.001)  # either bound is widened by what the truth may be off, in 99.9 % of cases
ALTITUDE_AGREES = 0.25  # relative: an altitude label further from the footprint's is not above ground


@dataclass(frozen=True, slots=True)
class PointErrors:
    """F points less their truth, (east, north) metres; nan where either is unknown."""

    offset_m: Floats  # [F, 2]
    covariance_m2: Floats  # [F, 2, 2], as stated, with the truth's own added; nan where it claims nothing of this truth

    def select(self, mask: Bools) -> PointErrors:
        """The points where `mask` [F] is true."""
        return PointErrors(self.offset_m[mask], self.covariance_m2[mask])

    def error_m(self) -> Floats:
        """[F]"""
        return np.hypot(self.offset_m[:, 0], self.offset_m[:, 1])

    def nees(self) -> Floats:
        """[F]: normalised estimation error squared, eᵀ S⁻¹ e: chi-square of two degrees of freedom, 2 on average, where
        covariances are right."""
        terms = np.hstack([self.offset_m, self.covariance_m2.reshape(-1, 4)])
        complete = np.asarray(~np.isnan(terms).any(axis=1), np.bool_)
        values = np.full(len(complete), np.nan)
        offset = self.offset_m[complete]
        values[complete] = np.einsum(
            "fi,fi->f", offset, np.linalg.solve(self.covariance_m2[complete], offset[..., None])[..., 0]
        )
        return values


@dataclass(frozen=True, slots=True)
class EvaluatedFixes:
    """F frames of known position that were looked for on the map, in time order."""

    frame: NDArray[np.int64]  # [F], index in the flight
    on_map: Bools  # [F], the map shows the truth; without it every match is wrong
    match: Bools  # [F]
    probability: Floats  # [F], that the place is right; 0 where there was no candidate
    right: Bools  # [F], matches at the right place
    line_of_sight: Bools  # [F], matches whose ground point is held against the truth's own line of sight
    ground: PointErrors
    aircraft: PointErrors
    heading_error_deg: Floats  # [F], 0 … 180; nan without a match or a yaw
    verify_ms: Floats  # [F]

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, mask: Bools) -> EvaluatedFixes:
        """The frames where `mask` [F] is true."""
        names = ("frame", "on_map", "match", "probability", "right", "line_of_sight", "heading_error_deg", "verify_ms")
        return replace(
            self,
            ground=self.ground.select(mask),
            aircraft=self.aircraft.select(mask),
            **{name: getattr(self, name)[mask] for name in names},
        )


def evaluate_fixes(
    fixes: Sequence[tuple[Frame, FrameFix]],
    on_map: Bools,
    camera: Camera,
    truth_sd_m: float,
    boresights: Mapping[str, BoresightLeg] | None = None,
) -> EvaluatedFixes:
    """Compare fixes with the truth, of the frames that have one and were looked for on the map.

    on_map: [len(fixes)]. camera: that they were looked for with, boresights: its legs by relative path. truth_sd_m: of
    the truth, per axis.
    """
    judged = [
        (frame, fix, fix.conditions, shown)
        for (frame, fix), shown in zip(fixes, on_map.tolist(), strict=True)
        if frame.truth.location is not None and fix.match is not None and fix.conditions is not None
    ]
    legs = boresights or {}
    rows = [
        _row(
            frame.truth,
            fix.pose,
            conditions,
            ground_truth(frame.truth, conditions, camera, legs.get(frame.relative_path)),
            truth_sd_m,
        )
        for frame, fix, conditions, _ in judged
    ]
    right = np.array([row.right for row in rows], np.bool_)
    return EvaluatedFixes(
        frame=np.array([frame.index for frame, *_ in judged], np.int64),
        on_map=np.array([shown for *_, shown in judged], np.bool_) | right,  # a right match is proof
        match=np.array([fix.pose is not None for _, fix, *_ in judged], np.bool_),
        probability=np.array([getattr(fix.answer, "probability", 0.0) for _, fix, *_ in judged], np.float64),
        right=right,
        line_of_sight=np.array([row.line_of_sight for row in rows], np.bool_),
        ground=_stack([row.ground for row in rows]),
        aircraft=_stack([row.aircraft for row in rows]),
        heading_error_deg=np.array([row.heading_error_deg for row in rows], np.float64),
        verify_ms=np.array([conditions.verify_ms for _, _, conditions, _ in judged], np.float64),
    )


@dataclass(frozen=True, slots=True)
class SightedGround:
    """Where a frame's line of sight meets the ground, and how far off its attitude's error makes that, per axis."""

    location: LonLat
    lever_sd_m: float


def ground_truth(
    truth: Pose, conditions: FixConditions, camera: Camera, boresight: BoresightLeg | None = None
) -> SightedGround | None:
    """The ground point that labels place; None where they do not: pitch, roll, yaw or altitude are missing, the
    altitude is not above ground, the field of view is unknown, or a gimbal holds the camera at an unstated angle."""
    attitude, tangent = camera.attitude(truth.pitch_deg, truth.roll_deg, boresight), camera.half_fov_tan
    location, yaw_deg, height_m = truth.location, truth.yaw_deg, truth.above_ground_m
    if attitude is None or tangent is None or location is None or yaw_deg is None or height_m is None:
        return None
    if abs(2 * height_m * tangent / conditions.footprint_m - 1) > ALTITUDE_AGREES:
        return None
    right_m, forward_m = sight_offset_m(attitude.pitch_deg, attitude.roll_deg, height_m)
    lever_sd_m = tilt_lever_m(height_m, attitude.sd_deg)
    return SightedGround(geo.offset(location, *geo.turned_m(right_m, forward_m, yaw_deg)), lever_sd_m)


@dataclass(frozen=True, slots=True)
class _Row:
    right: bool
    line_of_sight: bool
    ground: tuple[Floats, Floats]  # offset [2], covariance [2, 2]
    aircraft: tuple[Floats, Floats]
    heading_error_deg: float


def held_against_truth(
    truth: Pose, pose: Pose2D, conditions: FixConditions, sight: SightedGround | None, truth_sd_m: float
) -> tuple[Floats, float, float]:
    """(the pose's ground point less the truth's, (east, north) metres [2]; the truth's variance, per axis; metres
    within which it is the right place). truth: of known location."""
    location = truth.location if sight is None else sight.location
    if location is None:
        raise ValueError("a truth without a location")
    exact = truth_sd_m == 0.0  # a simulated attitude is as exact as its position
    variance = truth_sd_m**2 + (0.0 if sight is None or exact else sight.lever_sd_m**2)
    share = RIGHT_WITH_LEVER if sight is None else RIGHT_FOOTPRINTS
    tolerance_m = math.sqrt((share * conditions.footprint_m) ** 2 + TRUTH_CHI2 * variance)
    return _offset_m(location, pose.ground), variance, tolerance_m


_UNKNOWN = np.full(2, np.nan), np.full((2, 2), np.nan)


def _row(
    truth: Pose, pose: Pose2D | None, conditions: FixConditions, sight: SightedGround | None, truth_sd_m: float
) -> _Row:
    location = truth.location
    if pose is None or location is None:
        return _Row(False, False, _UNKNOWN, _UNKNOWN, math.nan)
    ground_m, ground_variance, tolerance_m = held_against_truth(truth, pose, conditions, sight, truth_sd_m)
    aircraft = _UNKNOWN
    if pose.aircraft is not None and pose.aircraft_covariance_m2 is not None:
        aircraft = _offset_m(location, pose.aircraft), _matrix(pose.aircraft_covariance_m2, truth_sd_m**2)
    return _Row(
        right=bool(np.hypot(*ground_m) <= tolerance_m),
        line_of_sight=sight is not None,
        ground=(ground_m, _UNKNOWN[1] if sight is None else _matrix(pose.ground_covariance_m2, ground_variance)),
        aircraft=aircraft,
        heading_error_deg=math.nan
        if truth.yaw_deg is None
        else geo.heading_difference(truth.yaw_deg, pose.heading_deg),
    )


def _offset_m(truth: LonLat, location: LonLat) -> Floats:
    east, north = geo.metres_per_degree((truth.lat + location.lat) / 2)
    return np.array(
        [float(geo.signed_difference_deg(truth.lon, location.lon)) * east, (location.lat - truth.lat) * north]
    )


def _matrix(covariance: Covariance, variance: float) -> Floats:
    return covariance.matrix() + variance * np.eye(2)


def _stack(points: Sequence[tuple[Floats, Floats]]) -> PointErrors:
    offsets = np.array([offset for offset, _ in points], np.float64).reshape(-1, 2)
    return PointErrors(offsets, np.array([matrix for _, matrix in points], np.float64).reshape(-1, 2, 2))
