"""Simulated flights and capture trees: the users' layout, with a truth that is true."""

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.orthophoto import cut_view, open_orthophoto
from coarseloc.simulate.camera import Changes, ground_homography, photograph, reach
from coarseloc.simulate.captures import write_captures
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

FLIGHT = {"flight_id": "251124155712", "frames": 6, "footprint_m": 240.0, "seed": 4, "side_px": 96}


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    return write_area(tmp_path_factory.mktemp("area") / "area.tif", 12, width_m=1200, height_m=1000, gsd_m=3)


def pixels(path):
    return np.asarray(Image.open(path)).astype(float)


# --- the camera ---------------------------------------------------------------------------------


def test_a_level_camera_sees_its_footprint():
    to_ground = ground_homography(0, 0, half_fov_tan=0.5, altitude_m=300)
    assert reach(to_ground) == pytest.approx(150)
    x, y, w = to_ground @ (1, -1, 1)  # the upper right corner: right and forward
    assert (x / w, y / w) == pytest.approx((150, 150))


def test_nose_up_looks_forward_and_right_wing_down_looks_left():
    for pitch, roll, where in (
        (5, 0, (0, 300 * math.tan(math.radians(5)))),
        (0, 5, (-300 * math.tan(math.radians(5)), 0)),
    ):
        x, y, w = ground_homography(pitch, roll, 0.5, 300) @ (0, 0, 1)
        assert (x / w, y / w) == pytest.approx(where)


def test_a_level_photograph_of_its_own_footprint_is_the_ground_itself():
    ground = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    to_ground = ground_homography(0, 0, 0.5, 300)
    assert np.abs(photograph(ground, 150, to_ground, 64).astype(int) - ground).max() <= 1


# --- flights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["track", "random"])
def test_a_flight_reads_back_as_it_was_flown(area, tmp_path, path):
    flown = simulate_flight(area, tmp_path, path=path, **FLIGHT)
    assert flown.path == tmp_path / "251124155712"
    assert flown.frames[0].path.name == "251124155712_00001.jpg"
    assert flown.started_at.isoformat() == "2025-11-24T15:57:12"
    assert pixels(flown.frames[0].path).shape == (96, 96, 3)
    read = open_flight(flown.path)
    assert read.truth_source == "labels" and read.truth_sd_m == flown.truth_sd_m == 0.0
    assert read.camera == flown.camera and 2 * 300 * read.camera.half_fov_tan == pytest.approx(240.0)
    assert [frame.index for frame in read.frames] == [1, 2, 3, 4, 5, 6]
    for frame, truth in zip(read.frames, flown.frames, strict=True):
        assert frame.truth.location == pytest.approx(truth.truth.location, abs=1e-7)
        assert frame.truth.yaw_deg == truth.truth.yaw_deg
        assert frame.truth.altitude_label_m == truth.truth.altitude_label_m


def test_labels_have_the_users_keys(area, tmp_path):
    flown = simulate_flight(area, tmp_path, **FLIGHT)
    image = json.loads((flown.path / "labels.json").read_text(encoding="utf-8"))["images"][0]
    assert set(image) == {"imageref", "position", "attitude"}
    assert set(image["position"]) == {"x", "y", "z", "latitude", "longitude", "altitude"}
    assert set(image["attitude"]) == {"yaw", "pitch", "roll"}


def test_a_plain_frame_is_the_view_that_a_reference_would_be(area, tmp_path):
    flown = simulate_flight(area, tmp_path, path="random", changes=Changes.none(), **FLIGHT)
    for frame in flown.frames:
        pose = frame.truth
        view = cut_view(area, pose.location, 240.0, pose.yaw_deg, 96)
        assert view.ground_fraction > 0.99
        assert np.abs(pixels(frame.path) - view.pixels).mean() < 5  # JPEG's loss


def test_changes_change_the_picture_and_not_the_place(area, tmp_path):
    plain = simulate_flight(area, tmp_path / "plain", changes=Changes.none(), path="random", **FLIGHT)
    changed = simulate_flight(area, tmp_path / "changed", path="random", **FLIGHT)
    repeated = simulate_flight(area, tmp_path / "again", path="random", **FLIGHT)
    assert np.abs(pixels(plain.frames[0].path) - pixels(changed.frames[0].path)).mean() > 5
    assert changed.frames[0].path.read_bytes() == repeated.frames[0].path.read_bytes()
    assert all(abs(f.truth.altitude_label_m - 300) < 80 and abs(f.truth.pitch_deg) < 12 for f in changed.frames)


def test_a_track_is_smooth_and_stays_over_the_area(area, tmp_path):
    flown = simulate_flight(area, tmp_path, **{**FLIGHT, "frames": 30})
    poses = [frame.truth for frame in flown.frames]
    for before, after in itertools.pairwise(poses):
        assert geo.distance_m(*before.location, *after.location) < 0.5 * 240
        assert geo.heading_difference(before.yaw_deg, after.yaw_deg) <= 45
    assert max(geo.distance_m(*poses[0].location, *pose.location) for pose in poses) > 240


def test_a_folder_in_use_is_not_overwritten(area, tmp_path):
    simulate_flight(area, tmp_path, **FLIGHT)
    with pytest.raises(InputError, match="is not empty: choose another flight id"):
        simulate_flight(area, tmp_path, **FLIGHT)


def test_an_area_too_small_for_the_footprint_is_refused(area, tmp_path):
    with pytest.raises(InputError, match=r"covers 1200 x \d+ m, too little for frames of 900"):
        simulate_flight(area, tmp_path, **{**FLIGHT, "footprint_m": 900.0})


# --- capture trees ------------------------------------------------------------------------------


def test_a_written_capture_tree_is_read_back_with_its_places_and_headings(area, tmp_path):
    source = open_orthophoto(area, footprint_m=400, altitude_m=300, overlap=0.5, angles=(0, 45, 270), tile_px=64)
    folders = write_captures(source, tmp_path / "tree")
    assert [folder.name for folder in folders] == [f"251210182149_300_50_0_{a}" for a in ("000", "045", "270")]
    (read,) = open_captures(tmp_path / "tree")
    assert read.reference_set.angles == (0, 45, 270)
    assert read.reference_set.altitude_m == 300
    assert read.reference_set.overlap == 0.5
    assert not read.failures
    assert len(read.tiles) == len(source.tiles)
    for mine, theirs in zip(source.tiles, read.tiles, strict=True):
        assert mine.index == theirs.index
        assert geo.distance_m(*mine.center, *theirs.center) < 0.05
    for cut, back in zip(source.views(source.tiles[0], (45,)), read.views(read.tiles[0], (45,)), strict=True):
        assert np.abs(cut.pixels.astype(int) - back.pixels).mean() < 6


def test_a_capture_stamp_of_another_form_is_refused(area, tmp_path):
    source = open_orthophoto(area, footprint_m=400, altitude_m=300, tile_px=64)
    with pytest.raises(InputError, match="expected twelve digits"):
        write_captures(source, tmp_path, stamp="today")


def test_a_set_without_altitude_needs_one_for_its_names(area, tmp_path):
    source = open_orthophoto(area, footprint_m=400, tile_px=64)
    with pytest.raises(InputError, match="give altitude_m"):
        write_captures(source, tmp_path)
