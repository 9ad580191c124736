"""A frame photographed at a known place, heading, scale and tilt is registered there."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from registration_scenes import GSD_M, SceneSource, location, photograph, scene_map, scene_window

from coarseloc.core import geo
from coarseloc.core.types import LonLat
from coarseloc.localize.registration import blocks, geometry, registrar
from coarseloc.localize.registration.coarse import CandidateWindow, coarse_fields, coarse_places, whole_map
from coarseloc.localize.registration.field import luma_of, orientation_field
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.registration.registrar import SCANNED_SCALES, Registration, locked_scale, refine, register
from coarseloc.localize.registration.settings import DEFAULTS
from coarseloc.localize.registration.spectra import Hypotheses
from coarseloc.simulate.camera import ground_homography

SQUARE = FrameGeometry(128, 128, 256.0, 0.667)
WIDE = FrameGeometry(160, 90, 320.0, 0.8)
FEW = replace(DEFAULTS, refined=2)


pytestmark = pytest.mark.usefixtures("single_thread")


def registered(pose: WindowPose, shape: FrameGeometry, off_m: tuple[float, float] = (40.0, -25.0)) -> Registration:
    """Among the window around a place `off_m` (east, north) of the truth."""
    center = geo.offset(location(pose.x_m, pose.y_m), *off_m)
    window = scene_window(center, 1.75 * shape.footprint_m, shape.footprint_m / DEFAULTS.coarse_px)
    candidate = CandidateWindow(window, DEFAULTS.reach_footprints * shape.footprint_m)
    return register(FrameRaster(photograph(pose, shape), shape), [candidate], scene_window, GSD_M, FEW)


def ground_error_m(registration: Registration, pose: WindowPose) -> float:
    assert registration.best is not None
    return apart_m(registration.best.location, location(pose.x_m, pose.y_m))


def apart_m(first: LonLat, second: LonLat) -> float:
    return float(geo.ellipsoid_distance_m(first.lon, first.lat, second.lon, second.lat))


@given(
    x_m=st.floats(330.0, 670.0),
    y_m=st.floats(330.0, 670.0),
    heading_deg=st.floats(0.0, 359.9),
    scale=st.floats(0.85, 1.15),
    tilt_deg=st.floats(0.0, 5.0),
    towards_deg=st.floats(0.0, 359.9),
    shape=st.sampled_from([SQUARE, WIDE]),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_a_frame_at_any_place_heading_scale_and_tilt_comes_back(
    x_m: float, y_m: float, heading_deg: float, scale: float, tilt_deg: float, towards_deg: float, shape: FrameGeometry
):
    tangent = math.tan(math.radians(tilt_deg)) * (shape.half_fov_tan or 0.0)
    towards = math.radians(towards_deg)
    perspective = (tangent * math.cos(towards), tangent * math.sin(towards))
    pose = WindowPose(x_m, y_m, heading_deg, scale, perspective)
    registration = registered(pose, shape)
    best = registration.best
    assert best is not None
    assert ground_error_m(registration, pose) < 0.5  # a quarter of a pixel
    assert abs(float(geo.signed_difference_deg(best.heading_deg, heading_deg))) < 0.15
    assert abs(best.pose.scale / scale - 1.0) < 0.004
    assert math.hypot(*np.subtract(best.pose.perspective, perspective)) < 0.02
    assert best.score > 0.6


def test_every_heading_is_told_by_the_coarse_step():
    """Every 7°, which is no multiple of the headings' own step; the scale 4 % off."""
    shape = SQUARE
    upright = replace(DEFAULTS, hypotheses=Hypotheses((1.0,)))
    for heading in range(0, 360, 7):
        pose = WindowPose(520.0, 480.0, float(heading), 1.04)
        frame = FrameRaster(photograph(pose, shape), shape)
        window = scene_window(geo.offset(location(500.0, 500.0), 5.0, 5.0), 1.75 * 256.0, 4.0)
        place = coarse_places(coarse_fields(frame, upright), [CandidateWindow(window, 96.0)], upright, 64.0, 1)[0]
        assert apart_m(place.location, location(520.0, 480.0)) < 6.0, heading
        assert abs(float(geo.signed_difference_deg(place.heading_deg, heading))) <= 7.5, heading


