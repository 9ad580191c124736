"""Hits merged by place, the estimate, and how many backbones agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core import geo
from coarseloc.core.types import Estimate, LonLat, Pose, RankedTile, TileFacts
from coarseloc.localize.localizer import depth
from coarseloc.localize.places import (
    Agreement,
    agreement_distance_m,
    agreement_matrix,
    agreements,
    best_place,
    hits_of_first_places,
    places_of,
    ranked_places,
)

HERE = LonLat(127.03, 37.50)


def hit(rank, place, angle, score, east_m=0.0):
    centre = geo.offset(HERE, east_m, 0.0) if east_m else HERE
    tile = TileFacts("p", "set", "set/00001", place, angle, 300.0, 0.5, centre, geo.square(centre, 300.0))
    return RankedTile(rank, score, tile, "path", "digest", rank)


def test_hits_of_a_place_become_one_place_with_its_best_angle():
    places = places_of([hit(2, "A", 45, 0.98), hit(1, "A", 0, 0.99), hit(3, "B", 90, 0.97), hit(4, "A", 90, 0.96)])
    assert [(p.place_id, p.tile.angle_deg, p.score, p.rank) for p in places] == [("A", 0, 0.99, 1), ("B", 90, 0.97, 3)]


def test_the_estimate_is_the_best_place_and_its_margin_over_the_second_place():
    found = best_place([hit(1, "A", 315, 0.99), hit(2, "A", 0, 0.985), hit(3, "B", 90, 0.97)])
    assert (found.place_id, found.heading_deg, found.location) == ("A", 315, HERE)
    assert found.margin == pytest.approx(0.02) and not found.margin_at_least


def test_of_one_place_the_margin_is_at_least_what_its_last_hit_leaves():
    found = best_place([hit(1, "A", 315, 0.99), hit(2, "A", 0, 0.97)])
    assert found.margin == pytest.approx(0.02) and found.margin_at_least


def test_one_hit_alone_has_no_margin_and_no_hits_no_estimate():
    assert best_place([hit(1, "A", 0, 0.99)]).margin is None
    assert best_place([]) is None


def test_hits_are_taken_until_k_places_are_reached_and_never_fewer_than_k():
    ranking = [hit(1, "A", 0, 0.99), hit(2, "A", 45, 0.98), hit(3, "B", 0, 0.97), hit(4, "B", 45, 0.96)]
    ranking += [hit(5, "C", 0, 0.95), hit(6, "D", 0, 0.94)]
    assert [len(hits_of_first_places(ranking, k)) for k in (1, 2, 3, 4, 5)] == [1, 3, 5, 6, 6]
    assert [depth(k, headings) for k, headings in ((10, 8), (10, 1), (10, 30), (1000, 8))] == [80, 10, 80, 2000]


# --- agreement ------------------------------------------------------------------------------------


def at(east_m, north_m=0.0, origin=HERE):
    return Estimate(geo.offset(origin, east_m, north_m), 0.0, 0.9, None)


def test_agreement_counts_the_backbones_within_the_distance():
    estimates = [at(0.0), at(90.0), at(160.0)]
    assert [one.backbones for one in agreements(estimates, within_m=100.0)] == [2, 3, 2]
    assert agreements([], within_m=100.0) == []


def test_with_one_backbone_there_is_nothing_to_agree_with():
    assert math.isnan(Agreement(1, 1, 100.0).share)
    assert Agreement(2, 3, 100.0).share == 0.5


@given(st.floats(-80, 80), st.floats(0, 360), st.sampled_from([60.0, 200.0, 1500.0]))
def test_neighbours_agree_in_every_direction_of_the_compass(lat, heading, stride):
    """A northern neighbour never did: 200 m on the ellipsoid are 200.37 m on the mean sphere."""
    origin = LonLat(127.0, lat)
    east, north = math.sin(math.radians(heading)), math.cos(math.radians(heading))
    within_m = agreement_distance_m(2 * stride, 0.5)
    assert agreement_matrix([at(0, 0, origin), at(stride * east, stride * north, origin)], within_m)[0, 1]
    assert not agreement_matrix([at(0, 0, origin), at(1.1 * stride * east, 1.1 * stride * north, origin)], within_m)[
        0, 1
    ]


def test_estimates_agree_within_a_stride_and_a_twentieth():
    assert agreement_distance_m(300.0, 0.5) == pytest.approx(157.5)
    assert agreement_distance_m(None, 0.5) == 100.0


def test_frames_become_arrays_filled_up_with_nan():
    two, one = [hit(1, "A", 45, 0.9), hit(2, "B", 90, 0.8, 100.0)], [hit(1, "A", 45, 0.9)]
    found = ranked_places(
        [
            (Pose(HERE, yaw_deg=10.0), best_place(two), places_of(two)),
            (Pose(), best_place(one), places_of(one)),
            (Pose(HERE), None, []),
        ]
    )
    assert found.score.shape == (3, 2) and found.bbox.shape == (3, 2, 4)
    np.testing.assert_array_equal(found.score, [[0.9, 0.8], [0.9, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.truth_heading_deg, [10.0, np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(found.truth_lon), [False, True, False])
    assert ranked_places([]).score.shape == (0, 0)


def test_the_first_column_is_the_estimate_wherever_its_method_puts_it():
    hits = [hit(1, "A", 45, 0.9), hit(2, "B", 90, 0.8, 100.0)]
    moved = Estimate(geo.offset(HERE, 7.0, 0.0), 51.5, 0.7, 0.1, tile=hits[0].tile)
    found = ranked_places([(Pose(HERE), moved, places_of(hits))])
    assert (found.lon[0, 0], found.heading_deg[0, 0], found.score[0, 0]) == (moved.location.lon, 51.5, 0.7)
    assert found.lon[0, 1] == hits[1].tile.center.lon
