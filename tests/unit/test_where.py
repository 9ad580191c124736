"""`Where` on columns: the conditions one by one, and the antimeridian against a plain re-telling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc import geo
from coarseloc.errors import InputError
from coarseloc.types import BBox, LonLat, Near, TileFacts, Where
from coarseloc.where import columns, mask, unwrapped

SEOUL = LonLat(127.0, 37.5)
TILE = TileFacts("id", "gangnam", "gangnam/00001", "place", 90, 300.0, 0.5, SEOUL, geo.square(SEOUL, 400.0))


def keeps(tile: TileFacts, where: Where) -> bool:
    return bool(mask(columns([tile]), where)[0])


def test_nothing_asked_keeps_everything_and_no_tiles_give_no_mask() -> None:
    assert keeps(TILE, Where())
    assert mask(columns([]), Where(angles=(0,), touches=BBox(0, 0, 1, 1), near=Near(0, 0, 1))).shape == (0,)


@pytest.mark.parametrize(
    "where, kept",
    [
        (Where(reference_sets=("gangnam",)), True),
        (Where(reference_sets=("gang",)), False),
        (Where(tile_id="gangnam/00001"), True),
        (Where(tile_id="gangnam/00002"), False),
        (Where(angles=(45, 90)), True),
        (Where(angles=(45,)), False),
        (Where(angles=()), False),
        (Where(overlap_pct=50), True),
        (Where(overlap_pct=0), False),
        (Where(altitude_m=(300, 300)), True),
        (Where(altitude_m=(300.1, 350)), False),
        (Where(altitude_m=(250, float("inf"))), True),
        (Where(touches=BBox(126.9, 37.4, 127.1, 37.6)), True),
        (Where(touches=BBox(127.001, 37.5, 127.001, 37.5)), True),  # a point inside
        (Where(touches=BBox(127.01, 37.4, 127.1, 37.6)), False),
        (Where(touches=BBox(126.9, 37.51, 127.1, 37.6)), False),
        (Where(near=Near(127.0, 37.51, 1_113)), True),
        (Where(near=Near(127.0, 37.51, 1_111)), False),
        (Where(angles=(90,), near=Near(127.0, 37.51, 1_111)), False),
        (Where(reference_sets=("gangnam",), angles=(90,), near=Near(127.0, 37.51, 1_113)), True),
    ],
)
def test_each_condition_keeps_what_it_says(where: Where, kept: bool) -> None:
    assert keeps(TILE, where) is kept


def test_an_unknown_altitude_is_in_no_range_but_in_everything_else() -> None:
    unknown = replace(TILE, altitude_m=None)
    assert not keeps(unknown, Where(altitude_m=(float("-inf"), float("inf"))))
    assert keeps(unknown, Where(angles=(90,)))


def test_overlaps_typed_as_fractions_are_whole_percents() -> None:
    for percent in range(100):
        assert keeps(replace(TILE, overlap=percent / 100), Where(overlap_pct=percent))


def test_boxes_that_share_an_edge_touch_to_the_seventh_decimal() -> None:
    edge = unwrapped(TILE.bbox).east
    assert keeps(TILE, Where(touches=BBox(edge, 37.4, 128, 37.6)))
    assert keeps(TILE, Where(touches=BBox(edge + 4e-8, 37.4, 128, 37.6)))
    assert not keeps(TILE, Where(touches=BBox(edge + 2e-7, 37.4, 128, 37.6)))


def test_the_mask_keeps_the_order_of_the_tiles() -> None:
    tiles = [replace(TILE, angle_deg=angle) for angle in (0, 90, 180, 90)]
    assert mask(columns(tiles), Where(angles=(90,))).tolist() == [False, True, False, True]


# Whole degrees, so that every box can be retold as the set of degrees it covers.
DEGREES = st.integers(-180, 180)


def _covered(west: int, east: int) -> set[int]:
    """The meridians of a box, the antimeridian counted once."""
    stretch = range(west, east + 1) if west <= east else [*range(west, 181), *range(-180, east + 1)]
    return {180 if lon == -180 else lon for lon in stretch}


@given(DEGREES, DEGREES, DEGREES, DEGREES)
def test_boxes_touch_when_they_share_a_meridian_on_either_side_of_the_antimeridian(
    tile_west: int, tile_east: int, west: int, east: int
) -> None:
    tile = replace(TILE, bbox=BBox(tile_west, 37, tile_east, 38))
    shared = _covered(tile_west, tile_east) & _covered(west, east)
    assert keeps(tile, Where(touches=BBox(west, 37, east, 38))) is bool(shared)


def test_near_reaches_over_the_antimeridian_and_the_pole() -> None:
    assert keeps(replace(TILE, center=LonLat(179.999, 0)), Where(near=Near(-179.999, 0, 230)))
    assert keeps(replace(TILE, center=LonLat(0, 89.999)), Where(near=Near(180, 89.999, 230)))


@pytest.mark.parametrize("radius_m", [1.0, 5e4, 3e6, 1.2e7, 2.1e7])
def test_near_is_the_haversine_wherever_the_circle_lies(radius_m: float) -> None:
    rng = np.random.default_rng(4)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, 2_000)))
    places = [LonLat(*place) for place in zip(rng.uniform(-180, 180, 2_000).tolist(), lat.tolist(), strict=True)]
    tiles = columns([replace(TILE, center=place) for place in places])
    for lon, lat_ in [*places[:20], LonLat(0, 90), LonLat(179.9, -89.9)]:
        expected = geo.distance_m(lon, lat_, tiles.lon, tiles.lat) <= radius_m
        assert np.array_equal(mask(tiles, Where(near=Near(lon, lat_, radius_m))), expected)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"altitude_m": (350, 250)}, "wrong way round"),
        ({"altitude_m": (float("nan"), 250)}, "wrong way round"),
        ({"angles": (0, 360)}, "angle 360 is no heading"),
        ({"angles": (-45,)}, "angle -45 is no heading"),
        ({"touches": BBox(126, 38, 127, 37)}, "south above north"),
        ({"touches": BBox(320_000, 37, 320_400, 38)}, "off the globe"),
        ({"touches": BBox(126, float("nan"), 127, 38)}, "off the globe"),
        ({"near": Near(127, 37, 0)}, "no circle"),
        ({"near": Near(127, 97, 10)}, "no circle"),
        ({"near": Near(127, 37, float("nan"))}, "no circle"),
        ({"near": Near(127, 37, float("inf"))}, "no circle"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_give(asked: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Where(**asked)  # type: ignore[arg-type]


def test_a_large_mirror_is_masked_in_milliseconds() -> None:
    """Not a benchmark: it guards against a loop over tiles."""
    one = columns([TILE])
    n = 100_000
    many = replace(one, **{name: np.repeat(getattr(one, name), n) for name in one.__slots__})
    kept = mask(many, Where("gangnam", angles=(90,), touches=BBox(126.9, 37.4, 127.1, 37.6), near=Near(127, 37.5, 10)))
    assert kept.sum() == n
