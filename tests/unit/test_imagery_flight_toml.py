"""flight.toml: a flight's camera and its truth's error, and what is said of a file that is wrong."""

from __future__ import annotations

import pytest
from PIL import Image

from coarseloc.core.camera import Camera, Distortion
from coarseloc.core.errors import InputError
from coarseloc.core.types import Pose
from coarseloc.imagery.flight_toml import read_flight_toml, write_flight_toml
from coarseloc.imagery.flights import open_flight, open_image
from coarseloc.simulate.flight import write_labels

EVERYTHING = """
[camera]
focal_length_px = 3000
image_width_px = 4000
distortion = [-0.1, 0.02, 0.001, -0.002, 0.003]
stabilised = false
mount_yaw_deg = 90
mount_pitch_deg = 5
mount_roll_deg = -1.5

[truth]
sd_m = 0.05
"""


@pytest.fixture
def folder(tmp_path):
    """A flight of one frame that was flown to the north."""
    folder = tmp_path / "f1"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "f1_00001.jpg")
    write_labels(folder / "labels.json", [("f1_00001.jpg", Pose(yaw_deg=10.0, pitch_deg=0.0, roll_deg=0.0))])
    return folder


def test_every_key_is_read(folder):
    (folder / "flight.toml").write_text(EVERYTHING)
    flight = open_flight(folder)
    camera = flight.camera
    assert camera.fov_deg == pytest.approx(67.38, abs=0.01) and camera.stabilised is False
    assert camera.distortion == Distortion(-0.1, 0.02, 0.001, -0.002, 0.003)
    assert (camera.mount_yaw_deg, camera.mount_pitch_deg, camera.mount_roll_deg) == (90.0, 5.0, -1.5)
    assert flight.truth_sd_m == 0.05 and flight.notices == ()


def test_a_true_heading_is_of_the_frames_upper_edge(folder):
    (folder / "flight.toml").write_text("[camera]\nmount_yaw_deg = 90\n")
    (frame,) = open_flight(folder).frames
    assert frame.truth.yaw_deg == pytest.approx(100.0) and frame.truth.pitch_deg == 0.0
    (frame,) = open_flight(folder, camera=Camera(mount_yaw_deg=0.0)).frames
    assert frame.truth.yaw_deg == 10.0


def test_without_a_file_nothing_is_claimed_of_the_camera_and_the_truth_is_gps(folder):
    flight = open_flight(folder)
    assert flight.camera == Camera() and flight.truth_sd_m == 3.0


def test_the_file_may_lie_beside_the_folder_under_its_name(folder):
    beside = folder.parent / "f1.toml"
    beside.write_text("[camera]\nfov_deg = 60\n")
    assert open_flight(folder).camera.fov_deg == 60.0
    (folder / "flight.toml").write_text("[camera]\nfov_deg = 70\n")
    flight = open_flight(folder)
    assert flight.camera.fov_deg == 70.0
    assert any(str(beside) in notice and "left out" in notice for notice in flight.notices)


def test_one_image_has_the_camera_of_its_folder(folder):
    (folder / "flight.toml").write_text("[camera]\nfov_deg = 60\n")
    flight = open_image(folder / "f1_00001.jpg", camera=Camera(footprint_m=100.0))
    assert (flight.camera.fov_deg, flight.camera.footprint_m) == (60.0, 100.0)
    assert [frame.index for frame in flight.frames] == [1] and flight.frames[0].truth == Pose()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[camera]\nfov = 60", r"`\[camera\] fov` is unknown: expected footprint_m, fov_deg"),
        ("[lens]\nfov_deg = 60", "`lens` is unknown: expected camera, truth"),
        ("[camera]\nfov_deg = 190", r"`\[camera\] fov_deg` is 190: .*less than 180"),
        ("[camera]\nfov_deg = nan", r"`\[camera\] fov_deg` is nan"),
        ('[camera]\nstabilised = "yes"', r"`\[camera\] stabilised` is 'yes': .*boolean"),
        ("[camera]\nmount_pitch_deg = -90", r"`\[camera\] mount_pitch_deg` is -90: .*-45"),
        ("[camera]\ndistortion = [0.1, 0.2]\nfov_deg = 60", r"`\[camera\] distortion`.*at least 4"),
        ("[camera]\ndistortion = [0.1, 0.2, 0, 0]", r"\[camera\]: `distortion` needs the focal length"),
        ("[camera]\nfocal_length_mm = 8", "`focal_length_mm` is there without `sensor_width_mm`"),
        ("[camera]\nimage_width_px = 800", "`image_width_px` is there without `focal_length_px`"),
        ("[camera]\nfov_deg = 60\nfocal_length_mm = 8\nsensor_width_mm = 13", "is there 2 times: give fov_deg, or"),
        ("[truth]\nsd_m = -1", r"`\[truth\] sd_m` is -1: .*greater than or equal to 0"),
        ("[camera]\nfootprint_m = true", r"`\[camera\] footprint_m` is True: .*number"),
        ('[camera]\nfov_deg = "60"', r"`\[camera\] fov_deg` is '60': .*number"),
        ("[camera", "is not TOML"),
        ("camera = " + "[" * 3000, "is not TOML"),
        ("[camera]\nfov_deg = " + "9" * 5000, "is not TOML"),
        ("camera = 3", r"`camera` is 3: expected a table, \[camera\]"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(folder, text, says):
    file = folder / "flight.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as raised:
        open_flight(folder)
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"camera\.toml cannot be read: No such file"):
        read_flight_toml(tmp_path / "camera.toml")


def test_a_written_file_reads_back(tmp_path):
    write_flight_toml(tmp_path / "flight.toml", fov_deg=67.38013505195957, attitude_sd_deg=0.01, truth_sd_m=0.0)
    assert read_flight_toml(tmp_path / "flight.toml")[:2] == (
        Camera(fov_deg=67.38013505195957, attitude_sd_deg=0.01),
        0.0,
    )
