"""The table of metrics, on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.geo import EARTH_RADIUS_M
from coarseloc.scoring import metrics
from coarseloc.scoring.metrics import METRICS, Ranked, summarize

DEGREE_M = math.radians(1) * EARTH_RADIUS_M  # along a meridian, or the equator
NAN = math.nan


def ranked(places, truth, headings=None, scores=None, half=0.5):
    """`places` [F][K] of (lon, lat) and `truth` [F] of (lon, lat, heading); footprints of 2 x `half` degrees."""
    places = np.array(places, float)
    truth = np.array(truth, float)
    lon, lat = places[..., 0], places[..., 1]
    return Ranked(
        lon,
        lat,
        np.zeros_like(lon) if headings is None else np.array(headings, float),
        np.zeros_like(lon) if scores is None else np.array(scores, float),
        np.stack([lon - half, lat - half, lon + half, lat + half], axis=-1),
        *truth.T,
    )


def test_errors_on_the_equator_are_degrees_times_their_length():
    found = ranked([[(3, 0), (1, 0)], [(0, 2), (0, 5)]], [(0, 0, 0), (0, 0, 0)])
    assert metrics.error_m(found) == pytest.approx([3 * DEGREE_M, 2 * DEGREE_M])
    assert metrics.best_error_m(found) == pytest.approx([1 * DEGREE_M, 2 * DEGREE_M])


def test_a_frame_without_truth_or_without_hits_says_nothing():
    found = ranked(
        [[(3, 0), (1, 0)], [(NAN, NAN), (NAN, NAN)], [(2, 0), (NAN, NAN)]], [(NAN,) * 3, (0, 0, 0), (0, 0, 0)]
    )
    assert np.isnan(metrics.error_m(found)).tolist() == [True, True, False]
    assert np.isnan(metrics.best_error_m(found)).tolist() == [True, True, False]
    assert np.isnan(metrics.heading_error_deg(found)).tolist() == [True, True, True]


def test_heading_is_scored_the_short_way_round_and_only_where_the_place_is_right():
    places = [[(0, 0)], [(0, 0)], [(9, 0)]]
    found = ranked(places, [(0.4, 0.4, 10), (0, 0, NAN), (0, 0, 10)], headings=[[350], [0], [10]])
    assert metrics.heading_error_deg(found) == pytest.approx([20, NAN, NAN], nan_ok=True)


def test_a_footprint_across_the_antimeridian_holds_what_lies_in_it():
    found = ranked([[(180, 0)], [(180, 0)], [(180, 0)]], [(-179.8, 0, 0), (179.8, 0, 0), (-179.0, 0, 0)])
    bbox = found.bbox.copy()
    bbox[..., 2] -= 360  # east of the box as files give it: -179.5
    crossing = Ranked(
        found.lon,
        found.lat,
        found.heading_deg,
        found.score,
        bbox,
        *np.array([[-179.8, 179.8, -179.0], [0, 0, 0], [0, 0, 0]], float),
    )
    assert metrics.inside_footprints(crossing)[:, 0].tolist() == [True, True, False]


def test_the_margin_is_between_the_two_best_places():
    assert metrics.margin(ranked([[(0, 0), (1, 0)]], [(0, 0, 0)], scores=[[0.99, 0.97]])) == pytest.approx([0.02])
    assert np.isnan(metrics.margin(ranked([[(0, 0)]], [(0, 0, 0)]))).all()


def test_a_summary_leaves_out_and_counts_what_is_not_known():
    summary = summarize(np.array([1.0, 2.0, 3.0, 10.0, NAN]))
    assert (summary.n, summary.mean, summary.median) == (4, 4.0, 2.5)
    assert summary.p90 == pytest.approx(3 + 0.7 * 7)  # position 0.9 x 3 = 2.7 between the third and the fourth
    empty = summarize(np.array([NAN]))
    assert empty.n == 0 and math.isnan(empty.mean)


def test_every_metric_of_the_table_gives_one_number_a_frame_even_of_none():
    for metric in METRICS.values():
        assert metric.function(ranked([[(0, 0), (1, 1)]] * 3, [(0, 0, 0)] * 3)).shape == (3,)
        assert metric.function(ranked(np.empty((2, 0, 2)), [(0, 0, 0)] * 2)).shape == (2,)


@given(st.floats(-720, 720), st.floats(-720, 720))
def test_circular_differences_are_symmetric_and_at_most_half_a_turn(a, b):
    difference = metrics.circular_difference_deg(a, b)
    assert 0 <= difference <= 180
    assert difference == pytest.approx(metrics.circular_difference_deg(b, a), abs=1e-9)
    assert math.cos(math.radians(difference)) == pytest.approx(math.cos(math.radians(a - b)), abs=1e-9)
