"""Scores of fixes: simulated errors of known covariance, ground points of a simulated camera, counts by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss

from coarseloc.core import geo
from coarseloc.core.camera import Camera, sight_offset_m
from coarseloc.core.fixes import FixConditions, FrameFix, NoMatch, NotVerified, Pose2D
from coarseloc.core.types import Covariance, Floats, Frame, LonLat, Pose
from coarseloc.simulate.camera import ground_homography
from search.evaluation.evaluated_fixes import EvaluatedFixes, evaluate_fixes, ground_truth
from search.evaluation.fix_scores import (
    FIX_SCORES,
    FIX_SCORES_BY_KEY,
    calibration_error,
    error_distribution,
    precision_recall,
    reliability,
)
from search.evaluation.intervals import IntervalEstimate, mean_square_region, share_below, share_upper_bound

TRUTH = LonLat(127.03, 37.5)
WIDTH_M, HEIGHT_M = 400.0, 300.0
FOV_DEG = 2 * math.degrees(math.atan(WIDTH_M / 2 / HEIGHT_M))
CAMERA = Camera(WIDTH_M, FOV_DEG)
CONDITIONS = FixConditions(WIDTH_M, "given", "area", 2.0, 1.0, "given", 12.0)
LEVEL = Pose(TRUTH, HEIGHT_M, 0.0, 0.0, 0.0)
COVARIANCE = Covariance(9.0, 2.0, 4.0)


def matrix(covariance: Covariance) -> Floats:
    east, cross, north = covariance
    return np.array([[east, cross], [cross, north]])


def pose(
    east_m: float, north_m: float, *, probability: float = 0.9, heading: float = 0.0, truth: LonLat = TRUTH
) -> Pose2D:
    """A match whose ground point and aircraft lie so far from a position."""
    place = geo.offset(truth, east_m, north_m)
    return Pose2D(
        place, COVARIANCE, place, COVARIANCE, heading, 0.1, 0.0, 1.0, 1.0, 0.7, 0.5, 3, probability, "label",
        "orientation-correlation", "digest", (place,) * 4,
    )  # fmt: skip


def no_match(probability: float = 0.1) -> NoMatch:
    return NoMatch("ambiguous", 0.2, 0.01, probability, "digest")


def evaluated(
    *answers: Pose2D | NoMatch | NotVerified,
    truth: Pose = LEVEL,
    on_map: Sequence[bool] | None = None,
    camera: Camera = CAMERA,
    truth_sd_m: float = 0.0,
) -> EvaluatedFixes:
    frames = [Frame(i, Path("frame.jpg"), f"{i}.jpg", truth) for i in range(len(answers))]
    fixes = [FrameFix(answer, None if isinstance(answer, NotVerified) else CONDITIONS) for answer in answers]
    shown = np.ones(len(frames), np.bool_) if on_map is None else np.array(on_map)
    return evaluate_fixes(list(zip(frames, fixes, strict=True)), shown, camera, truth_sd_m)


def score(fixes: EvaluatedFixes, key: str) -> IntervalEstimate:
    return FIX_SCORES_BY_KEY[key].evaluate(fixes)


def simulated(n: int, seed: int, covariance: Floats, truth_sd_m: float = 0.0) -> EvaluatedFixes:
    errors = np.random.default_rng(seed).multivariate_normal([0, 0], covariance, n)
    return evaluated(*(pose(*error) for error in errors), truth_sd_m=truth_sd_m)


# --- simulated errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["ground", "aircraft"])
@pytest.mark.parametrize("truth_sd_m", [0.0, 3.0])
def test_where_errors_are_what_is_stated_the_ellipses_hold_their_share_and_nees_is_two(point: str, truth_sd_m: float):
    lever = HEIGHT_M * math.tan(math.radians(1.0)) if point == "ground" and truth_sd_m else 0.0
    variance = truth_sd_m**2 + lever**2
    fixes = simulated(2000, 7, matrix(COVARIANCE) + variance * np.eye(2), truth_sd_m)
    for level in (50, 95):
        coverage = score(fixes, f"fix_{point}_coverage@{level}")
        assert coverage.n == 2000 and coverage.low < level / 100 < coverage.high
        assert coverage.value == pytest.approx(level / 100, abs=0.03)
    nees = score(fixes, f"fix_{point}_nees")
    low, high = mean_square_region(nees.n_eff)
    assert 1.8 < low < nees.value < high < 2.2


@pytest.mark.parametrize(("stretch", "coverage"), [(4.0, 1 - 0.05 ** (1 / 4)), (0.25, 1 - 0.05**4)])
def test_a_covariance_that_is_wrong_shows_in_coverage_and_nees(stretch: float, coverage: float):
    fixes = simulated(3000, 8, stretch * matrix(COVARIANCE))
    assert score(fixes, "fix_ground_coverage@95").value == pytest.approx(coverage, abs=0.03)
    nees = score(fixes, "fix_ground_nees")
    assert nees.value == pytest.approx(2 * stretch, rel=0.1)
    low, high = mean_square_region(nees.n_eff)
    assert not low < nees.value < high


def test_the_error_of_the_truth_belongs_to_the_ellipse():
    fixes = simulated(2000, 9, matrix(COVARIANCE) + 9.0 * np.eye(2), truth_sd_m=0.0)
    assert score(fixes, "fix_aircraft_coverage@95").value < 0.85
    told = simulated(2000, 9, matrix(COVARIANCE) + 9.0 * np.eye(2), truth_sd_m=3.0)
    assert score(told, "fix_aircraft_coverage@95").value == pytest.approx(0.95, abs=0.02)


# --- the truth of the ground point ----------------------------------------------------------------


@given(
    pitch=st.floats(-20, 20), roll=st.floats(-20, 20), height=st.floats(50, 600),
)  # fmt: skip
def test_the_line_of_sight_meets_the_ground_where_the_simulated_camera_looks(pitch: float, roll: float, height: float):
    x, y, w = ground_homography(pitch, roll, 0.7, height) @ [0.0, 0.0, 1.0]
    assert sight_offset_m(pitch, roll, height) == pytest.approx((x / w, y / w), abs=1e-6)


@pytest.mark.parametrize("yaw", [0.0, 90.0, 213.0])
def test_the_ground_point_is_held_against_the_line_of_sight(yaw: float):
    truth = Pose(TRUTH, HEIGHT_M, yaw, pitch_deg=4.0, roll_deg=-2.0)
    right_m, forward_m = sight_offset_m(4.0, -2.0, HEIGHT_M)
    angle = math.radians(yaw)
    east = right_m * math.cos(angle) + forward_m * math.sin(angle)
    north = forward_m * math.cos(angle) - right_m * math.sin(angle)
    fixes = evaluated(pose(east + 3.0, north - 4.0, heading=yaw), truth=truth)
    assert score(fixes, "fix_ground_error_median").value == pytest.approx(5.0, abs=1e-3)
    assert fixes.line_of_sight.all() and fixes.right.all()


@pytest.mark.parametrize(
    ("truth", "camera"),
    [
        (replace(LEVEL, pitch_deg=None), CAMERA),
        (replace(LEVEL, altitude_label_m=None), CAMERA),
        (replace(LEVEL, altitude_label_m=376.0 + HEIGHT_M), CAMERA),  # above sea
        (LEVEL, Camera(WIDTH_M)),
        (LEVEL, Camera(WIDTH_M, FOV_DEG, stabilised=True)),
    ],
)
def test_without_a_line_of_sight_the_ground_error_holds_the_lever_and_claims_no_coverage(truth: Pose, camera: Camera):
    assert ground_truth(truth, CONDITIONS, camera) is None
    fixes = evaluated(pose(0, 26.0), truth=truth, camera=camera)
    assert score(fixes, "fix_ground_error_median").value == pytest.approx(26.0, abs=1e-3)
    assert score(fixes, "fix_ground_coverage@95").n == 0 and score(fixes, "fix_ground_nees").n == 0
    assert fixes.right.all() and not fixes.line_of_sight.any()  # a tilt of 5° is no other place


# --- what is right --------------------------------------------------------------------------------


def test_a_match_is_right_within_a_twentieth_of_the_footprint_whatever_it_claims():
    huge = replace(pose(21.0, 0.0), ground_covariance_m2=Covariance(1e6, 0.0, 1e6))
    fixes = evaluated(pose(19.9, 0.0), pose(20.1, 0.0), huge, no_match())
    assert fixes.right.tolist() == [True, False, False, False]
    assert evaluated(pose(20.1, 0.0), truth_sd_m=3.0).right.all()  # the truth may be that far off


def test_a_frame_off_the_map_can_only_be_matched_wrongly():
    fixes = evaluated(pose(0, 1), pose(900, 0), no_match(), on_map=[True, False, False])
    assert score(fixes, "fix_off_map_matches").value == 0.5
    assert score(fixes, "fix_wrong_matches").value == 0.5
    assert score(fixes, "fix_right").value == 1.0 and score(fixes, "fix_right").n == 1


def test_frames_that_were_not_looked_for_or_have_no_truth_are_left_out():
    assert len(evaluated(pose(0, 0), NotVerified("the files are gone"))) == 1
    assert len(evaluated(pose(0, 0), truth=Pose())) == 0
    empty = evaluated()
    assert all(math.isnan(row.evaluate(empty).value) and row.evaluate(empty).n == 0 for row in FIX_SCORES)
    assert reliability(empty) == [] and not len(precision_recall(empty).recall)


def test_errors_within_a_distance_count_frames_without_a_match_as_outside():
    fixes = evaluated(pose(0, 0.5), pose(0, 4.0), no_match(), pose(0, 300.0))
    assert [score(fixes, f"fix_ground_within@{d}").value for d in (1, 5, 25)] == [0.25, 0.5, 0.5]
    assert score(fixes, "fix_ground_error_median").n == 3 and score(fixes, "fix_match").value == 0.75
    assert error_distribution(fixes, "ground")[1000].value == 0.75
    assert score(fixes, "fix_heading_error_median").n == 2  # of right places


def test_without_a_field_of_view_nothing_is_said_of_the_aircraft():
    unknown = replace(pose(0, 1), aircraft=None, aircraft_covariance_m2=None)
    fixes = evaluated(unknown, no_match(), camera=Camera(WIDTH_M))
    assert all(score(fixes, key).n == 0 for key in FIX_SCORES_BY_KEY if "aircraft" in key)


# --- probability ----------------------------------------------------------------------------------


def mixed(seed: int = 3, n: int = 400) -> EvaluatedFixes:
    """Matches right as often as they say, frames without a match, and frames off the map."""
    rng = np.random.default_rng(seed)
    probability = rng.uniform(0, 1, n)
    right = rng.uniform(0, 1, n) < probability
    answers = [
        no_match(p) if p < 0.5 else pose(0.0 if good else 900.0, 1.0, probability=p)
        for p, good in zip(probability, right, strict=True)
    ]
    return evaluated(*answers, on_map=[bool(good) or i % 2 == 0 for i, good in enumerate(right)])


def test_precision_and_recall_are_counted_over_every_threshold_of_a_match():
    fixes = mixed()
    curve = precision_recall(fixes)
    assert curve.threshold.min() >= 0.5 and len(curve.threshold) == fixes.match.sum()
    for threshold, precision, recall in zip(*curve, strict=True):
        accepted = fixes.probability >= threshold
        assert precision == pytest.approx(fixes.right[accepted].mean())
        assert recall == pytest.approx(fixes.right[accepted].sum() / fixes.on_map.sum())
    full = max(recall for precision, recall in zip(curve.precision, curve.recall, strict=True) if precision == 1.0)
    assert score(fixes, "fix_probability_full_precision").value == pytest.approx(full)
    share_right = fixes.right.sum() / fixes.on_map.sum()
    assert score(fixes, "fix_probability_area").value == pytest.approx(
        average_precision_score(fixes.right, fixes.probability) * share_right
    )


def test_the_reliability_of_the_probability_is_counted_in_its_bins():
    fixes = mixed()
    known = fixes.match | ~fixes.on_map
    bins = reliability(fixes)
    assert sum(b.right.n for b in bins) == known.sum()
    gap = 0.0
    for b in bins:
        inside = known & (fixes.probability > b.low) & (fixes.probability <= b.high)
        assert b.right.value == pytest.approx(fixes.right[inside].mean())
        assert b.mean_probability == pytest.approx(fixes.probability[inside].mean())
        gap += abs(fixes.right[inside].mean() - fixes.probability[inside].mean()) * inside.sum() / known.sum()
    assert score(fixes, "fix_calibration_error").value == pytest.approx(gap)
    assert score(fixes, "fix_brier").value == pytest.approx(
        brier_score_loss(fixes.right[known], fixes.probability[known])
    )


def test_a_probability_that_says_what_happens_is_reliable_and_one_that_boasts_is_not():
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 20_000)
    honest = np.stack([p, rng.uniform(0, 1, len(p)) < p], axis=1)[None]
    boasting = np.stack([np.sqrt(p), honest[0, :, 1]], axis=1)[None]
    assert calibration_error(honest)[0] < 0.02 and calibration_error(boasting)[0] > 0.14


# --- intervals ------------------------------------------------------------------------------------


@given(n=st.integers(1, 300), events=st.integers(0, 300))
def test_the_upper_bound_of_a_share_is_clopper_and_pearsons(n: int, events: int):
    events = min(n, events)
    bound = share_upper_bound(np.array([1.0] * events + [0.0] * (n - events)))
    expected = 1.0 if events == n else stats.beta.ppf(0.95, events + 1, n - events)
    assert bound.high == pytest.approx(expected, abs=1e-9) and bound.value == pytest.approx(events / n)


def test_none_wrong_in_n_is_not_none_wrong():
    assert share_upper_bound(np.zeros(45)).high == pytest.approx(0.0644, abs=1e-4)
    assert share_upper_bound(np.zeros(45), 3.0).high == pytest.approx(1 - 0.05 ** (1 / 15))  # 15 independent frames
    assert math.isnan(share_upper_bound(np.zeros(0)).high)


@settings(max_examples=20)  # each sums thousands of terms for both its ends
@given(n=st.integers(1, 2000))
def test_the_region_of_nees_is_chi_squares(n: int):
    assert mean_square_region(n + 0.4) == pytest.approx(stats.chi2.ppf([0.025, 0.975], 2 * n) / n, rel=1e-6)


def test_the_region_of_nees_is_unknown_without_frames():
    assert all(math.isnan(end) for end in (*mean_square_region(0.0), *mean_square_region(math.nan)))


def test_a_share_of_values_on_one_side_of_a_limit_has_an_interval():
    values = np.random.default_rng(2).exponential(1.0, 200)
    share = share_below(values, limit=100.0)
    assert (share.value, share.high) == (1.0, 1.0) and 0.97 < share.low < 1.0
    assert math.isnan(share_below(values[:20], limit=100.0).low)  # fewer than 30
    assert share_below(np.array([1.0, np.inf, np.nan, 3.0]), limit=2.0).value == pytest.approx(1 / 3)