def test_a_right_place_beats_nine_wrong_ones():
    pose = WindowPose(400.0, 600.0, 200.0, 1.0)
    frame = FrameRaster(photograph(pose, SQUARE), SQUARE)
    centers = [location(x, y) for x in (250.0, 500.0, 750.0) for y in (250.0, 430.0, 750.0)]
    centers.append(location(420.0, 630.0))
    windows = [CandidateWindow(scene_window(center, 448.0, 4.0), 96.0) for center in centers]
    registration = register(frame, windows, scene_window, GSD_M)
    assert ground_error_m(registration, pose) < 0.3
    assert registration.score is not None and registration.score > 0.6
    assert registration.margin is not None and registration.margin > 0.3
    assert len(registration.ranking) >= 2


def test_a_frame_of_elsewhere_has_no_margin():
    pose = WindowPose(500.0, 500.0, 30.0)
    frame = FrameRaster(photograph(pose, SQUARE, seed=6), SQUARE)
    windows = [
        CandidateWindow(scene_window(location(x, y), 448.0, 4.0), 96.0) for x in (350.0, 650.0) for y in (350.0, 650.0)
    ]
    registration = register(frame, windows, scene_window, GSD_M)
    assert registration.places
    assert registration.score is None or registration.score < 0.4
    assert registration.margin is None or registration.margin < 0.1


def test_a_place_that_fits_badly_is_held_against_more_rivals_and_a_clear_one_against_one(
    monkeypatch: pytest.MonkeyPatch,
):
    fits: list[float] = []
    refine = registrar.refine

    def counted(*arguments, **options):
        pose = refine(*arguments, **options)
        fits.append(pose.score) if options["searched"] else None
        return pose

    monkeypatch.setattr(registrar, "refine", counted)
    windows = [
        CandidateWindow(scene_window(location(x, y), 448.0, 4.0), 96.0) for x in (350.0, 650.0) for y in (350.0, 650.0)
    ]
    for seed, expected in ((5, 2), (6, 2 * DEFAULTS.refined)):
        fits.clear()
        frame = FrameRaster(photograph(WindowPose(400.0, 400.0, 30.0), SQUARE, seed=seed), SQUARE)
        registration = register(frame, windows, scene_window, GSD_M)
        assert len(fits) == expected
        assert (max(fits[: DEFAULTS.refined]) < DEFAULTS.doubtful_score) == (seed == 6)
        if registration.rival is not None and registration.score is not None:
            assert registration.rival.score == max([score for score in fits if score != registration.score])


def test_a_lone_window_gives_a_margin_too():
    registration = registered(WindowPose(480.0, 520.0, 15.0), SQUARE)
    assert registration.rival is not None and registration.rival.score > 0.0
    assert registration.margin is not None and 0.3 < registration.margin < 0.9


def test_an_unknown_scale_is_scanned_and_locked():
    scanning = replace(FEW, hypotheses=Hypotheses(SCANNED_SCALES))
    best = []
    for heading, scale in ((20.0, 1.38), (150.0, 1.42), (260.0, 1.4)):
        pose = WindowPose(500.0, 500.0, heading, scale)
        window = scene_window(location(520.0, 490.0), 448.0, 4.0)
        frame = FrameRaster(photograph(pose, SQUARE), SQUARE)
        registration = register(frame, [CandidateWindow(window, 96.0)], scene_window, GSD_M, scanning)
        assert ground_error_m(registration, pose) < 0.5
        assert registration.best is not None
        best.append(registration.best.pose.scale)
    locked = locked_scale(best)
    assert locked is not None and abs(locked - 1.4) < 0.005
    assert locked_scale(best[:2]) is None
    assert locked_scale((0.7, 1.0, 1.4, 1.5)) is None


def test_a_frame_off_the_map_has_no_pose():
    frame = FrameRaster(photograph(WindowPose(500.0, 500.0, 30.0), SQUARE), SQUARE)
    window = scene_window(location(-600.0, -600.0), 448.0, 4.0)
    registration = register(frame, [CandidateWindow(window, 96.0)], scene_window, GSD_M)
    assert registration.best is None and registration.score is None and registration.margin is None


