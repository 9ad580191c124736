"""Ellipses, lines and footprints lie where they should, and in one piece on each side of the antimeridian."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from coarseloc.core import geo
from coarseloc.core.fixes import ellipse
from coarseloc.core.types import Covariance, LonLat
from search.export.geometries import ELLIPSE_VERTICES, ellipse_ring, line, polygon, unwrapped

latitudes = st.floats(-80, 80)
anywhere = st.builds(LonLat, st.floats(-180, 179.999), latitudes)
at_the_antimeridian = st.builds(
    lambda lon, lat: LonLat((lon + 360) % 360 - 180, lat), st.floats(-0.02, 0.02), latitudes
)


def turned_covariance(major_m, ratio, turn):
    """Standard deviations of `major_m` along an azimuth and `ratio` of it across."""
    axis = np.array([[math.sin(turn), math.cos(turn)], [-math.cos(turn), math.sin(turn)]])
    matrix = axis.T @ np.diag([major_m**2, (ratio * major_m) ** 2]) @ axis
    return Covariance(matrix[0, 0], matrix[0, 1], matrix[1, 1])


covariances = st.builds(turned_covariance, st.floats(0.05, 300), st.floats(0.05, 1), st.floats(0, math.pi))


def rings(geometry):
    """Its outer rings, [N, 2] each, first position repeated."""
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    assert all(len(part) == 1 for part in parts), "no holes"
    return [np.array(part[0]) for part in parts]


def lines(geometry):
    parts = geometry["coordinates"] if geometry["type"] == "MultiLineString" else [geometry["coordinates"]]
    return [np.array(part) for part in parts]


def signed_area(ring):
    lon, lat = (ring - ring[0]).T
    return float(np.sum(lon[:-1] * lat[1:] - lon[1:] * lat[:-1]) / 2)


@given(anywhere, covariances, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_an_ellipse_holds_95_percent_of_what_its_covariance_spreads(center, covariance, seed):
    matrix = [[covariance.east_east, covariance.east_north], [covariance.east_north, covariance.north_north]]
    east, north = np.random.default_rng(seed).multivariate_normal([0, 0], matrix, 20_000).T
    per_lon, per_lat = geo.metres_per_degree(center.lat)
    samples = np.column_stack([center.lon + east / per_lon, center.lat + north / per_lat])
    ring = ellipse_ring(center, ellipse(covariance))
    assert Outline(np.array(ring)).contains_points(samples).mean() == pytest.approx(0.95, abs=0.008)


def test_an_ellipse_lies_along_its_azimuth_by_true_north():
    center = LonLat(127.03, 37.5)
    axes = ellipse(Covariance(16.0, 0.0, 1.0))  # 4 m east, 1 m north
    ring = ellipse_ring(center, axes)
    assert len(ring) == ELLIPSE_VERTICES and axes.azimuth_deg == pytest.approx(90)
    assert ring[0] == pytest.approx(geo.offset(center, axes.major_m, 0.0), abs=1e-10)
    assert ring[16] == pytest.approx(geo.offset(center, 0.0, axes.minor_m), abs=1e-10), "a quarter further on: north"
    assert axes.major_m == pytest.approx(4 * 2.4477, abs=1e-3) and axes.minor_m == pytest.approx(2.4477, abs=1e-3)


@given(st.one_of(anywhere, at_the_antimeridian), covariances)
@settings(deadline=None)
def test_a_polygon_is_cut_into_parts_that_stay_on_their_side(center, covariance):
    ring = unwrapped(ellipse_ring(center, ellipse(covariance)))
    parts = rings(polygon(ring))
    crosses = max(abs(corner.lon) for corner in ring) > 180
    assert len(parts) <= (2 if crosses else 1)
    whole = signed_area(np.array([*ring, ring[0]]))
    perimeter = sum(np.abs(np.diff(part, axis=0)).sum() for part in parts)
    assert sum(map(signed_area, parts)) == pytest.approx(whole, rel=1e-6, abs=perimeter * 2e-7), "nothing is lost"
    for part in parts:
        assert (part[0] == part[-1]).all() and np.abs(part[:, 0]).max() <= 180
        assert np.ptp(part[:, 0]) < 1 and signed_area(part) > -1e-12, "counter-clockwise"


@given(at_the_antimeridian, st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_a_line_goes_the_short_way_round_and_is_cut_at_the_antimeridian(start, east, north):
    end = geo.offset(start, east, north)
    parts = lines(line(start, end))
    assert parts[0][0] == pytest.approx(start, abs=1e-7) or abs(start.lon) == 180
    assert parts[-1][-1] == pytest.approx(end, abs=1e-7) or abs(end.lon) == 180
    for part in parts:
        assert part.shape == (2, 2) and np.abs(part[:, 0]).max() <= 180
    length = sum(float(geo.ellipsoid_distance_m(*part[0], *part[1])) for part in parts)
    assert length == pytest.approx(math.hypot(east, north), rel=0.01, abs=0.05)


def test_a_footprint_across_the_antimeridian_has_a_part_in_each_hemisphere():
    ring = [LonLat(179.99, -17.01), LonLat(-179.98, -17.01), LonLat(-179.98, -17.0), LonLat(179.99, -17.0)]
    assert polygon(ring) == {
        "type": "MultiPolygon",
        "coordinates": [
            [[[179.99, -17.01], [180.0, -17.01], [180.0, -17.0], [179.99, -17.0], [179.99, -17.01]]],
            [[[-180.0, -17.01], [-179.98, -17.01], [-179.98, -17.0], [-180.0, -17.0], [-180.0, -17.01]]],
        ],
    }
    assert line(LonLat(179.9, 10.0), LonLat(-179.7, 14.0)) == {
        "type": "MultiLineString",
        "coordinates": [[[179.9, 10.0], [180.0, 11.0]], [[-180.0, 11.0], [-179.7, 14.0]]],
    }


def test_what_only_touches_the_antimeridian_is_whole():
    ring = [LonLat(179.99, 0.0), LonLat(180.0, 0.0), LonLat(-180.0, 0.01), LonLat(179.99, 0.01)]
    assert polygon(ring)["type"] == "Polygon" and {lon for lon, _ in rings(polygon(ring))[0]} == {179.99, 180.0}
    assert line(LonLat(-180.0, 1.0), LonLat(-180.0, 2.0))["type"] == "LineString"
    assert line(LonLat(-180.0, 1.0), LonLat(179.9, 1.0)) == {
        "type": "LineString", "coordinates": [[180.0, 1.0], [179.9, 1.0]]
    }  # fmt: skip
