"""Every metric on cases worked out by hand, and against independent libraries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, top_k_accuracy_score

from coarseloc.core import geo
from coarseloc.core.types import Frame, LonLat, Pose, RankedTile, Tile, TileFacts
from coarseloc.localize.places import Agreement, best_place
from coarseloc.store.runs import FrameResult
from search.answers import FrameAnswer, frame_errors
from search.evaluation import rejection
from search.evaluation.evaluate import evaluate_frames
from search.evaluation.evaluated_frames import EvaluatedFrames
from search.evaluation.intervals import share
from search.evaluation.scores import BY_KEY, SCORES, ceiling, hit_centre, hit_curve, pdm, sdm

TRUTH = LonLat(127.03, 37.5)
SIDE = 300.0
MAP = (Tile(1, TRUTH, geo.square(TRUTH, SIDE)),)
FAR_FROM_IT = LonLat(128.0, 37.5)


def placed(centre: LonLat, angle: int = 0, score: float = 0.9, truth: LonLat = TRUTH) -> RankedTile:
    place = f"{centre.lon:.7f}/{centre.lat:.7f}"
    tile = TileFacts("", "set", place, place, angle, 300.0, 0.5, centre, geo.square(centre, SIDE))
    return RankedTile(0, score, tile, None, "", 0)


def at(east_m: float, north_m: float = 0.0, angle: int = 0, score: float = 0.9) -> RankedTile:
    """A hit whose centre lies so far from the truth."""
    return placed(geo.offset(TRUTH, east_m, north_m), angle, score)


def frame(*hits: RankedTile, yaw: float | None = 0.0, truth: LonLat | None = TRUTH) -> FrameResult:
    ranked = tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, 1))
    flight_frame = Frame(0, Path("frame.jpg"), "frame.jpg", Pose(location=truth, yaw_deg=yaw))
    return FrameResult(flight_frame, None, ranked, None, best_place(ranked), None)


def evaluated_frames(
    *frames: FrameResult, stride: float = 150.0, agreement: Sequence[float] = (), tiles: Sequence[Tile] = MAP
) -> EvaluatedFrames:
    numbered = [replace(result, frame=replace(result.frame, index=i)) for i, result in enumerate(frames)]
    places = np.array([(*tile.center, *tile.bbox) for tile in tiles]).reshape(-1, 6)
    shares = [Agreement(1 + round(100 * share), 101, 1.0) for share in agreement] or [None] * len(frames)
    answers = [
        FrameAnswer(result, vote, error)
        for result, vote, error in zip(numbered, shares, frame_errors(numbered, places), strict=True)
    ]
    return evaluate_frames(answers, k=10, stride_m=stride)


def of(key: str, *frames: FrameResult, **facts: Any) -> float:
    return BY_KEY[key].evaluate(evaluated_frames(*frames, **facts)).value


# Top-1 errors 0, 100 and 1000 m.
THREE = (frame(at(0), at(500)), frame(at(100), at(20)), frame(at(1000), at(0, 90)))


def test_errors_are_great_circle_metres_of_the_best_candidate() -> None:
    assert of("error_median", *THREE) == pytest.approx(100, rel=3e-3)
    assert of("error_mean", *THREE) == pytest.approx((0 + 100 + 1000) / 3, rel=3e-3)
    assert of("error_p90", *THREE) == pytest.approx(100 + 0.8 * 900, rel=3e-3)  # position 0.9 x 2 of 0, 100, 1000


def test_the_best_of_ten_is_the_nearest_candidate_whatever_its_rank() -> None:
    assert of("best10_error_mean", *THREE) == pytest.approx((0 + 20 + 90) / 3, rel=3e-3)


def test_rotations_of_one_place_are_one_candidate() -> None:
    """Ranks 1 and 2 are one place at two headings: the second place is the second candidate."""
    ranking = evaluated_frames(frame(at(400, angle=0), at(400, angle=45), at(10)))
    assert ranking.ranked.lon.shape == (1, 2)
    assert hit_centre(ranking, 2, 50.0)[0] == 1.0
    assert hit_centre(ranking, 1, 50.0)[0] == 0.0


def test_the_three_definitions_of_a_hit_differ() -> None:
    """100 m east of the truth, side 300, stride 150: beyond half a stride (75), inside the footprint (150);
    IoU = 200 x 300 / (2 x 300² - 200 x 300) = 0.5. At 140 m: still inside, IoU = 48,000 / 132,000 = 0.364."""
    near, far = frame(at(100)), frame(at(140))
    assert [of(f"hit_{name}@1", near) for name in ("centre", "footprint", "overlap")] == [0, 1, 1]
    assert [of(f"hit_{name}@1", far) for name in ("centre", "footprint", "overlap")] == [0, 1, 0]
    assert evaluated_frames(near).iou()[0, 0] == pytest.approx(0.5, abs=1e-3)
    assert of("hit_footprint@1", frame(at(160))) == 0
    assert of("hit_centre@1", frame(at(74))) == 1


def test_the_hit_curve_counts_frames_within_each_distance() -> None:
    ranking = evaluated_frames(frame(at(5), at(15)), frame(at(55), at(25)), frame(at(500), at(95)))
    top1, top10 = hit_curve(ranking, 1), hit_curve(ranking, 10)
    assert [round(top1[d].value * 3) for d in (10, 20, 50, 60, 100)] == [1, 1, 1, 2, 2]
    assert [round(top10[d].value * 3) for d in (10, 20, 30, 90, 100)] == [1, 1, 2, 2, 3]
    assert top1[10].n == 3


def test_the_ceiling_says_what_the_grid_allows() -> None:
    tiles = [
        Tile(i, c, geo.square(c, SIDE)) for i, c in enumerate((geo.offset(TRUTH, 15, 0), geo.offset(TRUTH, 200, 0)))
    ]
    beside = frame(at(0), truth=geo.offset(TRUTH, 155, 0))  # 45 m from the second centre
    estimate = ceiling(evaluated_frames(frame(at(0)), beside, tiles=tiles))
    assert [estimate[d] for d in (10, 20, 50)] == [0, 0.5, 1]


def test_ma_counts_top1_errors_below_d() -> None:
    frames = [frame(at(10)), frame(at(30)), frame(at(60)), frame(at(400))]
    assert [of(f"ma@{d}", *frames) for d in (20, 50, 100)] == [0.25, 0.5, 0.75]


def test_sdm_weighs_degrees_by_rank() -> None:
    """Two candidates 1e-4 and 2e-4 degrees north: (2 e^-0.5 + 1 e^-1) / 3."""
    north = geo.metres_per_degree(TRUTH.lat)[1]
    ranking = evaluated_frames(frame(at(0, 1e-4 * north), at(0, 2e-4 * north)))
    assert sdm(ranking, 1)[0] == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert sdm(ranking, 3)[0] == pytest.approx((2 * math.exp(-0.5) + math.exp(-1)) / 3, rel=1e-4)


def test_pdm_is_half_at_nine_tenths_of_a_side() -> None:
    ranking = evaluated_frames(frame(at(270), at(0)))
    first, second = 0.5, 1 / (1 + math.exp(-5.4))
    assert pdm(ranking, 1)[0] == pytest.approx(first, abs=0.02)
    assert pdm(ranking, 5)[0] == pytest.approx((2 * first + second) / 3, abs=0.02)


def test_a_heading_counts_only_where_the_place_is_right() -> None:
    frames = [frame(at(0, angle=350), yaw=10.0), frame(at(900, angle=180), yaw=0.0), frame(at(0), yaw=None)]
    estimate = BY_KEY["heading_error_mean"].evaluate(evaluated_frames(*frames))
    assert (estimate.value, estimate.n) == (pytest.approx(20.0), 1)
    assert of("heading_right", *frames) == 1.0


def test_frames_off_the_map_are_no_part_of_place_metrics_but_of_rejection() -> None:
    """Margins 0.3 (right), 0.2 (off the map, so wrong), 0.1 (right): precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""

    def sure(by: float, truth: LonLat = TRUTH) -> FrameResult:
        return frame(at(0, score=0.9), at(500, score=0.9 - by), truth=truth)

    frames = [sure(0.3), sure(0.2, FAR_FROM_IT), sure(0.1)]
    assert BY_KEY["error_mean"].evaluate(evaluated_frames(*frames)).n == 2
    assert of("margin_area", *frames) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert of("margin_full_precision", *frames) == pytest.approx(0.5)
    assert BY_KEY["margin_area"].evaluate(evaluated_frames(*frames)).n == 3


