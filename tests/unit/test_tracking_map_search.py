"""Frames of a track registered about where they are expected, and on the whole map, on a small generated one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from registration_scenes import CENTER, SIDE_M, SceneSource, photograph

from coarseloc.core.camera import Camera
from coarseloc.core.types import Floats
from coarseloc.localize.registration.coarse import whole_map
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.tracking.kalman import PoseMeasurement, residual
from coarseloc.localize.tracking.map_search import MapFrameSearch
from coarseloc.localize.tracking.tracker import LocalPlane

PLANE = LocalPlane(CENTER)
WIDTH_M = 300.0
POSE = WindowPose(560.0, 430.0, 77.0, 1.05)
TRUTH = np.array([POSE.x_m - SIDE_M / 2, SIDE_M / 2 - POSE.y_m, POSE.heading_deg, math.log(POSE.scale)])
EXPECTED = TRUTH + np.array([25.0, -18.0, 3.0, -0.02])
COVARIANCE = np.diag(np.square([20.0, 20.0, 4.0, 0.03]))


@pytest.fixture(scope="module")
def search() -> MapFrameSearch:
    pixels = photograph(POSE, FrameGeometry(192, 192, WIDTH_M))
    return MapFrameSearch(pixels, WIDTH_M, Camera(), SceneSource(), PLANE)


def place(measurements: object) -> PoseMeasurement:
    assert isinstance(measurements, tuple)
    (measurement,) = measurements
    return measurement


def assert_right(measurement: PoseMeasurement, truth: Floats = TRUTH) -> None:
    error = np.abs(residual(measurement.mean, truth))
    assert error[:2].max() < 1.0
    assert error[2] < 0.3
    assert error[3] < 0.01
    assert measurement.strong
    assert measurement.log_ratio > 3.0
    assert np.linalg.eigvalsh(measurement.covariance).min() > 0


def test_a_frame_is_found_beside_where_it_was_expected(search: MapFrameSearch) -> None:
    assert_right(place(search.around(EXPECTED, COVARIANCE)))


@pytest.mark.parametrize("turn_deg", [7.4, -180.0])
def test_headings_are_counted_from_the_expected_one_all_the_way_round(search: MapFrameSearch, turn_deg: float) -> None:
    assert_right(place(search.around(EXPECTED + np.array([0.0, 0.0, turn_deg, 0.0]), COVARIANCE)))


def test_a_scale_is_told_against_the_frame_s_expected_width(search: MapFrameSearch) -> None:
    wider = replace(search, footprint_m=WIDTH_M * 1.05)
    expected = EXPECTED - np.array([0.0, 0.0, 0.0, math.log(1.05)])
    assert_right(place(wider.around(expected, COVARIANCE)), TRUTH - np.array([0.0, 0.0, 0.0, math.log(1.05)]))


def test_beyond_the_reach_of_the_expected_place_there_is_nothing_but_weak_ones(search: MapFrameSearch) -> None:
    elsewhere = EXPECTED + np.array([-400.0, -300.0, 0.0, 0.0])
    for measurement in search.around(elsewhere, np.diag([4.0, 4.0, 4.0, 1e-4])):
        assert not measurement.strong
        assert measurement.log_ratio < 0.0


def test_on_the_whole_map_a_frame_is_found_without_any_expectation(search: MapFrameSearch) -> None:
    assert_right(place(search.everywhere()))
    cached = replace(search, windows=lambda geometry, settings: list(whole_map(SceneSource(), geometry, settings)))
    assert place(cached.everywhere()).mean == pytest.approx(place(search.everywhere()).mean)


def test_of_a_map_too_large_to_look_at_whole_only_the_places_of_a_search_are(search: MapFrameSearch) -> None:
    near, far = PLANE.location(*(TRUTH[:2] + 60.0)), PLANE.location(-300.0, -300.0)
    assert_right(place(replace(search, places=[far, near]).everywhere()))
    assert all(measurement.log_ratio < 0 for measurement in replace(search, places=[far]).everywhere())
    assert replace(search, places=[]).everywhere() == ()


def test_a_frame_of_nothing_is_found_nowhere(search: MapFrameSearch) -> None:
    grey = replace(search, pixels=np.full_like(search.pixels, 128))
    assert all(measurement.log_ratio < 0 for measurement in [*grey.around(EXPECTED, COVARIANCE), *grey.everywhere()])


def test_the_share_of_a_frame_on_the_map_is_by_its_box(search: MapFrameSearch) -> None:
    assert search.coverage(TRUTH) == 1.0
    assert 0.2 < search.coverage(np.array([SIDE_M / 2, 0.0, 0.0, 0.0])) < 0.8
    assert search.coverage(np.array([2 * SIDE_M, 0.0, 0.0, 0.0])) == 0.0
