"""Figures of single frames, on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coarseloc.core.geo import EARTH_RADIUS_M
from coarseloc.localize import metrics
from coarseloc.localize.metrics import RankedPlaces

DEGREE_M = math.radians(1) * EARTH_RADIUS_M  # along a meridian, or the equator
NAN = math.nan


def ranked(places, truth, headings=None, scores=None, half=0.5):
    """`places` [F][K] of (lon, lat) and `truth` [F] of (lon, lat, heading); footprints of 2 x `half` degrees."""
    places = np.array(places, float)
    truth = np.array(truth, float)
    lon, lat = places[..., 0], places[..., 1]
    return RankedPlaces(
        lon,
        lat,
        np.zeros_like(lon) if headings is None else np.array(headings, float),
        np.zeros_like(lon) if scores is None else np.array(scores, float),
        np.stack([lon - half, lat - half, lon + half, lat + half], axis=-1),
        *truth.T,
    )


def test_errors_on_the_equator_are_degrees_times_their_length():
    places = ranked([[(3, 0), (1, 0)], [(0, 2), (0, 5)]], [(0, 0, 0), (0, 0, 0)])
    assert metrics.error_m(places) == pytest.approx([3 * DEGREE_M, 2 * DEGREE_M])
    assert metrics.best_error_m(places) == pytest.approx([1 * DEGREE_M, 2 * DEGREE_M])


def test_a_frame_without_truth_or_without_hits_says_nothing():
    places = ranked(
        [[(3, 0), (1, 0)], [(NAN, NAN), (NAN, NAN)], [(2, 0), (NAN, NAN)]], [(NAN,) * 3, (0, 0, 0), (0, 0, 0)]
    )
    assert np.isnan(metrics.error_m(places)).tolist() == [True, True, False]
    assert np.isnan(metrics.best_error_m(places)).tolist() == [True, True, False]
    assert np.isnan(metrics.heading_error_deg(places)).tolist() == [True, True, True]


def test_heading_is_scored_the_short_way_round_and_only_where_the_place_is_right():
    places = [[(0, 0)], [(0, 0)], [(9, 0)]]
    places = ranked(places, [(0.4, 0.4, 10), (0, 0, NAN), (0, 0, 10)], headings=[[350], [0], [10]])
    assert metrics.heading_error_deg(places) == pytest.approx([20, NAN, NAN], nan_ok=True)


def test_a_footprint_across_the_antimeridian_holds_what_lies_in_it():
    places = ranked([[(180, 0)], [(180, 0)], [(180, 0)]], [(-179.8, 0, 0), (179.8, 0, 0), (-179.0, 0, 0)])
    bbox = places.bbox.copy()
    bbox[..., 2] -= 360  # east of the box as files give it: -179.5
    crossing = RankedPlaces(
        places.lon,
        places.lat,
        places.heading_deg,
        places.score,
        bbox,
        *np.array([[-179.8, 179.8, -179.0], [0, 0, 0], [0, 0, 0]], float),
    )
    assert metrics.inside_footprints(crossing)[:, 0].tolist() == [True, True, False]


@pytest.mark.parametrize("figure", [metrics.error_m, metrics.best_error_m, metrics.heading_error_deg])
def test_every_figure_is_one_number_a_frame_even_where_nothing_was_found(figure):
    assert figure(ranked([[(0, 0), (1, 1)]] * 3, [(0, 0, 0)] * 3)).shape == (3,)
    assert figure(ranked(np.empty((2, 0, 2)), [(0, 0, 0)] * 2)).shape == (2,)


def test_of_a_few_first_places_the_nearest_counts():
    places = ranked([[(3, 0), (2, 0), (1, 0)]], [(0, 0, 0)])
    assert metrics.best_error_m(places, k=2) == pytest.approx([2 * DEGREE_M])


def test_the_map_covers_what_some_footprint_holds_and_its_nearest_centre_is_told():
    places = np.array([[0, 0, -0.5, -0.5, 0.5, 0.5], [179.9, 0, 179.4, -0.5, -179.6, 0.5]], float)
    inside, nearest = metrics.map_coverage(np.array([0.4, -179.7, 90.0]), np.array([0.4, 0.0, 0.0]), places)
    assert inside.tolist() == [True, True, False]
    assert nearest[1] == pytest.approx(0.4 * DEGREE_M) and nearest[2] == pytest.approx(89.9 * DEGREE_M)
    assert metrics.map_coverage(np.array([0.0]), np.array([0.0]), np.zeros((0, 6)))[1].tolist() == [np.inf]


def test_a_verdict_is_on_where_the_footprint_holds_the_truth_and_near_within_a_side():
    assert [metrics.verdict(*facts) for facts in ((True, 300, 400), (False, 300, 300), (False, 300, 301))] == [
        "on",
        "near",
        "far",
    ]
