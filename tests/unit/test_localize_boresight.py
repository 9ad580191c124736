"""Boresight: constant offsets of legs, told apart from a shift of the map."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coarseloc.localize.boresight import Sight, estimate_boresight

HEIGHT_M = 120.0


def sights(
    legs: list[tuple[float, float, float]],  # heading, pitch, roll of the boresight
    shift_m: tuple[float, float] = (0.0, 0.0),
    frames: int = 20,
    sd_m: float = 0.0,
    attitude_sd_deg: float = 0.0,
    seed: int = 1,
) -> list[Sight]:
    generator = np.random.default_rng(seed)
    flown = []
    for heading_deg, pitch_deg, roll_deg in legs:
        for _ in range(frames):
            body = generator.normal(0.0, attitude_sd_deg, 2)
            heading = math.radians(heading_deg + float(generator.normal(0.0, 2.0)))
            label_roll = math.radians(body[1])
            right = -math.tan(label_roll) - math.tan(math.radians(roll_deg))
            forward = math.tan(math.radians(body[0])) / math.cos(label_roll) + math.tan(math.radians(pitch_deg))
            east = HEIGHT_M * (right * math.cos(heading) + forward * math.sin(heading)) + shift_m[0]
            north = HEIGHT_M * (forward * math.cos(heading) - right * math.sin(heading)) + shift_m[1]
            noise = generator.normal(0.0, sd_m, 2)
            offset_m = (east + float(noise[0]), north + float(noise[1]))
            flown.append(Sight(len(flown) + 1, offset_m, math.degrees(heading) % 360.0, HEIGHT_M, body[0], body[1]))
    return flown


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-10, 10), st.floats(-10, 10), st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 360), st.floats(40, 320)
)
def test_legs_of_two_headings_give_pitch_roll_and_the_maps_shift(pitch, roll, east, north, heading, turn):
    flown = sights([(heading, pitch, roll), (heading + turn, pitch, roll)], (east, north), attitude_sd_deg=3.0)
    boresight = estimate_boresight(flown)
    assert len(boresight.legs) == 2 and not any(leg.jump for leg in boresight.legs)
    for leg in boresight.legs:
        assert math.isclose(leg.pitch_deg, pitch, abs_tol=1e-4) and math.isclose(leg.roll_deg, roll, abs_tol=1e-4)
    assert boresight.shift_m is not None and np.allclose(boresight.shift_m, (east, north), atol=1e-3)


def test_one_heading_cannot_tell_the_maps_shift_and_says_so():
    boresight = estimate_boresight(sights([(90.0, 4.0, 0.0)], (0.0, 3.0)))
    (leg,) = boresight.legs
    assert boresight.shift_m is None and boresight.shift_sd_m is None
    assert math.isclose(leg.pitch_deg, 4.0, abs_tol=0.05) and leg.roll_deg > 1.0, "the shift is in the roll"


def test_a_camera_that_moves_within_a_leg_is_flagged_where_it_does():
    still = sights([(10.0, 2.0, 0.0)], sd_m=1.0, frames=30)
    moved = sights([(10.0, 9.0, 0.0)], sd_m=1.0, frames=30, seed=2)
    flown = [*still, *(Sight(sight.index + 30, *_rest(sight)) for sight in moved)]
    before, after = estimate_boresight(flown).legs
    assert abs(before.last - 30) <= 1 and after.first == before.last + 1 and (after.jump, before.jump) == (True, False)
    assert math.isclose(after.pitch_deg - before.pitch_deg, 7.0, abs_tol=0.5)


def test_a_camera_that_moved_between_legs_is_flagged_and_hardly_taken_for_a_shift():
    legs = [(0.0, 1.0, 0.0), (120.0, 1.0, 0.0), (240.0, 1.0, 0.0), (0.0, 9.0, 0.0), (120.0, 9.0, 0.0)]
    boresight = estimate_boresight(sights(legs, (2.0, -1.0), sd_m=1.0))
    assert [leg.jump for leg in boresight.legs] == [False, False, False, True, False]
    assert np.allclose([leg.pitch_deg for leg in boresight.legs], [1, 1, 1, 9, 9], atol=0.5)
    assert boresight.shift_m is not None and np.allclose(boresight.shift_m, (2.0, -1.0), atol=1.0)


def test_noise_alone_is_no_jump():
    for seed in range(20):
        boresight = estimate_boresight(sights([(0.0, 1.0, 1.0), (180.0, 1.0, 1.0)], sd_m=4.0, frames=60, seed=seed))
        assert len(boresight.legs) == 2 and not any(leg.jump for leg in boresight.legs)


def test_the_stated_error_holds_the_truth_about_as_often_as_it_says():
    inside = []
    for seed in range(100):
        boresight = estimate_boresight(sights([(0.0, 2.0, -1.0), (120.0, 2.0, -1.0)], (1.0, 2.0), sd_m=3.0, seed=seed))
        inside += [abs(leg.pitch_deg - 2.0) <= 1.96 * leg.sd_deg for leg in boresight.legs]
    assert 0.85 < np.mean(inside) <= 0.995


def test_single_wrong_fixes_do_not_pull_a_leg():
    flown = sights([(0.0, 2.0, 0.0), (90.0, 2.0, 0.0)], sd_m=0.5)
    flown[3] = Sight(flown[3].index, (500.0, -300.0), *_rest(flown[3])[1:])
    boresight = estimate_boresight(flown)
    assert all(abs(leg.pitch_deg - 2.0) < 0.5 for leg in boresight.legs)


def test_turns_and_short_legs_are_left_out_and_named():
    flown = sights([(0.0, 2.0, 0.0)], frames=8)
    turn = [Sight(9 + number, (0.0, 0.0), 40.0 + 40.0 * number, HEIGHT_M) for number in range(3)]
    boresight = estimate_boresight([*flown, *turn])
    assert boresight.unused == (9, 10, 11) and len(boresight.legs) == 1
    assert estimate_boresight(turn).legs == ()


def _rest(sight: Sight) -> tuple:
    return sight.offset_m, sight.heading_deg, sight.height_m, sight.pitch_deg, sight.roll_deg


def test_a_flight_that_only_turns_is_one_leg():
    legs = [(40.0 * number, 2.5, -0.5) for number in range(12)]
    flown = [sights([leg], (1.0, 2.0), frames=1, seed=number)[0] for number, leg in enumerate(legs)]
    numbered = [Sight(number, *_rest(sight)) for number, sight in enumerate(flown, start=1)]
    boresight = estimate_boresight(numbered)
    (leg,) = boresight.legs
    assert (leg.first, leg.last, leg.frames) == (1, 12, 12) and boresight.unused == ()
    assert math.isclose(leg.pitch_deg, 2.5, abs_tol=0.02) and math.isclose(leg.roll_deg, -0.5, abs_tol=0.02)
    assert boresight.shift_m is not None and np.allclose(boresight.shift_m, (1.0, 2.0), atol=0.1)
