"""Which reference is right for which frame, on places laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coarseloc.core import geo
from coarseloc.core.types import LonLat
from search.evaluation.studies.ground_truth import GroundTruth
from search.evaluation.studies.strategies import (
    EvaluatedStrategy,
    evaluate_strategy,
    gain_sign,
    gain_text,
    recall_text,
    to_json,
    with_gains,
)


@pytest.mark.parametrize("lon", [127.03, 179.9995, -180.0])
def test_a_reference_is_right_within_half_a_footprint_either_way(lon: float) -> None:
    """Across the antimeridian too: the same layout gives the same truth wherever it lies."""
    frame = LonLat(lon, -17.0)
    references = [geo.offset(frame, east, north) for east, north in [(0, 0), (140, -140), (160, 0), (0, -160)]]
    truth = GroundTruth.of_places([frame, references[2]], references, half_m=150.0)
    assert truth.right.tolist() == [[True, True, False, False], [False, True, True, False]]
    assert truth.error_m[0] == pytest.approx(
        [0, np.hypot(140, 140), 160, 160], rel=6e-3, abs=1e-6
    )  # ellipsoid against sphere


def test_pictures_are_right_for_themselves_alone() -> None:
    truth = GroundTruth.of_pictures(2, 3)
    assert truth.right.tolist() == [[True, False, False], [False, True, False]] and np.isnan(truth.error_m).all()
    places = [LonLat(0.0, 0.0), LonLat(0.0, 1.0), LonLat(1.0, 0.0)]
    assert GroundTruth.of_pictures(2, 3, places).error_m.shape == (2, 3)


def test_answers_are_looked_up_for_each_view_of_a_frame() -> None:
    truth = GroundTruth(np.array([[True, False], [False, True]]), np.array([[1.0, 9.0], [8.0, 2.0]]))
    right, error_m = truth.evaluate(np.array([[0, 1, 1], [1, 1, 0]]))
    assert right.tolist() == [[True, False, False], [True, True, False]]
    assert error_m.tolist() == [[1, 9, 9], [2, 2, 8]]


def strategies_of(frames: int, better_in: int) -> dict[str, dict[str, object]]:
    """The baseline is right in half the frames, the other strategy in `better_in` more."""
    truth = GroundTruth(np.tile([True, False], (frames, 1)), np.tile([1.0, 9.0], (frames, 1)))

    def strategy(name: str, right: int) -> EvaluatedStrategy:
        answers = (np.arange(frames) >= right).astype(np.int64)[:, None]
        return evaluate_strategy(name, truth, answers, embed_ms=1.0, search_ms=1.0, index_bytes=8)

    strategies = with_gains([strategy("usual", frames // 2), strategy("other", frames // 2 + better_in)], "usual")
    return {str(told["name"]): told for told in to_json({"plain": strategies})["plain"]}


def test_a_way_finds_more_only_where_enough_frames_differ() -> None:
    assert [gain_sign(strategies_of(40, better)["other"]) for better in (0, 3, 8)] == [0, 0, 1]
    assert recall_text(strategies_of(40, 8)["usual"]) == "50.0% [35.2%, 64.8%]"


def test_of_too_few_frames_a_way_says_n_eff_and_no_interval_and_beats_none() -> None:
    told = strategies_of(20, 8)
    assert (recall_text(told["other"]), gain_text(told["other"])) == ("90.0% (n_eff 20)", "+40.0")
    assert (gain_text(told["usual"]), gain_sign(told["other"])) == ("–", 0)
    earlier = {key: value for key, value in told["other"].items() if key != "n_eff"}
    assert recall_text(earlier) == "90.0%"


def test_pictures_that_follow_each_other_are_worth_fewer_than_places_drawn_at_random() -> None:
    answers = np.repeat([0, 1, 0, 1], 10)[:, None]
    rows = np.tile([True, False], (40, 1))
    n_eff = [
        evaluate_strategy(
            "w", GroundTruth(rows, np.ones((40, 2)), length), answers, embed_ms=1, search_ms=1, index_bytes=8
        ).strategy.n_eff
        for length in (None, GroundTruth.of_pictures(2, 3).correlation)
    ]
    assert n_eff[0] == 40 and n_eff[1] < 20