def test_windows_of_other_pixels_than_the_frames_fields_are_refused():
    frame = FrameRaster(photograph(WindowPose(500.0, 500.0, 30.0), SQUARE), SQUARE)
    right, coarser = (CandidateWindow(scene_window(location(500.0, 500.0), 448.0, gsd), 96.0) for gsd in (4.0, 5.0))
    for candidates in ([coarser], [right, coarser]):
        with pytest.raises(ValueError, match=r"expected .* px at 4 m"):
            register(frame, candidates, scene_window, GSD_M, FEW)


def test_a_fit_that_settles_is_scored_where_it_is(monkeypatch: pytest.MonkeyPatch):
    pose = WindowPose(500.0, 480.0, 40.0, 1.02, (0.01, -0.02))
    frame = FrameRaster(photograph(pose, SQUARE), SQUARE)
    window = scene_window(location(pose.x_m, pose.y_m), 450.0, GSD_M)
    x_m, y_m = window.metres_of(location(pose.x_m, pose.y_m))
    warped: list[WindowPose] = []
    surfaces = registrar._surfaces
    monkeypatch.setattr(registrar, "_surfaces", lambda *scene: (warped.append(scene[3]), surfaces(*scene))[1])
    start = replace(pose, x_m=x_m + 3.0, y_m=y_m - 2.0)
    fits = []
    for settled_px in (registrar._SETTLED_PX, 0.0):
        monkeypatch.setattr(registrar, "_SETTLED_PX", settled_px)
        warped.clear()
        fits.append(refine(frame, window, start, parameters=blocks.PERSPECTIVE, rounds=4, searched=False))
        assert len(warped) < 4 if settled_px else len(warped) == 5
    settled, warped_anew = fits
    assert apart_m(settled.location, warped_anew.location) < 0.02 * GSD_M
    assert abs(settled.score - warped_anew.score) < 2e-3
    np.testing.assert_allclose(np.diag(settled.curvature), np.diag(warped_anew.curvature), rtol=0.03)


def test_a_frame_without_size_is_refused():
    for wrong in ({"width_px": 0}, {"footprint_m": 0.0}, {"footprint_m": math.nan}, {"half_fov_tan": 0.0}):
        with pytest.raises(ValueError, match="expected above 0"):
            FrameGeometry(**({"width_px": 10, "height_px": 10, "footprint_m": 20.0} | wrong))
    with pytest.raises(ValueError, match="a frame of"):
        FrameRaster(np.zeros((10, 12, 3), np.uint8), FrameGeometry(10, 12, 20.0))


def test_a_whole_map_is_looked_over_in_blocks():
    pose = WindowPose(640.0, 380.0, 111.0, 0.97)
    shape = FrameGeometry(128, 128, 256.0)
    settings_ = replace(DEFAULTS, block_px=224)
    source = SceneSource()
    candidates = list(whole_map(source, shape, settings_))
    assert len(candidates) > 1 and max(candidates[0].window.pixels.shape) <= 225
    registration = register(
        FrameRaster(photograph(pose, shape), shape), candidates, source.window, GSD_M, settings_, refined=6
    )
    assert ground_error_m(registration, pose) < 0.3
    assert registration.margin is not None and registration.margin > 0.3


def test_the_same_arguments_give_the_same_bits():
    pose = WindowPose(510.0, 470.0, 123.0, 0.97, (0.01, -0.02))
    first, second = registered(pose, SQUARE).best, registered(pose, SQUARE).best
    assert first is not None and second is not None
    assert first.pose == second.pose and first.score == second.score
    assert np.array_equal(first.curvature, second.curvature)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu_within_two_centimetres():
    pose = WindowPose(510.0, 470.0, 123.0, 0.97, (0.01, -0.02))
    candidate = CandidateWindow(scene_window(location(500.0, 500.0), 448.0, 4.0), 96.0)
    pixels = photograph(pose, SQUARE)
    best = [
        register(FrameRaster(pixels, SQUARE, device), [candidate], scene_window, GSD_M).best
        for device in ("cpu", "cuda")
    ]
    assert best[0] is not None and best[1] is not None
    assert apart_m(best[0].location, best[1].location) < 0.02


def test_importing_the_localizer_imports_no_torch():
    code = "import sys, coarseloc.localize.localizer, coarseloc.localize.registration; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# --- blocks -------------------------------------------------------------------------------------


