"""The answer of a registration: covariances, ellipse, probability, no match."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from coarseloc.core import geo
from coarseloc.core.camera import CameraAttitude
from coarseloc.core.fixes import NoMatch, Pose2D
from coarseloc.core.rotation import Affine
from coarseloc.core.types import LonLat
from coarseloc.core.windows import MapWindow, north_up
from coarseloc.localize.registration.coarse import CoarsePlace
from coarseloc.localize.registration.fix import (
    FITTED,
    Logistic,
    aircraft_heading_deg,
    fix_of,
    ground_covariance,
)
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose, perspective_of
from coarseloc.localize.registration.registrar import FinePose, Registration

CENTER = LonLat(127.03, 37.49)
SHAPE = FrameGeometry(512, 512, 400.0, 2 / 3)
WINDOW = north_up(np.zeros((100, 100, 3), np.uint8), None, 2.0, CENTER)
CURVATURE = np.diag([-0.02, -0.005, -50.0, -60.0, -30.0, -30.0])  # sharp across, blunt along


def fine_pose(score: float = 0.7, window: MapWindow = WINDOW, pose: WindowPose | None = None) -> FinePose:
    placed = pose or WindowPose(100.0, 100.0, 30.0)
    spot = window.location(placed.x_m, placed.y_m)
    return FinePose(spot, placed, placed.heading_deg, score, CURVATURE, np.eye(6), 2.0, 1.0, window)


def registration(best: FinePose, runner_up: float | None) -> Registration:
    second = () if runner_up is None else (replace(best, score=runner_up),)
    places = (CoarsePlace(best.location, 0.0, 1.0, 0.3),)
    return Registration(best, (best, *second), places, second[0] if second else None)


def answer(of_frame: Registration, shape: FrameGeometry = SHAPE, **options: object) -> Pose2D | NoMatch:
    arguments = {"map_gsd_m": 2.0, "map_sd_m": 0.0, "whole_map": False, **options}
    return fix_of(of_frame, shape, **arguments)  # type: ignore[arg-type]


def test_a_clear_place_is_an_answer_with_its_covariance():
    pose = answer(registration(fine_pose(), 0.1))
    assert isinstance(pose, Pose2D)
    c, g = (0.3 * 4.0 * constant for constant in (FITTED.covariance, FITTED.gsd_variance))
    assert math.isclose(pose.ground_covariance_m2.east_east, c / 0.02 + g, rel_tol=1e-9)
    assert math.isclose(pose.ground_covariance_m2.north_north, c / 0.005 + g, rel_tol=1e-9)
    assert pose.probability > 0.99 and math.isclose(pose.margin, 0.6) and pose.hypotheses == 2
    assert pose.fit_digest == FITTED.digest and pose.attitude == "estimated"


def test_a_place_like_the_next_is_no_match_and_keeps_its_pose_aside():
    rejection = answer(registration(fine_pose(0.2), 0.19))
    assert isinstance(rejection, NoMatch) and rejection.reason == "ambiguous"
    assert rejection.rejected is not None and rejection.probability < 0.5


def test_without_a_pose_the_reason_tells_whether_there_was_ground():
    nothing = Registration(None, (), ())
    drifted = Registration(None, (), (CoarsePlace(CENTER, 0.0, 1.0, 0.1),))
    reasons = [rejection.reason for rejection in (answer(nothing), answer(drifted)) if isinstance(rejection, NoMatch)]
    assert reasons == ["no-ground", "ambiguous"]


def test_the_maps_own_error_adds_to_both_axes():
    plain, blurred = (ground_covariance(fine_pose(), 2.0, sd) for sd in (0.0, 1.5))
    assert np.allclose(blurred - plain, 2.25 * np.eye(2))


def test_a_turned_window_turns_the_covariance():
    quarter = MapWindow(WINDOW.pixels, None, 2.0, Affine(0.0, 2.0, 0.0, 2.0, 0.0, 0.0), CENTER)
    east_sharp, north_sharp = (
        ground_covariance(fine_pose(), 2.0, 0.0),
        ground_covariance(fine_pose(window=quarter), 2.0, 0.0),
    )
    assert math.isclose(east_sharp[0, 0], north_sharp[1, 1]) and math.isclose(east_sharp[1, 1], north_sharp[0, 0])


def test_the_aircraft_is_behind_what_a_nose_up_camera_sees():
    perspective = perspective_of(5.0, 0.0, 2 / 3)
    best = fine_pose(pose=WindowPose(100.0, 100.0, 90.0, 1.0, perspective))
    attitude = CameraAttitude(5.0, 0.0, 0.3, "label")
    pose = answer(registration(best, 0.1), attitude=attitude)
    assert isinstance(pose, Pose2D) and pose.aircraft is not None and pose.aircraft_covariance_m2 is not None
    height = 300.0 * math.cos(math.radians(5.0))
    east = float(geo.signed_difference_deg(pose.ground.lon, pose.aircraft.lon)) * geo.metres_per_degree(CENTER.lat)[0]
    assert math.isclose(east, -height * math.tan(math.radians(5.0)), abs_tol=0.01)
    assert pose.attitude == "label" and pose.tilt_deg is not None and math.isclose(pose.tilt_deg, 5.0)
    added = pose.aircraft_covariance_m2.east_east - pose.ground_covariance_m2.east_east
    assert math.isclose(added, (300.0 * math.tan(math.radians(0.3))) ** 2, rel_tol=1e-6)
    assert math.isclose(aircraft_heading_deg(pose, best, SHAPE), 90.0)


def test_one_frames_tilt_is_never_claimed_better_than_its_floor():
    pose = answer(registration(fine_pose(), 0.1))
    flat = answer(registration(fine_pose(), 0.1), tilt_floor_deg=0.0)
    assert isinstance(pose, Pose2D) and isinstance(flat, Pose2D)
    assert pose.tilt_sd_deg == 5.0 and flat.tilt_sd_deg < 1.0


def test_without_a_height_there_is_no_aircraft():
    pose = answer(registration(fine_pose(), 0.1), FrameGeometry(512, 512, 400.0))
    assert isinstance(pose, Pose2D)
    assert pose.aircraft is None and pose.aircraft_covariance_m2 is None and pose.attitude == "unknown"


def test_a_flat_surface_has_a_large_covariance_not_a_negative_one():
    flat = replace(fine_pose(0.1), curvature=np.diag([-1e-9, 1e-3, -1.0, -1.0, -1.0, -1.0]))
    values = np.linalg.eigvalsh(ground_covariance(flat, 2.0, 0.0))
    assert (values > 0).all() and values.max() > 1e3


@pytest.mark.parametrize("way", [FITTED.candidates, FITTED.whole_map])
def test_probability_rises_with_score_and_margin(way: Logistic):
    assert way(0.3, 0.1) < way(0.5, 0.1) < way(0.5, 0.3)
    assert 0.0 < way(-1.0, 0.0) < 0.05 and 0.99 < way(0.9, 0.7) <= 1.0
    assert 0.0 <= way(-1e9, 0.0) <= way(1e9, 0.0) <= 1.0


def test_other_constants_have_another_digest():
    assert replace(FITTED, covariance=0.02).digest != FITTED.digest
