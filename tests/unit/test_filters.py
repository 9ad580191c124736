"""`Where`: the conditions one by one, the antimeridian against a plain re-telling, its texts and its JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from urllib.parse import parse_qs, urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core import geo, ids
from coarseloc.core.errors import InputError
from coarseloc.core.filters import KEYS, Where, WhereJson, columns, unwrap
from coarseloc.core.types import BBox, LonLat, Near, ReferenceSet, TileFacts

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
        (Where(reference_sets=("gangnam", "jamsil")), True),
        (Where(reference_sets=("gang", "nam")), False),
        (Where(tile_id="gangnam/00001"), True),
        (Where(tile_id="gangnam/00002"), False),
        (Where(angles=(45, 90)), True),
        (Where(angles=(45,)), False),
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
    edge = unwrap(TILE.bbox).east
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
        ({"angles": (22.5,)}, "angle 22.5 is no heading"),
        ({"overlap_pct": 0.5}, "overlap_pct 0.5 is no overlap: give a whole percentage"),
        ({"touches": BBox(320_000, 37, 320_400, 38)}, "longitude 320000 is off the globe, outside -180 to 180"),
        ({"touches": BBox(179.9, 37, 180.001, 38)}, "longitude 180.001 .* west > east crosses the antimeridian"),
        ({"touches": BBox(126, float("nan"), 127, 38)}, "latitude nan is off the globe"),
        ({"touches": (126, 37, 127)}, r"\(126, 37, 127\) is not west,south,east,north"),
        ({"near": Near(127, 37, 0)}, "radius 0 m in near is no distance"),
        ({"near": Near(180.001, 37, 10)}, "longitude 180.001 is off the globe, outside -180 to 180, in near"),
        ({"near": Near(127, 97, 10)}, "latitude 97 is off the globe, outside -90 to 90, in near"),
        ({"near": Near(127, 37, float("nan"))}, "no distance"),
        ({"near": Near(127, 37, float("inf"))}, "no distance"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_give(asked: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Where(**asked)  # type: ignore[arg-type]


def test_filters_that_mean_the_same_are_equal() -> None:
    given = Where(["south", "north", "south"], angles=[90, 0, 90], altitude_m=[250, 350], near=(127, 37, 10))  # type: ignore[arg-type]
    assert given == Where(("north", "south"), angles=(0, 90), altitude_m=(250.0, 350.0), near=Near(127.0, 37.0, 10.0))
    assert hash(given) and given.to_json()["altitude_m"] == [250.0, 350.0]
    assert Where("gangnam") == Where(("gangnam",))  # type: ignore[arg-type]  # never its letters


def test_sets_are_admitted_by_what_they_are_as_a_whole() -> None:
    facts = [ReferenceSet(name, "captures", "/x", at, 0.5, 300.0, (0,)) for name, at in (("a", 300.0), ("b", None))]
    assert Where(angles=(45,), touches=BBox(1, 2, 3, 4), near=Near(0, 0, 1)).admits(facts).tolist() == [True, True]
    assert Where(altitude_m=(250, 350)).admits(facts).tolist() == [True, False]
    assert Where(("b", "c")).admits(facts).tolist() == [False, True]
    assert Where(overlap_pct=80).admits(facts).tolist() == [False, False]
    assert Where(("a",)).admits([]).shape == (0,)


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        ({}, Where()),
        ({"angle": ["45", "90"]}, Where(angles=(45, 90))),
        ({"angle": ["90,45"]}, Where(angles=(45, 90))),
        ({"angle": ["45,0", "90", "45"]}, Where(angles=(0, 45, 90))),
        ({"overlap": ["50"]}, Where(overlap_pct=50)),
        ({"overlap": ["50%"]}, Where(overlap_pct=50)),
        ({"overlap": ["0.5"]}, Where(overlap_pct=50)),
        ({"overlap": ["66.7"]}, Where(overlap_pct=67)),
        ({"overlap": ["0"]}, Where(overlap_pct=0)),
        ({"overlap": "1%"}, Where(overlap_pct=1)),
        ({"altitude": ["250:350"]}, Where(altitude_m=(250, 350))),
        ({"altitude": ["300"]}, Where(altitude_m=(300, 300))),
        ({"altitude": ["300:"]}, Where(altitude_m=(300, float("inf")))),
        ({"altitude": [":300"]}, Where(altitude_m=(float("-inf"), 300))),
        ({"bbox": ["179.9,-1,-179.9,1"]}, Where(touches=BBox(179.9, -1, -179.9, 1))),
        ({"near": ["-122.4, 37.5, 2e3"]}, Where(near=Near(-122.4, 37.5, 2000))),
        ({"reference-set": ["강남, 300 m", "b"]}, Where(("b", "강남, 300 m"))),
        ({"tile": ["gangnam/00001"], "angle": "90"}, Where(tile_id="gangnam/00001", angles=(90,))),
    ],
)
def test_texts_are_read_as_people_type_them(texts: dict[str, list[str]], where: Where) -> None:
    assert Where.parse(texts) == where


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"nead": ["1,2,3"]}, "no filter 'nead': expected one of reference-set, tile, angle, .*, near"),
        ({"set": ["a"]}, "no filter 'set': expected one of reference-set"),
        ({"angle": ["x"]}, "angle 'x': 'x' is not a number; give DEGREES, such as 0,45,90"),
        ({"angle": ["45,,90"]}, "'' is not a number"),
        ({"angle": ["360"]}, "angle 360 is no heading: give whole degrees from 0 to 359"),
        ({"angle": ["22.5"]}, "angle 22.5 is no heading"),
        ({"angle": ["1e999"]}, "not a finite number"),
        ({"overlap": ["100"]}, "100 is no overlap: it is a percentage from 0 to 99"),
        ({"overlap": ["-5"]}, "-5 is no overlap"),
        ({"overlap": ["50", "80"]}, "overlap '50', '80': it is given 2 times, expected once"),
        ({"altitude": ["350:250"]}, "wrong way round"),
        ({"altitude": ["250:x"]}, "'x' is not a number; give LOW:HIGH, such as 250:350"),
        ({"bbox": ["1,2,3"]}, "it has 3 parts, expected 4; give WEST,SOUTH,EAST,NORTH"),
        ({"bbox": ["179.9,0,180.001,1"]}, "longitude 180.001 is off the globe, outside -180 to 180"),
        ({"near": ["180.001,0,10"]}, "longitude 180.001 is off the globe, outside -180 to 180"),
        ({"near": ["127,nan,5"]}, "near '127,nan,5': 'nan' is not a finite number; give LON,LAT,METRES"),
        ({"near": ["127,37,0"]}, "radius 0 m in near is no distance"),
        ({"reference-set": [""]}, "reference-set '': it is empty"),
        ({"tile": ["a\0/00001"]}, "holds what is no character"),
        ({"reference-set": ["\udcff"]}, "holds what is no character"),
    ],
)
def test_texts_that_are_no_filter_are_refused_with_what_is_allowed(texts: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Where.parse(texts)


def test_a_callers_own_keys_are_passed_over_and_named_with_what_is_allowed() -> None:
    assert Where.parse({"angle": ["0"], "model": ["x"]}, beside=("model",)) == Where(angles=(0,))
    with pytest.raises(InputError, match="near, model"):
        Where.parse({"modell": ["x"]}, beside=("model",))


def test_every_example_is_read() -> None:
    for key in KEYS.values():
        asked = Where.parse({key.name: key.example})
        assert asked != Where() and list(asked.to_texts()) == [key.name] and list(asked.to_json()) == [key.json_key]


def test_every_field_has_a_key() -> None:
    assert [key.field for key in KEYS.values()] == [field.name for field in fields(Where)]
    assert [key.json_key for key in KEYS.values()] == list(WhereJson.__annotations__)


FINITE = st.floats(-1e6, 1e6)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(ids.label)
LON, LAT = st.floats(-180, 180), st.floats(-90, 90)


@st.composite
def wheres(draw: st.DrawFn) -> Where:
    low, high = sorted([draw(FINITE | st.just(float("-inf"))), draw(FINITE | st.just(float("inf")))])
    south, north = sorted([draw(LAT), draw(LAT)])
    return Where(
        reference_sets=tuple(draw(st.lists(NAMES, max_size=3))),
        tile_id=draw(st.none() | NAMES),
        angles=tuple(draw(st.lists(st.integers(0, 359), max_size=4))),
        altitude_m=draw(st.none() | st.just((low, high))),
        overlap_pct=draw(st.none() | st.integers(0, 99)),
        touches=draw(st.none() | st.builds(BBox, LON, st.just(south), LON, st.just(north))),
        near=draw(st.none() | st.builds(Near, LON, LAT, st.floats(1e-3, 1e8))),
    )


@given(wheres())
def test_texts_and_json_give_the_same_filter_back(where: Where) -> None:
    assert Where.parse(where.to_texts()) == where
    through_an_address = parse_qs(urlencode(where.to_texts(), doseq=True))
    assert Where.parse(through_an_address) == where
    assert Where.from_json(json.loads(json.dumps(where.to_json(), allow_nan=False))) == where


def test_json_holds_only_what_is_asked_and_names_positions() -> None:
    asked = Where(
        reference_sets=("a",),
        angles=(0, 90),
        altitude_m=(250, float("inf")),
        overlap_pct=50,
        touches=BBox(1, 2, 3, 4),
        near=Near(127, 37.5, 2000),
    )
    assert Where().to_json() == {}
    assert asked.to_json() == {
        "reference_sets": ["a"],
        "angles": [0, 90],
        "altitude_m": [250.0, None],
        "overlap_pct": 50,
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "near": {"lon": 127.0, "lat": 37.5, "radius_m": 2000.0},
    }


def test_json_of_earlier_runs_is_read() -> None:
    stored = {
        "reference_set": "gangnam-300m",
        "tile_id": "gangnam-300m/00001",
        "angles": [0, 90],
        "altitude_m": [250.0, 350.0],
        "overlap_pct": 50,
        "bbox": [179.9, -1.0, -179.9, 1.0],
        "near": {"lon": 127.03, "lat": 37.5, "radius_m": 2000.0},
    }
    read = Where.from_json(stored)
    assert read.reference_sets == ("gangnam-300m",) and read.touches == BBox(179.9, -1, -179.9, 1)
    del stored["reference_set"]  # which one run alone never stored: the rest is written as it was
    assert Where.from_json(stored).to_json() == stored
    with pytest.raises(InputError, match=r"'season'.*expected only reference_sets"):
        Where.from_json({"season": "winter"})


def test_a_large_mirror_is_masked_in_milliseconds() -> None:
    """Not a benchmark: it guards against a loop over tiles."""
    one = columns([TILE])
    n = 100_000
    many = replace(one, **{name: np.repeat(getattr(one, name), n) for name in one.__slots__})
    asked = Where(("gangnam",), angles=(90,), touches=BBox(126.9, 37.4, 127.1, 37.6), near=Near(127, 37.5, 10))
    assert asked.mask(many).sum() == n


@pytest.mark.parametrize("blank", ["", " ", "\u3000"])
def test_a_blank_name_is_no_reference_set(blank: str) -> None:
    with pytest.raises(InputError, match="empty"):
        Where(reference_sets=(blank,))
    with pytest.raises(InputError, match="empty"):
        Where.parse({"reference-set": [blank]})
