"""Random reference tiles and filters on them, for holding each spelling of `Where` against `Where.mask`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from hypothesis import strategies as st

from coarseloc.core import ids
from coarseloc.core.filters import Where
from coarseloc.core.geo import distance_m
from coarseloc.core.types import BBox, LonLat, Near, TileFacts

# Few distinct values, so that conditions and tiles meet often, and the awkward ones among them.
SETS = {"north": (300.0, 0.5), "south": (None, 0.8), "강남, 300 m": (299.5, 0.125), "of/600": (600.0, 0.0)}
LONGITUDES = st.sampled_from([-180.0, -179.99, -179.5, -0.01, 0.0, 12.3456789, 127.0, 127.01, 179.5, 179.99, 180.0])
LATITUDES = st.sampled_from([-89.9, -0.01, 0.0, 37.4999999, 37.5, 37.51, 89.9])
SIDES = st.sampled_from([0.0, 0.004, 0.01, 1.0])
ANGLES = st.integers(0, 7).map(lambda step: step * 45)
NAMES = st.sampled_from(sorted(SETS))
LOWS, HIGHS = (st.sampled_from([300.0, 450.0, open_end]) for open_end in (float("-inf"), float("inf")))


@st.composite
def rotated_tiles(draw: st.DrawFn, most: int = 6) -> list[TileFacts]:
    """Up to `most` tiles, each at one to three headings; altitude and overlap are their reference set's."""
    places = draw(st.lists(st.tuples(NAMES, st.integers(1, 3)), min_size=1, max_size=most, unique=True))
    return [facts for name, index in places for facts in draw(_tile(name, index))]


@st.composite
def _tile(draw: st.DrawFn, name: str, index: int) -> list[TileFacts]:
    lon, lat, side = draw(LONGITUDES), draw(LATITUDES), draw(SIDES)
    bbox = BBox(_wrap(lon - side / 2), max(lat - side / 2, -90), _wrap(lon + side / 2), min(lat + side / 2, 90))
    altitude_m, overlap = SETS[name]
    return [
        TileFacts(
            point_id=str(uuid4()),
            reference_set=name,
            tile_id=ids.tile_id(name, index),
            place_id="somewhere",
            angle_deg=angle,
            altitude_m=altitude_m,
            overlap=overlap,
            center=LonLat(lon, lat),
            bbox=bbox,
        )
        for angle in draw(st.lists(ANGLES, min_size=1, max_size=3, unique=True))
    ]


def _wrap(lon: float) -> float:
    return lon if -180 <= lon <= 180 else (lon + 180) % 360 - 180


@st.composite
def wheres(draw: st.DrawFn) -> Where:
    """Up to three conditions at a time: all at once keep hardly a tile, whatever each of them says."""
    south, north = sorted([draw(LATITUDES), draw(LATITUDES)])
    conditions = {
        "reference_sets": st.lists(NAMES | st.just("elsewhere"), min_size=1, max_size=3).map(tuple),
        "tile_id": st.sampled_from(["north/00001", "of/600/00002", "south/00003", "north/1", "north"]),
        "angles": st.lists(ANGLES, min_size=1, max_size=3).map(tuple),
        "altitude_m": st.tuples(LOWS, HIGHS).filter(lambda ends: ends[0] <= ends[1]),
        "overlap_pct": st.sampled_from([0, 12, 13, 50, 80]),
        "touches": st.builds(BBox, LONGITUDES, st.just(south), LONGITUDES, st.just(north)),
        "near": st.builds(Near, LONGITUDES, LATITUDES, st.sampled_from([1.0, 900.0, 60_000.0, 9e6, 2e7, 3e7])),
    }
    fields = draw(st.lists(st.sampled_from(sorted(conditions)), max_size=3, unique=True))
    return Where(**{field: draw(conditions[field]) for field in fields})


def clear_of_the_circle(tiles: Sequence[TileFacts], near: Near | None) -> list[TileFacts]:
    """Without the tiles within a millimetre of the circle: two ways to compute a distance differ there."""
    if near is None:
        return list(tiles)
    return [t for t in tiles if abs(float(distance_m(*t.center, near.lon, near.lat)) - near.radius_m) > 1e-3]
