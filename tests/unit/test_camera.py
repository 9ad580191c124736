"""The camera of a flight: its attitude in the aircraft, its field of view, what it says of a frame's width."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core.camera import (
    ALTITUDE_AND_FOV,
    GIVEN,
    REFERENCE_FOOTPRINT,
    Attitude,
    Camera,
    Distortion,
    FootprintRule,
    fov_deg_of,
)
from coarseloc.core.errors import InputError
from coarseloc.simulate.camera import ground_homography

tilts = st.floats(-20.0, 20.0)


def turned(yaw_deg: float) -> np.ndarray:
    """[3, 3]: (right, forward, w) of what is turned clockwise to those of the aircraft."""
    yaw = math.radians(yaw_deg)
    return np.array([[math.cos(yaw), math.sin(yaw), 0], [-math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])


@given(pitch=tilts, roll=tilts, mount_yaw=st.floats(-180.0, 180.0), mount_pitch=tilts, mount_roll=tilts)
def test_a_mounted_camera_sees_the_ground_that_both_rotations_lead_to(
    pitch: float, roll: float, mount_yaw: float, mount_pitch: float, mount_roll: float
) -> None:
    camera = Camera(mount_yaw_deg=mount_yaw, mount_pitch_deg=mount_pitch, mount_roll_deg=mount_roll)
    attitude = camera.in_aircraft(pitch, roll)
    flip = np.diag([1.0, -1.0, 1.0])  # an image's v is down, an axis forward is not
    in_aircraft = flip @ turned(mount_yaw) @ ground_homography(mount_pitch, mount_roll, 0.6, 1.0)
    both = ground_homography(pitch, roll, 1.0, 300.0) @ in_aircraft
    alone = turned(attitude.yaw_deg) @ ground_homography(attitude.pitch_deg, attitude.roll_deg, 0.6, 300.0)
    frame = np.array([[-0.9, 0.9, 0.3, 0.0], [-0.7, 0.5, 0.8, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert np.allclose(both @ frame, alone @ frame, atol=1e-7)


def test_a_camera_turned_to_the_right_wing_sees_roll_as_pitch() -> None:
    attitude = Camera(mount_yaw_deg=90.0).in_aircraft(4.0, 7.0)
    assert attitude.roll_deg == pytest.approx(4.0, abs=0.05) and attitude.pitch_deg == pytest.approx(-7.0, abs=0.05)
    level = Camera(mount_yaw_deg=90.0, mount_pitch_deg=10.0).in_aircraft(0.0, 0.0)
    assert level == pytest.approx(Attitude(90.0, 10.0, 0.0))


def test_pitch_of_the_mounting_adds_to_the_aircrafts() -> None:
    camera = Camera(fov_deg=60.0, mount_pitch_deg=9.0)
    attitude = camera.attitude(-2.0, 0.0)
    assert attitude is not None and attitude.source == "label"
    assert attitude.pitch_deg == pytest.approx(7.0) and attitude.roll_deg == pytest.approx(0.0, abs=1e-9)


def test_a_stabilised_camera_has_the_attitude_of_its_mounting_where_that_is_stated() -> None:
    assert Camera(fov_deg=60.0, stabilised=True).attitude(3.0, 4.0) is None
    attitude = Camera(fov_deg=60.0, stabilised=True, mount_pitch_deg=0.0).attitude(3.0, 4.0)
    assert attitude is not None
    assert (attitude.pitch_deg, attitude.roll_deg, attitude.source) == (0.0, 0.0, "mounting")


def test_without_a_field_of_view_or_a_label_no_attitude_is_claimed() -> None:
    assert Camera().attitude(1.0, 2.0) is None
    assert Camera(fov_deg=60.0, mount_pitch_deg=5.0).attitude(None, 2.0) is None


@pytest.mark.parametrize(
    ("camera", "pose", "heading"),
    [
        (Camera(), (350.0, 3.0, 2.0), 350.0),
        (Camera(mount_yaw_deg=90.0), (350.0, 0.0, 0.0), 80.0),
        (Camera(mount_yaw_deg=-90.0), (10.0, None, None), 280.0),
        (Camera(mount_yaw_deg=45.0), (0.0, 10.0, 0.0), 45.438),  # the nose up foreshortens what is forward
        (Camera(mount_yaw_deg=45.0, stabilised=True), (0.0, 10.0, 0.0), 45.0),
        (Camera(mount_yaw_deg=90.0), (None, 1.0, 1.0), None),
    ],
)
def test_a_frames_upper_edge_faces_yaw_and_mounting_yaw(camera, pose, heading) -> None:
    assert camera.frame_heading_deg(*pose) == (None if heading is None else pytest.approx(heading, abs=1e-3))


def test_what_a_user_says_comes_before_the_flights_table() -> None:
    table = Camera(fov_deg=60.0, stabilised=True, distortion=Distortion(0.1, 0.0, 0.0, 0.0), mount_yaw_deg=90.0)
    camera = Camera(footprint_m=300.0, fov_deg=70.0, stabilised=False).over(table)
    assert (camera.footprint_m, camera.fov_deg, camera.stabilised) == (300.0, 70.0, False)
    assert camera.distortion == table.distortion and camera.mount_yaw_deg == 90.0
    assert Camera().over(table) == table


def test_a_field_of_view_is_that_of_the_focal_length() -> None:
    assert fov_deg_of(50.0, 100.0) == pytest.approx(90.0)
    assert fov_deg_of(24.0, 36.0) == pytest.approx(73.74, abs=0.01)


def test_a_scanned_scale_multiplies_the_width_of_its_basis_alone() -> None:
    rule = FootprintRule(Camera(fov_deg=90.0), 400.0)
    assert rule.width("a.jpg", 100.0) == (pytest.approx(200.0), ALTITUDE_AND_FOV)
    assert rule.width("a.jpg", None) == (400.0, REFERENCE_FOOTPRINT)
    by_altitude = FootprintRule(Camera(fov_deg=90.0), 400.0, ALTITUDE_AND_FOV, 0.5)
    metres, source = by_altitude.width("a.jpg", 100.0)
    assert metres == pytest.approx(100.0) and source.startswith("scale scanned on the first frames: 0.50 of altitude")
    assert by_altitude.width("a.jpg", None) == (400.0, REFERENCE_FOOTPRINT)
    by_references = FootprintRule(Camera(fov_deg=90.0), 400.0, REFERENCE_FOOTPRINT, 0.71)
    metres, source = by_references.width("a.jpg", 100.0)
    assert metres == pytest.approx(284.0)
    assert source == "scale scanned on the first frames: 0.71 of the reference set's footprint"


def test_a_given_width_comes_first_and_none_is_refused() -> None:
    assert FootprintRule(Camera(footprint_m=250.0, fov_deg=90.0), 400.0).width("a.jpg", 100.0) == (250.0, GIVEN)
    with pytest.raises(InputError, match=r"width of a\.jpg.*no label gives its altitude.*--footprint-m"):
        FootprintRule(Camera(fov_deg=90.0)).width("a.jpg", None)
