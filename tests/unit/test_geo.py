"""Distances and offsets on the ellipsoid, against PROJ and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio.warp
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core import geo
from coarseloc.core.types import LonLat

latitudes = st.floats(-80, 80)
longitudes = st.floats(-180, 179.999)
metres = st.floats(-2000, 2000)
headings = st.floats(-720, 720)


def test_a_quarter_of_the_globe_is_ten_thousand_kilometres() -> None:
    assert geo.distance_m(0, 0, 0, 90) == pytest.approx(math.pi / 2 * geo.EARTH_RADIUS_M)


def test_distance_broadcasts() -> None:
    assert geo.distance_m([0, 1], [0, 0], 0, 0).shape == (2,)


def test_a_degree_at_the_equator_and_at_45_has_its_known_metres() -> None:
    assert geo.metres_per_degree(0) == pytest.approx((111_319.491, 110_574.276), abs=0.001)
    assert geo.metres_per_degree(45) == pytest.approx((78_846.806, 111_131.745), abs=0.05)


@given(longitudes, latitudes, metres, metres)
def test_an_offset_is_as_long_as_proj_says(lon: float, lat: float, east: float, north: float) -> None:
    moved = geo.offset(LonLat(lon, lat), east, north)
    local = f"+proj=aeqd +lon_0={lon} +lat_0={lat} +datum=WGS84"
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", local, [moved.lon], [moved.lat])
    reach = math.hypot(east, north)
    bend = reach**2 / geo.EARTH_RADIUS_M * math.tan(math.radians(abs(lat)))  # meridians converge: second order
    assert math.hypot(x - east, y - north) <= bend + 0.01


@given(longitudes, latitudes, metres, metres)
def test_an_offset_and_back_is_where_it_began(lon: float, lat: float, east: float, north: float) -> None:
    origin = LonLat(lon, lat)
    back = geo.offset(geo.offset(origin, east, north), -east, -north)
    assert geo.distance_m(*origin, *back) < 0.01 + 2 * math.hypot(east, north) ** 2 / 6.3e6 * math.tan(
        math.radians(abs(lat))
    )


def test_longitudes_wrap_at_the_antimeridian() -> None:
    assert -180 <= geo.offset(LonLat(179.999, 10), 1000, 0).lon < -179.9


@given(longitudes, latitudes, st.floats(1, 5000))
def test_a_square_has_its_side_and_its_centre(lon: float, lat: float, side: float) -> None:
    west, south, east, north = geo.square(LonLat(lon, lat), side)
    per_lon, per_lat = geo.metres_per_degree(lat)
    assert (east - west) % 360 * per_lon == pytest.approx(side, rel=1e-5)
    assert (north - south) * per_lat == pytest.approx(side, rel=1e-5)


@given(headings, headings)
def test_a_heading_difference_is_symmetric_and_at_most_180(a: float, b: float) -> None:
    difference = geo.heading_difference(a, b)
    assert 0 <= difference <= 180
    assert difference == pytest.approx(geo.heading_difference(b, a), abs=1e-9)
    assert np.cos(np.radians(difference)) == pytest.approx(np.cos(np.radians(a - b)), abs=1e-9)


@given(longitudes, st.floats(-179.9, 179.9))
def test_the_short_way_leads_there(start: float, way: float) -> None:
    assert geo.signed_difference_deg(start, start + way) == pytest.approx(way, abs=1e-9)
    assert geo.signed_difference_deg([start, 0.0], [start + way, 180.0]) == pytest.approx([way, -180.0], abs=1e-9)


def test_a_box_across_the_antimeridian_holds_what_lies_in_it() -> None:
    across, here = (179.5, -1.0, -179.5, 1.0), (-0.5, -1.0, 0.5, 1.0)
    lon = np.array([180.0, -180.0, 179.5, -179.4, 0.0, math.nan])
    assert geo.inside(lon, 0.0, across).tolist() == [True, True, True, False, False, False]
    assert geo.inside(lon, 0.0, here).tolist() == [False, False, False, False, True, False]


def test_positions_are_held_against_many_boxes_at_once() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 0, 6, 9]], float)
    lon, lat = np.array([[0.5], [2.0]]), np.array([[0.5], [2.0]])
    assert geo.inside(lon, lat, boxes).tolist() == [[True, False, False], [True, True, False]]


@given(longitudes, latitudes, st.floats(1, 5000))
def test_the_middle_of_a_square_is_what_it_was_drawn_around(lon: float, lat: float, side: float) -> None:
    assert geo.distance_m(*geo.box_center(geo.square(LonLat(lon, lat), side)), lon, lat) < 0.01


def test_bounds_go_round_the_narrower_way() -> None:
    assert geo.bounds([179.0, -179.5], [10.0, 12.0]) == (179.0, 10.0, -179.5, 12.0)
    assert geo.bounds([-0.5, 0.25], [0.0, 0.0]) == (-0.5, 0.0, 0.25, 0.0)
    assert geo.bounds([-120.0, -119.0], [0.0, 0.0]) == (-120.0, 0.0, -119.0, 0.0)
    assert geo.bounds([-120.0, 0.0, 120.0], [0.0, 0.0, 0.0]) == (-120.0, 0.0, 120.0, 0.0)


@given(latitudes, longitudes, metres, metres)
def test_an_offset_is_read_back_in_metres(lat, lon, east, north):
    origin = LonLat(lon, lat)
    assert geo.offset_m(origin, geo.offset(origin, east, north)) == pytest.approx((east, north), abs=1e-4)


@given(headings)
def test_ahead_is_where_the_heading_points_and_right_a_quarter_turn_clockwise(heading):
    turn = math.radians(heading)
    assert geo.turned_m(0.0, 1.0, heading) == pytest.approx((math.sin(turn), math.cos(turn)), abs=1e-12)
    assert geo.turned_m(1.0, 0.0, heading) == pytest.approx(geo.turned_m(0.0, 1.0, heading + 90.0), abs=1e-12)