def test_agreement_is_a_confidence_of_its_own_and_absent_with_one_backbone() -> None:
    assert of("agreement_area", *THREE, agreement=[1.0, 0.5, 0.0]) == pytest.approx(2 / 3)
    assert BY_KEY["agreement_area"].evaluate(evaluated_frames(*THREE)).n == 0


def test_nothing_with_truth_gives_nan_and_n_zero() -> None:
    for score in SCORES:
        estimate = score.evaluate(evaluated_frames())
        assert math.isnan(estimate.value) and estimate.n == 0, score.key


def test_an_unknown_stride_leaves_only_its_own_metric_out() -> None:
    ranking = evaluated_frames(*THREE, stride=math.nan)
    assert BY_KEY["hit_centre@1"].evaluate(ranking).n == 0
    assert BY_KEY["hit_footprint@1"].evaluate(ranking).n == 3


def test_keys_are_unique_and_each_row_says_its_unit_and_direction() -> None:
    assert len(BY_KEY) == len(SCORES)
    assert {score.unit for score in SCORES} == {"m", "%", "°", ""}
    assert {score.better for score in SCORES} == {"higher", "lower"}


# --- against other libraries --------------------------------------------------------------------


def test_recall_at_k_equals_scikit_learns_top_k_accuracy() -> None:
    """Each place is a class: a frame's truth is place j, its scores rank the classes."""
    rng = np.random.default_rng(1)
    places = [LonLat(127.0 + 0.01 * i, 37.5) for i in range(12)]
    scores, truths = rng.random((40, 12)), rng.integers(0, 12, 40)
    frames = [
        frame(*(placed(places[j], score=float(row[j])) for j in np.argsort(-row)), truth=places[truth])
        for row, truth in zip(scores, truths, strict=True)
    ]
    ranking = evaluated_frames(*frames, tiles=[Tile(i, c, geo.square(c, SIDE)) for i, c in enumerate(places)])
    for k in (1, 5, 10):
        ours = share(hit_centre(ranking, k)).value
        assert ours == pytest.approx(top_k_accuracy_score(truths, scores, k=k))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_scikit_learns_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.6
    answers = rejection.sample(confidence, right, right)  # recall per right answer is scikit-learn's definition
    assert rejection.area(answers[None])[0] == pytest.approx(average_precision_score(right, confidence))
    precision, recall, thresholds = precision_recall_curve(right, confidence)
    ours = rejection.curve(answers)
    np.testing.assert_allclose(ours.precision[::-1], precision[:-1])
    np.testing.assert_allclose(ours.recall[::-1], recall[:-1])
    np.testing.assert_allclose(ours.threshold[::-1], thresholds)


