"""Motion between frames, out of pictures whose motion is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from registration_scenes import SIDE_M, photograph

from coarseloc.core import geo
from coarseloc.core.types import Frame
from coarseloc.imagery.decode import read_image
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.tracking.odometry import Luma, OdometryFrame, displacement
from coarseloc.simulate.camera import ground_homography
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

WIDTH_M = 300.0
START = WindowPose(SIDE_M / 2, SIDE_M / 2, 30.0)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def frame(pose: WindowPose, width_px: int = 256, height_px: int = 256, footprint_m: float = WIDTH_M) -> OdometryFrame:
    shape = FrameGeometry(width_px, height_px, footprint_m)
    return OdometryFrame(photograph(pose, shape).astype(np.float32) @ LUMA, footprint_m)


def moved(pose: WindowPose, across_m: float, along_m: float, turn_deg: float, log_scale: float) -> WindowPose:
    """A pose this far on, in metres of a frame at scale 1."""
    heading = math.radians(pose.heading_deg)
    right = pose.scale * (across_m * math.cos(heading) + along_m * math.sin(heading))
    down = pose.scale * (across_m * math.sin(heading) - along_m * math.cos(heading))
    scale = pose.scale * math.exp(log_scale)
    return WindowPose(pose.x_m + right, pose.y_m + down, pose.heading_deg + turn_deg, scale)


@settings(max_examples=15, deadline=None)
@given(
    across=st.floats(-0.25, 0.25),
    along=st.floats(-0.25, 0.25),
    turn=st.floats(-30.0, 30.0),
    log_scale=st.floats(-0.12, 0.12),
    size=st.sampled_from([(256, 256), (320, 180), (180, 240)]),
)
def test_turn_shift_and_scale_are_measured_within_their_error(
    across: float, along: float, turn: float, log_scale: float, size: tuple[int, int]
) -> None:
    across_m, along_m = across * WIDTH_M, along * WIDTH_M * size[1] / size[0]
    second = moved(START, across_m, along_m, turn, log_scale)
    measured = displacement(frame(START, *size), frame(second, *size))
    assert measured is not None
    error = np.array(
        [
            measured.across_m - across_m,
            measured.along_m - along_m,
            measured.turn_deg - turn,
            measured.log_scale - log_scale,
        ]
    )
    assert np.all(np.abs(error) < 3 * np.sqrt(np.diag(measured.covariance))), error


@pytest.mark.parametrize("turn", [90.0, 143.0, 180.0, -75.0])
def test_any_turn_between_two_frames_is_measured(turn: float) -> None:
    measured = displacement(frame(START), frame(moved(START, 40.0, 30.0, turn, 0.0)))
    assert measured is not None
    assert geo.heading_difference(measured.turn_deg, turn) < 1.0
    assert math.hypot(measured.across_m - 40.0, measured.along_m - 30.0) < 3.0


def test_a_width_on_the_ground_that_is_known_to_change_is_no_change_of_scale() -> None:
    second = moved(START, 20.0, 50.0, 5.0, math.log(1.5))
    nominal = WindowPose(second.x_m, second.y_m, second.heading_deg)
    measured = displacement(frame(START), frame(nominal, footprint_m=1.5 * WIDTH_M))
    assert measured is not None
    assert abs(measured.log_scale) < 0.02
    assert math.hypot(measured.across_m - 20.0, measured.along_m - 50.0) < 3.0


def test_the_way_back_is_the_way_out_turned_round() -> None:
    first, second = frame(START), frame(moved(START, 60.0, -45.0, 17.0, 0.05))
    out, back = displacement(first, second), displacement(second, first)
    assert out is not None
    assert back is not None
    there = moved(START, out.across_m, out.along_m, out.turn_deg, out.log_scale)
    home = moved(there, back.across_m, back.along_m, back.turn_deg, back.log_scale)
    assert math.hypot(home.x_m - START.x_m, home.y_m - START.y_m) < 1.5
    assert abs(home.heading_deg - START.heading_deg) < 0.5
    assert abs(math.log(home.scale)) < 0.02


def cloud(seed: int, noise: float = 3.0) -> Luma:
    """A bright shade that varies slowly, and a sensor's noise."""
    rng = np.random.default_rng(seed)
    shade = Image.fromarray(rng.uniform(180, 230, (4, 4)).astype(np.float32)).resize((256, 256), 3)
    picture = np.asarray(shade) + noise * rng.standard_normal((256, 256))
    return np.clip(np.round(picture), 0, 255).astype(np.float32)


