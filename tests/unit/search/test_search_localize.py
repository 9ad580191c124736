"""Hits merged by place, the estimate, and how many backbones agree."""

from __future__ import annotations

import numpy as np
import pytest
from search.localize import agreement, candidates, estimate, ranked, stride_m

from coarseloc import geo
from coarseloc.types import Hit, LonLat, Pose, TileFacts

HERE = LonLat(127.03, 37.50)


def hit(rank, place, angle, score, east_m=0.0):
    centre = geo.offset(HERE, east_m, 0.0) if east_m else HERE
    tile = TileFacts("p", "set", "set/00001", place, angle, 300.0, 0.5, centre, geo.square(centre, 300.0))
    return Hit(rank, score, tile, "path", "file")


def test_hits_of_a_place_become_one_candidate_with_its_best_angle():
    places = candidates([hit(2, "A", 45, 0.98), hit(1, "A", 0, 0.99), hit(3, "B", 90, 0.97), hit(4, "A", 90, 0.96)])
    assert [(c.place_id, c.angle_deg, c.score, c.rank) for c in places] == [("A", 0, 0.99, 1), ("B", 90, 0.97, 3)]


def test_the_estimate_is_the_best_place_and_its_margin_over_the_second_place():
    found = estimate(candidates([hit(1, "A", 315, 0.99), hit(2, "A", 0, 0.985), hit(3, "B", 90, 0.97)]))
    assert (found.place_id, found.heading_deg, found.location) == ("A", 315, HERE)
    assert found.margin == pytest.approx(0.02)


def test_one_place_alone_has_no_margin_and_no_hits_no_estimate():
    assert estimate(candidates([hit(1, "A", 0, 0.99)])).margin is None
    assert estimate([]) is None


def test_agreement_counts_the_backbones_within_the_distance():
    at = [estimate(candidates([hit(1, "A", 0, 0.9, east_m)])) for east_m in (0.0, 90.0, 160.0)]
    assert agreement([*at, None], within_m=100.0) == [2, 3, 2, 0]
    assert agreement([], within_m=100.0) == []


def test_the_stride_of_half_overlapping_tiles_is_half_a_footprint():
    assert stride_m(300.0, 0.5) == 150.0
    assert stride_m(None, 0.5) == 100.0


def test_frames_become_arrays_filled_up_with_nan():
    found = ranked(
        [
            (Pose(HERE, yaw_deg=10.0), candidates([hit(1, "A", 45, 0.9), hit(2, "B", 90, 0.8, 100.0)])),
            (Pose(), candidates([hit(1, "A", 45, 0.9)])),
            (Pose(HERE), []),
        ]
    )
    assert found.score.shape == (3, 2) and found.bbox.shape == (3, 2, 4)
    np.testing.assert_array_equal(found.score, [[0.9, 0.8], [0.9, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.truth_heading_deg, [10.0, np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(found.truth_lon), [False, True, False])
    assert ranked([]).score.shape == (0, 0)
