"""The width of a flight's frames is tried on the first ones, and scanned where it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from coarseloc.core.camera import ALTITUDE_AND_FOV, REFERENCE_FOOTPRINT, Camera, FootprintRule, FootprintWidth
from coarseloc.core.errors import InputError
from coarseloc.core.fixes import NotVerified, Pose2D
from coarseloc.core.types import Covariance, Frame, LonLat, Pose
from coarseloc.localize.flight_scale import fitted_rule
from coarseloc.localize.registration.settings import RegistrationSettings

HERE = LonLat(127.0, 37.5)


def frames(count: int, altitude_m: float | None = 300.0) -> list[Frame]:
    return [Frame(n, Path(f"{n}.jpg"), f"{n}.jpg", Pose(altitude_label_m=altitude_m)) for n in range(1, count + 1)]


class Ground:
    """Frames of a true width, which match within what the settings' scales reach; some are over water and never do."""

    def __init__(self, width_m: float, water: tuple[int, ...] = ()) -> None:
        self.width_m, self.water = width_m, water
        self.registered: list[tuple[int, int, int]] = []  # frame, expected width, number of scales

    def register(self, frame: Frame, width: FootprintWidth, settings: RegistrationSettings) -> Pose2D | NotVerified:
        scales = settings.hypotheses.scales
        self.registered.append((frame.index, round(width.metres), len(scales)))
        scale = self.width_m * (1 + 0.01 * (frame.index % 3 - 1)) / width.metres
        if frame.index in self.water or not min(scales) / 1.08 < scale < max(scales) * 1.08:
            return NotVerified("no match")
        return Pose2D(
            HERE, Covariance(1.0, 0.0, 1.0), None, None, 0.0, 0.1, None, 5.0, scale, 0.5, 0.3, 5, 0.9, "unknown", "m",
            "d", (HERE, HERE, HERE, HERE),
        )  # fmt: skip


def test_a_given_width_is_not_questioned():
    ground, rule = Ground(300.0), FootprintRule(Camera(footprint_m=900.0), 300.0)
    assert fitted_rule(frames(9), rule, ground.register) == (rule, [])
    assert ground.registered == []


def test_three_matches_of_the_first_five_are_enough():
    ground, rule = Ground(310.0, water=(1, 3)), FootprintRule(Camera(), 300.0)
    assert fitted_rule(frames(9), rule, ground.register) == (rule, [])
    assert ground.registered == [(number, 300, 3) for number in (1, 2, 3, 4, 5)]


def test_what_does_not_fit_is_scanned_around_altitude_first():
    ground, rule = Ground(420.0, water=(2,)), FootprintRule(Camera(fov_deg=90.0), 400.0)
    fitted, (notice,) = fitted_rule(frames(9), rule, ground.register)
    assert (fitted.scanned_basis, fitted.scanned_scale) == (ALTITUDE_AND_FOV, pytest.approx(0.7, rel=0.01))
    assert fitted.width("9.jpg", 200.0).metres == pytest.approx(280.0, rel=0.01)
    nominal = [(number, 600, 3) for number in (1, 2, 3)]  # a fourth and a fifth could not make three
    assert ground.registered == [*nominal, *((number, 600, 11) for number in (1, 2, 3, 4))]
    assert "(600 m)" in notice and "0.70" in notice and "420 m" in notice and "--footprint-m" in notice


def test_altitudes_above_sea_leave_the_references_width():
    ground, rule = Ground(200.0), FootprintRule(Camera(fov_deg=90.0), 220.0)
    fitted, notices = fitted_rule(frames(9), rule, ground.register)
    assert (fitted.scanned_basis, fitted.scanned_scale) == (REFERENCE_FOOTPRINT, pytest.approx(0.91, rel=0.02))
    assert fitted.width("9.jpg", 376.0).metres == pytest.approx(200.0, rel=0.02) and len(notices) == 1


def test_altitudes_far_above_the_ground_are_found_out_without_references_too():
    ground, rule = Ground(220.0), FootprintRule(Camera(fov_deg=90.0))
    fitted, (notice,) = fitted_rule(frames(9, 376.0), rule, ground.register)
    assert (fitted.scanned_basis, fitted.scanned_scale) == (ALTITUDE_AND_FOV, pytest.approx(0.2926, rel=0.01))
    assert fitted.width("9.jpg", 376.0).metres == pytest.approx(220.0, rel=0.01) and "from 0.23 to 0.60" in notice


def test_where_no_scale_fits_the_width_stays_and_it_is_said():
    ground, rule = Ground(300.0, water=(1, 2, 3, 4, 5)), FootprintRule(Camera(fov_deg=90.0), 220.0)
    fitted, (notice,) = fitted_rule(frames(9), rule, ground.register)
    assert fitted == rule
    assert "the width stays" in notice and ALTITUDE_AND_FOV in notice and REFERENCE_FOOTPRINT in notice


def test_two_frames_cannot_agree_and_are_not_tried():
    ground, rule = Ground(300.0), FootprintRule(Camera(), 900.0)
    assert fitted_rule(frames(2), rule, ground.register) == (rule, [])
    assert ground.registered == []


def test_frames_without_altitude_are_left_out_of_what_altitude_says():
    ground, rule = Ground(420.0), FootprintRule(Camera(fov_deg=90.0))
    some = [*frames(2, None), *frames(9)[2:]]
    fitted, _ = fitted_rule(some, rule, ground.register)
    assert fitted.scanned_basis == ALTITUDE_AND_FOV and {number for number, *_ in ground.registered} == {3, 4, 5}


def test_where_nothing_says_the_width_of_any_frame_it_is_refused():
    with pytest.raises(InputError, match=r"width of 1\.jpg on the ground is unknown"):
        fitted_rule(frames(4, None), FootprintRule(Camera(fov_deg=90.0)), Ground(300.0).register)