@pytest.mark.parametrize(
    "pictures",
    [
        [np.zeros((256, 256), np.float32)] * 2,
        [np.full((144, 256), 93.0, np.float32)] * 2,
        [cloud(1), cloud(2)],
        [cloud(1, 0.0), cloud(1, 0.0)],
        [np.random.default_rng(seed).uniform(0, 255, (256, 256)).astype(np.float32) for seed in (1, 2)],
    ],
    ids=["black", "one colour", "cloud", "the same cloud twice", "noise"],
)
def test_frames_that_show_no_common_ground_have_no_motion(pictures: list[Luma]) -> None:
    first, second = (OdometryFrame(picture, WIDTH_M) for picture in pictures)
    assert displacement(first, second) is None


def test_ground_that_does_not_overlap_has_no_motion() -> None:
    corner, opposite = WindowPose(180.0, 180.0, 0.0), WindowPose(SIDE_M - 180.0, SIDE_M - 180.0, 0.0)
    assert displacement(frame(corner), frame(opposite)) is None
    assert displacement(frame(corner), OdometryFrame(cloud(5), WIDTH_M)) is None


@pytest.mark.parametrize("luma", [np.zeros((4, 90)), np.zeros((90, 90, 3)), np.full((64, 64), np.nan)])
def test_what_is_no_picture_is_refused(luma: np.ndarray) -> None:
    with pytest.raises(ValueError, match="luma"):
        OdometryFrame(luma.astype(np.float32), WIDTH_M)


def middle(frame: Frame, footprint_m: float) -> np.ndarray:
    """float64 [3]: a frame's middle (east, north) from its aircraft, and the scale there."""
    truth = frame.truth
    assert truth.altitude_label_m is not None
    assert truth.yaw_deg is not None
    matrix = ground_homography(
        truth.pitch_deg or 0.0, truth.roll_deg or 0.0, footprint_m / 600.0, truth.altitude_label_m
    )
    right, forward = matrix[:2, 2] / matrix[2, 2]
    yaw = math.radians(truth.yaw_deg)
    return np.array(
        [
            right * math.cos(yaw) + forward * math.sin(yaw),
            forward * math.cos(yaw) - right * math.sin(yaw),
            truth.altitude_label_m / 300.0,
        ]
    )


def test_a_simulated_flight_is_followed_step_by_step(tmp_path: Path) -> None:
    write_area(tmp_path / "area.tif", 11, width_m=1600.0, height_m=1600.0)
    flight = simulate_flight(
        tmp_path / "area.tif", tmp_path, flight_id="track", frames=12, footprint_m=WIDTH_M, seed=3, side_px=256
    )
    pictures = [OdometryFrame(read_image(frame.path).astype(np.float32) @ LUMA, WIDTH_M) for frame in flight.frames]
    squared = []
    for index, (first, second) in enumerate(itertools.pairwise(pictures)):
        start, end = flight.frames[index], flight.frames[index + 1]
        measured = displacement(first, second)
        assert measured is not None, index
        assert start.truth.location is not None
        assert end.truth.location is not None
        assert start.truth.yaw_deg is not None
        per_lon, per_lat = geo.metres_per_degree(start.truth.location.lat)
        between = np.array([end.truth.location.lon, end.truth.location.lat]) - start.truth.location
        away = middle(start, WIDTH_M)
        step = between * (per_lon, per_lat) + middle(end, WIDTH_M)[:2] - away[:2]
        yaw, scale = math.radians(start.truth.yaw_deg), away[2]
        across, along = measured.across_m * scale, measured.along_m * scale
        error = np.array([across * math.cos(yaw) + along * math.sin(yaw),
                          along * math.cos(yaw) - across * math.sin(yaw)]) - step  # fmt: skip
        squared.append(float(error @ error) / measured.covariance[0, 0])
    assert max(squared) < 25.0
    assert float(np.mean(squared)) < 4.0  # 2 where the stated error is the true one