def test_recall_at_full_precision_of_any_flight_has_no_interval() -> None:
    ranking = flight(200, 0.8)
    ranking = replace(ranking, margin=np.random.default_rng(0).random(200))
    area, full = (BY_KEY[f"margin_{name}"].evaluate(ranking) for name in ("area", "full_precision"))
    assert area.low < area.value < area.high and area.n_eff == full.n_eff > 100
    assert 0 < full.value < 1 and math.isnan(full.low) and math.isnan(full.high)


def test_full_precision_is_lost_by_a_tie_with_a_wrong_answer() -> None:
    answers = rejection.sample(np.array([0.9, 0.8, 0.8]), np.array([True, True, False]), np.ones(3, bool))
    assert rejection.recall_at_full_precision(answers[None])[0] == pytest.approx(1 / 3)


def flight(places: int, share: float, frames_each: int = 1) -> EvaluatedFrames:
    """A flight over places that are found, 10 to 60 m off, or not, a kilometre or two off."""
    rng = np.random.default_rng(5)
    near, far = rng.uniform(10, 60, places), rng.uniform(1000, 2000, places)
    errors = np.where(rng.random(places) < share, near, far)
    return evaluated_frames(*(frame(at(float(error))) for error in np.repeat(errors, frames_each)))


def test_a_flight_that_hovers_tells_no_more_than_one_that_passes() -> None:
    """200 frames of 25 places are worth about 25, whatever the score."""
    passing, hovering = flight(200, 0.8), flight(25, 0.8, frames_each=8)
    for key in ("hit_footprint@1", "error_median", "error_mean", "pdm@5"):
        brief, long = BY_KEY[key].evaluate(passing), BY_KEY[key].evaluate(hovering)
        assert brief.n == long.n == 200, key
        assert brief.n_eff > 100 and not math.isnan(brief.low), key
        assert long.n_eff < 30 and math.isnan(long.low) and math.isnan(long.high), key


def test_a_flight_without_a_wrong_frame_tells_its_median_error_but_not_what_wrong_ones_decide() -> None:
    faultless = flight(100, 1.0)
    assert BY_KEY["error_median"].evaluate(faultless).low > 10
    for key in ("hit_footprint@1", "error_mean", "error_p90", "pdm@5", "margin_area"):
        estimate = BY_KEY[key].evaluate(faultless)
        assert math.isnan(estimate.low) and math.isnan(estimate.n_eff), key


def test_a_ranking_of_few_frames_is_cut_by_a_mask() -> None:
    ranking: EvaluatedFrames = evaluated_frames(*THREE)
    assert len(ranking.select(np.array([True, False, True]))) == 2
