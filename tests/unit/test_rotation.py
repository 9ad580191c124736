"""Headings: which way a view faces, and that quarter turns lose nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from coarseloc.core import rotation
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine

EIGHT = range(0, 360, 45)
SIDE = 64
IDENTITY = Affine(1, 0, 0, 0, 1, 0)


def centred(window_px: int, side_px: int = SIDE) -> Affine:
    """The map of a view in the middle of a larger window, pixel for pixel."""
    margin = (window_px - side_px) / 2
    return Affine(1, 0, margin, 0, 1, margin)


def noise(size: int, seed: int = 0, smooth: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size // smooth, size // smooth, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)).copy()


def brightest(view: np.ndarray) -> tuple[float, float]:
    """(x, y) of the centre of what is light, from the middle."""
    light = view[..., 0] / view[..., 0].sum(dtype=float)
    from_middle = np.arange(len(view)) + 0.5 - len(view) / 2
    return float((light.sum(axis=0) * from_middle).sum()), float((light.sum(axis=1) * from_middle).sum())


def marked(bearing_deg: float) -> np.ndarray:
    """A north-up window of 96 px, black but for a white disc 24 px from its centre in this direction."""
    x, y = 48 + 24 * math.sin(math.radians(bearing_deg)), 48 - 24 * math.cos(math.radians(bearing_deg))
    columns, rows = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
    disc = np.hypot(columns - x, rows - y) < 4
    return np.where(disc[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


@given(st.integers(0, 359))
def test_what_lies_at_a_bearing_is_on_top_of_the_view_of_that_heading(heading: int) -> None:
    view = rotation.affine_views(marked(heading), centred(96), SIDE, [heading])[heading].pixels
    assert brightest(view) == pytest.approx((0, -24), abs=0.3)


@given(st.integers(0, 359), st.floats(0, 360))
def test_what_lies_right_of_the_heading_is_right_in_the_view(bearing: int, heading: float) -> None:
    view = rotation.affine_view(marked(bearing), centred(96), SIDE, heading).pixels
    turn = math.radians(bearing - heading)
    assert brightest(view) == pytest.approx((24 * math.sin(turn), -24 * math.cos(turn)), abs=0.3)


def test_east_is_on_top_at_90_as_rot90_has_it() -> None:
    window = noise(SIDE)
    views = rotation.affine_views(window, IDENTITY, SIDE, [0, 90])
    assert_array_equal(views[0].pixels, window)
    assert_array_equal(views[90].pixels, np.rot90(window, 1))


@given(st.integers(0, 50), st.sampled_from([0, 45]), st.sampled_from([1, 2, 3]))
@settings(max_examples=20)
def test_six_of_eight_views_are_bit_equal_to_resampling_them(seed: int, base: int, turns: int) -> None:
    window, heading = noise(96, seed), base + 90 * turns
    views = rotation.affine_views(window, centred(96), SIDE, EIGHT)
    assert_array_equal(views[heading].pixels, rotation.affine_view(window, centred(96), SIDE, heading).pixels)


@given(st.integers(0, 359))
@settings(max_examples=30)
def test_any_whole_degree_is_within_one_level_of_resampling_it(heading: int) -> None:
    window = noise(96, smooth=4)
    shared = rotation.affine_views(window, centred(96), SIDE, [heading])[heading].pixels
    direct = rotation.affine_view(window, centred(96), SIDE, heading).pixels
    assert np.abs(shared.astype(int) - direct).max() <= 1


def test_eight_headings_are_two_resamplings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    resampled = rotation._resample
    monkeypatch.setattr(rotation, "_resample", lambda *args: calls.append(args) or resampled(*args))
    assert len(rotation.affine_views(noise(96), centred(96), SIDE, EIGHT)) == 8
    assert len(calls) == 2


@given(st.floats(0, 360), st.floats(0, 360))
def test_turning_twice_is_turning_by_the_sum(first: float, second: float) -> None:
    twice = rotation.rotate_affine(rotation.rotate_affine(IDENTITY, first, SIDE), second, SIDE)
    assert twice == pytest.approx(rotation.rotate_affine(IDENTITY, first + second, SIDE), abs=1e-9)


@pytest.mark.parametrize("heading", [-1e-20, 1e-20, 360.0, -360.0])
def test_a_hair_beside_north_is_north(heading: float) -> None:
    assert rotation.rotate_affine(IDENTITY, heading, SIDE) == pytest.approx(rotation.rotate_affine(IDENTITY, 0.0, SIDE))


@given(st.floats(0, 360))
def test_turning_keeps_the_centre_and_the_area(heading: float) -> None:
    turned = rotation.rotate_affine(Affine(2, 0.5, 7, -0.25, 3, 9), heading, SIDE)
    assert turned(SIDE / 2, SIDE / 2) == pytest.approx(Affine(2, 0.5, 7, -0.25, 3, 9)(SIDE / 2, SIDE / 2))
    assert turned.a * turned.e - turned.b * turned.d == pytest.approx(2 * 3 + 0.5 * 0.25)


@given(st.integers(0, 359))
@settings(max_examples=20)
def test_there_and_back_gives_the_picture_again(heading: int) -> None:
    window = noise(192, smooth=8)
    there = rotation.affine_view(window, centred(192, 128), 128, heading).pixels
    back = rotation.affine_view(there, centred(128, 48), 48, -heading).pixels
    assert np.abs(back.astype(int) - window[72:120, 72:120]).mean() < 3


def test_every_view_is_whole_when_the_window_is_large_enough() -> None:
    views = rotation.affine_views(noise(96), centred(96), SIDE, EIGHT)
    assert {view.ground_fraction for view in views.values()} == {1.0}


def test_a_square_turned_in_its_own_frame_lacks_a_sixth_at_45_and_nothing_at_90() -> None:
    views = rotation.affine_views(np.full((256, 256, 3), 200, np.uint8), IDENTITY, 256, EIGHT)
    assert views[90].ground_fraction == 1.0
    assert views[45].ground_fraction == pytest.approx(2 * (math.sqrt(2) - 1), abs=0.003)  # a regular octagon
    assert (views[45].pixels == 0).all(axis=-1).mean() == pytest.approx(1 - views[45].ground_fraction, abs=0.001)


def test_where_the_mask_holds_no_ground_the_view_is_black() -> None:
    valid = np.ones((96, 96), bool)
    valid[:, 48:] = False  # no east
    views = rotation.affine_views(np.full((96, 96, 3), 255, np.uint8), centred(96), SIDE, EIGHT, valid)
    assert all(view.ground_fraction == pytest.approx(0.5, abs=0.02) for view in views.values())
    assert (views[0].pixels[:, :31] == 255).all() and (views[0].pixels[:, 33:] == 0).all()
    assert (views[90].pixels[:31] == 0).all() and (views[90].pixels[33:] == 255).all()


def test_the_source_a_view_reaches_is_its_diagonal_at_45() -> None:
    left, top, right, bottom = rotation.source_bounds(IDENTITY, 100, EIGHT)
    assert (right - left, bottom - top) == pytest.approx((141.42, 141.42), abs=0.01)
    assert rotation.source_bounds(IDENTITY, 100, [0, 90, 180, 270]) == pytest.approx((0, 0, 100, 100))


def test_views_are_contiguous_and_their_own() -> None:
    window = noise(96)
    for view in rotation.affine_views(window, centred(96), SIDE, EIGHT).values():
        assert view.pixels.flags.c_contiguous and view.pixels.flags.writeable
        assert view.pixels.shape == (SIDE, SIDE, 3) and view.pixels.dtype == np.uint8
        view.pixels[:] = 0
    assert window.any()


def test_angles_are_put_in_order_each_once() -> None:
    assert rotation.normalise_headings([450, -45, 0, 360, 90.0]) == (0, 90, 315)


@pytest.mark.parametrize("angles", [[], [22.5], [math.nan], [math.inf]])
def test_angles_that_are_no_whole_degrees_are_refused(angles: list[float]) -> None:
    with pytest.raises(InputError, match="whole degrees"):
        rotation.normalise_headings(angles)


@given(st.integers(0, 359))
def test_a_set_turned_the_other_way_is_stored_as_headings(angle: int) -> None:
    assert rotation.stored_angle(angle, "cw") == angle
    stored = rotation.stored_angle(angle, "ccw")
    assert 0 <= stored < 360 and (stored + angle) % 360 == 0


def test_an_unknown_sense_of_turning_is_refused() -> None:
    with pytest.raises(InputError, match='"cw"'):
        rotation.stored_angle(45, "left")
