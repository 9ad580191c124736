"""Views of a set as queries against the others: what is right, what is a twin, and what more would buy."""

from __future__ import annotations

import numpy as np
import pytest

from coarseloc.core import geo
from coarseloc.core.types import LonLat
from search.exact_index import ExactIndex
from search.localizability import (
    BLOCK,
    EXCLUSIONS,
    WITHIN_FOOTPRINTS,
    ViewSet,
    altitude_gain,
    heading_gains,
    place_figures,
    queries_of,
    recognise,
    twin_pairs,
)

FOOTPRINT_M = 400.0
ORIGIN = LonLat(127.0, 37.5)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def view_set(vectors, columns, rows, angles=(0,), stride_m=200.0, footprint_m=FOOTPRINT_M):
    """Views by place, then angle, on a grid; vectors [columns * rows * angles, D]."""
    spots = [geo.offset(ORIGIN, stride_m * x, -stride_m * y) for y in range(rows) for x in range(columns)]
    lon, lat = np.array(spots).round(7).T
    n = len(angles)
    return ViewSet(
        ExactIndex.of(unit(vectors)), np.repeat(lon, n), np.repeat(lat, n), np.tile(angles, len(spots)), footprint_m
    )


def smooth_ground(columns, rows, angles=1, seed=3):
    """Vectors that neighbours share half of."""
    rng = np.random.default_rng(seed)
    grid = rng.standard_normal((rows + 1, columns + 1, 24))
    ground = grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:]
    return np.repeat(ground.reshape(-1, 24), angles, axis=0) + 0.3 * rng.standard_normal((columns * rows * angles, 24))


@pytest.mark.parametrize("exclusion", EXCLUSIONS)
def test_every_answer_is_that_of_all_views_compared_by_hand(exclusion):
    views = view_set(smooth_ground(7, 6, 2), 7, 6, angles=(0, 90))
    recognition = recognise(queries_of(views), views)[exclusion]
    scores = views.index.vectors @ views.index.vectors.T
    apart = geo.distance_m(views.lon[:, None], views.lat[:, None], views.lon, views.lat)
    for row in range(len(views)):
        place, near = apart[row] == 0, apart[row] <= WITHIN_FOOTPRINTS * FOOTPRINT_M
        own = np.arange(len(views)) == row
        answers = {"view": ~own, "place": ~place, "neighbours": ~own & (place | ~near)}[exclusion]
        best = int(np.where(answers, scores[row], -9).argmax())
        twin = int(np.where(answers & ~near, scores[row], -9).argmax())
        right = np.where(answers & near, scores[row], -9).max()
        assert recognition.error_m[row] == pytest.approx(apart[row, best])
        assert recognition.right[row] == near[best] and recognition.twin[row] == twin
        assert recognition.margin[row] == pytest.approx(right - scores[row, twin], abs=1e-5) or not near[best]


def test_blocks_of_queries_answer_as_all_at_once(monkeypatch):
    views = view_set(smooth_ground(6, 5), 6, 5)
    whole = recognise(queries_of(views), views)["place"]
    monkeypatch.setattr("search.localizability.BLOCK", 7)
    blocks = recognise(queries_of(views), views)["place"]
    assert np.array_equal(whole.twin, blocks.twin) and np.array_equal(whole.right, blocks.right)
    assert BLOCK > 30


def test_a_copy_of_the_ground_elsewhere_is_its_twin():
    vectors = smooth_ground(8, 8)
    vectors[8 * 6 + 6] = vectors[8 * 1 + 1]  # two places that look the same, 1.4 km apart
    views = view_set(vectors, 8, 8)
    places = place_figures(views, recognise(queries_of(views), views)["place"])
    worst = twin_pairs(places, 1)[0]
    at = {(round(p.lon, 6), round(p.lat, 6)) for p in (worst.location, worst.twin_location)}
    assert at == {(round(views.lon[row], 6), round(views.lat[row], 6)) for row in (9, 54)}
    assert worst.score == pytest.approx(1.0, abs=1e-6) and worst.margin < 0
    assert worst.distance_m == pytest.approx(5 * 200 * 2**0.5, rel=0.01)


def test_headings_between_those_of_a_coarser_set_are_what_more_headings_buy():
    rng = np.random.default_rng(5)
    looks = {angle: smooth_ground(6, 6, seed=angle) for angle in (0, 90)}  # at 90 the ground looks wholly different
    views = view_set(np.stack([looks[0], looks[90]], axis=1).reshape(72, 24), 6, 6, angles=(0, 90))
    (gain,) = heading_gains("tiny", views, "place")
    assert gain.queries == 36 and gain.share_with > 0.7 > 0.4 > gain.share_without
    same = view_set(np.repeat(looks[0], 2, axis=0) + 1e-3 * rng.standard_normal((72, 24)), 6, 6, angles=(0, 90))
    (no_gain,) = heading_gains("tiny", same, "place")
    assert no_gain.share_with == pytest.approx(no_gain.share_without, abs=0.1)


def test_another_altitude_serves_frames_taken_there_and_no_other_ground():
    views = view_set(smooth_ground(6, 6), 6, 6)
    altitude = view_set(smooth_ground(6, 6, seed=9), 6, 6, footprint_m=500.0)  # the same ground, looking otherwise
    gain = altitude_gain("both", views, altitude, "place")
    assert gain.queries == 36 and gain.share_with > gain.share_without + 0.3
    elsewhere = ViewSet(altitude.index, altitude.lon + 1, altitude.lat, altitude.angle_deg, 500.0)
    assert altitude_gain("both", views, elsewhere, "place") is None