def test_surfaces_are_the_direct_sums():
    field = orientation_field(luma_of(torch.from_numpy(scene_map()[:66, :66].copy())))
    mask = torch.ones(40, 40)
    mask[:, 34:] = 0.0
    local = blocks.surfaces(field[10:50, 10:50], mask, field[3:57, 3:57], (20.0, 20.0), 20.0)
    side = blocks.REACH_PX * 2 + 1
    shifts = range(side)
    frame, window = (field[10:50, 10:50] * mask).numpy(), field[3:57, 3:57].numpy()
    expected = np.array([[(frame.conj() * window[y : y + 40, x : x + 40]).real.sum() for x in shifts] for y in shifts])
    energy = np.array(
        [[(mask.numpy() * np.abs(window[y : y + 40, x : x + 40]) ** 2).sum() for x in shifts] for y in shifts]
    )
    assert np.allclose(local.product.sum(0), expected, atol=1e-2)
    assert np.allclose(local.energy.sum(0), energy, atol=1e-2)
    assert math.isclose(local.frame_energy, float((np.abs(frame) ** 2).sum()), rel_tol=1e-4)
    assert np.abs(local.places).max() <= 1.1


# --- geometry -----------------------------------------------------------------------------------

angles = st.floats(-8.0, 8.0)


@given(pitch=angles, roll=angles, yaw=st.floats(0.0, 359.9), height_m=st.floats(60.0, 600.0))
def test_a_pose_is_the_simulated_camera(pitch: float, roll: float, yaw: float, height_m: float):
    """A camera with pitch, roll and yaw sees the ground where the pose of its perspective says."""
    shape = FrameGeometry(100, 80, 400.0, 2 / 3)
    matrix = ground_homography(pitch, roll, 2 / 3, height_m)
    perspective = geometry.perspective_of(pitch, roll, 2 / 3)
    back_pitch, back_roll, turn = geometry.attitude_of(perspective, 2 / 3)
    assert math.isclose(back_pitch, pitch, abs_tol=1e-6) and math.isclose(back_roll, roll, abs_tol=1e-6)
    secant = math.sqrt(1.0 + (math.hypot(*perspective) / (2 / 3)) ** 2)
    pose = WindowPose(0.0, 0.0, yaw + turn, height_m * secant / 300.0, perspective)
    frame = np.array([[-1.0, 1.0, 0.3, 0.0], [-0.8, 0.5, 0.8, 0.0], [1.0, 1.0, 1.0, 1.0]])
    right, forward, depth = matrix @ frame
    window = geometry.rotation(yaw) @ np.stack([right / depth, -forward / depth])
    mapped = geometry.to_ground(pose, shape) @ frame
    ground = mapped[:2] / mapped[2]
    nadir = geometry.nadir_offset_m(pose, shape)
    assert nadir is not None
    assert np.allclose(ground - nadir[:, None], window, atol=1e-6 * height_m + 1e-6)


def test_without_a_field_of_view_there_is_no_nadir_and_no_tilt():
    shape = FrameGeometry(100, 100, 400.0)
    pose = WindowPose(0.0, 0.0, 0.0, 1.0, (0.05, 0.0))
    assert geometry.nadir_offset_m(pose, shape) is None and geometry.tilt_deg(pose, shape) is None


def test_a_heading_of_90_has_the_frames_up_in_the_east():
    up = geometry.to_ground(WindowPose(0.0, 0.0, 90.0), FrameGeometry(10, 10, 2.0)) @ [0.0, -1.0, 1.0]
    assert np.allclose(up[:2], [1.0, 0.0])


@pytest.mark.parametrize("seed", [1004, 504, 550])
def test_a_fit_on_next_to_nothing_does_not_drift_until_no_frame_is_left(seed: int):
    random = np.random.default_rng(seed)
    blur = Image.fromarray(random.integers(0, 255, (3, 3, 3), dtype=np.uint8)).resize(
        (128, 128), Image.Resampling.BICUBIC
    )
    window = scene_window(location(*random.uniform(300, 700, 2)), 400.0, GSD_M)
    start = WindowPose(200.0, 200.0, random.uniform(0, 360))
    frame = FrameRaster(np.asarray(blur), SQUARE)
    fine = refine(frame, window, start, parameters=blocks.SIMILARITY, rounds=3, searched=True)
    assert 0.5 <= fine.pose.scale <= 2.0 and np.isfinite(fine.score)
