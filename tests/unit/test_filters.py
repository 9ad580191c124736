"""`Where` on columns: the conditions one by one, and the antimeridian against a plain re-telling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc import geo, ids
from coarseloc.errors import InputError
from coarseloc.filters import Near, Where, columns, unwrapped
from coarseloc.types import BBox, LonLat, TileFacts

SEOUL = LonLat(127.0, 37.5)
TILE = TileFacts("id", "gangnam", "gangnam/00001", "place", 90, 300.0, 0.5, SEOUL, geo.square(SEOUL, 400.0))


def keeps(tile: TileFacts, where: Where) -> bool:
    return bool(where.mask(columns([tile]))[0])


def test_nothing_asked_keeps_everything_and_no_tiles_give_no_mask() -> None:
    assert keeps(TILE, Where())
    assert Where(angles=(0,), touches=BBox(0, 0, 1, 1), near=Near(0, 0, 1)).mask(columns([])).shape == (0,)


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
    assert Where(angles=(90,)).mask(columns(tiles)).tolist() == [False, True, False, True]


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
        assert np.array_equal(Where(near=Near(lon, lat_, radius_m)).mask(tiles), expected)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"altitude_m": (350, 250)}, "wrong way round"),
        ({"altitude_m": (float("nan"), 250)}, "wrong way round"),
        ({"angles": (0, 360)}, "angle 360 is no heading"),
        ({"angles": (-45,)}, "angle -45 is no heading"),
        ({"touches": BBox(126, 38, 127, 37)}, "south above north"),
        ({"touches": BBox(320_000, 37, 320_400, 38)}, "expected WGS84 degrees"),
        ({"touches": BBox(126, float("nan"), 127, 38)}, "expected WGS84 degrees"),
        ({"near": Near(127, 37, 0)}, "radius of 0 m"),
        ({"near": Near(127, 97, 10)}, "latitude 97"),
        ({"near": Near(127, 37, float("nan"))}, "radius of nan m"),
        ({"near": Near(127, 37, float("inf"))}, "radius of inf m"),
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
    box, circle = BBox(126.9, 37.4, 127.1, 37.6), Near(127, 37.5, 10)
    kept = Where(("gangnam",), angles=(90,), touches=box, near=circle).mask(many)
    assert kept.sum() == n


# --- texts and JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts, expected",
    [
        ({}, Where()),
        ({"angle": ["45", "90"]}, Where(angles=(45, 90))),
        ({"angle": ["90,45"]}, Where(angles=(45, 90))),
        ({"angle": ["0", "315,0"], "overlap": ["50"]}, Where(angles=(0, 315), overlap_pct=50)),
        ({"overlap": ["0.5"]}, Where(overlap_pct=50)),
        ({"overlap": ["50%"]}, Where(overlap_pct=50)),
        ({"overlap": ["0.5%"]}, Where(overlap_pct=0)),
        ({"overlap": ["0"]}, Where(overlap_pct=0)),
        ({"altitude": ["250:350"]}, Where(altitude_m=(250.0, 350.0))),
        ({"altitude": ["300"]}, Where(altitude_m=(300.0, 300.0))),
        ({"bbox": ["179.9,-1,-179.9,1"]}, Where(touches=BBox(179.9, -1.0, -179.9, 1.0))),
        ({"near": ["127.03,37.5,200"]}, Where(near=Near(127.03, 37.5, 200.0))),
        ({"reference_set": ["강남, 300 m", "b", "b"]}, Where(reference_sets=("강남, 300 m", "b"))),
        ({"near": [""], "angle": ["  "]}, Where()),
    ],
)
def test_texts_are_read_the_same_wherever_they_come_from(texts: dict[str, list[str]], expected: Where) -> None:
    assert Where.parse(texts) == expected


@pytest.mark.parametrize(
    "texts, said",
    [
        ({"heading": ["45"]}, "filter 'heading' is not known: expected some of reference_set, angle, altitude"),
        ({"angle": ["45.5"]}, "angle is '45.5': expected whole degrees"),
        ({"angle": ["360"]}, "whole degrees from 0 to 359"),
        ({"overlap": ["100"]}, "expected a percentage from 0 to 99"),
        ({"overlap": ["nan"]}, "expected a number"),
        ({"overlap": ["50", "60"]}, "overlap is given 2 times"),
        ({"altitude": ["350:250"]}, "wrong way round"),
        ({"bbox": ["1,2,3"]}, "has 3 parts: expected WEST,SOUTH,EAST,NORTH"),
        ({"bbox": ["179.9,-1,180.001,1"]}, r"bbox has the longitude 180.001: expected WGS84 degrees from -180 to 180"),
        ({"bbox": ["1,91,2,92"]}, "bbox has the latitude 91"),
        ({"near": ["180.001,37.5,200"]}, "near has the longitude 180.001"),
        ({"near": ["127,37.5,0"]}, "near has a radius of 0 m"),
    ],
)
def test_what_is_no_filter_is_refused_for_its_true_reason(texts: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Where.parse(texts)


degrees = st.floats(-180, 180)
wheres = st.builds(
    Where,
    reference_sets=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    angles=st.none() | st.sets(st.integers(0, 359), min_size=1, max_size=8).map(lambda some: tuple(sorted(some))),
    altitude_m=st.none() | st.tuples(st.floats(0, 500), st.floats(500, 1000)),
    overlap_pct=st.none() | st.integers(0, 99),
    touches=st.none() | st.builds(BBox, degrees, st.floats(-90, 0), degrees, st.floats(0, 90)),
    near=st.none() | st.builds(Near, degrees, st.floats(-90, 90), st.floats(1, 1e6)),
)


@given(wheres)
def test_a_filter_survives_its_json(where: Where) -> None:
    assert Where.from_json(where.to_json()) == where


def test_a_run_of_before_several_sets_is_read() -> None:
    assert Where.from_json({"reference_set": "area", "overlap_pct": 50}) == Where(("area",), overlap_pct=50)


@given(wheres)
def test_what_a_filter_spells_is_read_as_it(where: Where) -> None:
    spelled = {
        "reference_set": list(where.reference_sets),
        "angle": [str(angle) for angle in where.angles or ()],
        "altitude": [":".join(map(repr, where.altitude_m))] if where.altitude_m else [],
        "overlap": [] if where.overlap_pct is None else [f"{where.overlap_pct}%"],
        "bbox": [",".join(map(repr, where.touches))] if where.touches else [],
        "near": [",".join(map(repr, where.near))] if where.near else [],
    }
    labels = tuple(dict.fromkeys(ids.label(name) for name in where.reference_sets if name.strip()))
    assert Where.parse(spelled) == replace(where, reference_sets=labels)
