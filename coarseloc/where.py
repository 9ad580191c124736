"""`Where` evaluated on arrays: the filter of the exact mirrors, and the oracle of the vector stores' filters. Pure.

Footprints are compared at seven decimals of a degree (about 1 cm), here and in the vector stores, and with their
longitudes unwrapped: a footprint across the antimeridian (west > east) has 360 added to its east, so that west <= east
always holds. Two footprints then touch when they do so at the same longitudes or a whole turn apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coarseloc.geo import EARTH_RADIUS_M, distance_m
from coarseloc.types import BBox, Bools, Floats, TileFacts, Where

DECIMALS = 7
ANYTHING = Where()

Ints = NDArray[np.int32]
Texts = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class TileColumns:
    """What is known of N rotated tiles, one array [N] a fact, in the order of a mirror's vectors.

    Coordinates are WGS84 degrees rounded to `DECIMALS`; `east` is unwrapped and may exceed 180.
    """

    reference_set: Texts
    tile_id: Texts
    angle_deg: Ints
    overlap_pct: Ints
    altitude_m: Floats  # nan where unknown
    lon: Floats
    lat: Floats
    west: Floats
    south: Floats
    east: Floats
    north: Floats

    def __len__(self) -> int:
        return len(self.angle_deg)


def columns(facts: Sequence[TileFacts]) -> TileColumns:
    """The facts of N rotated tiles as columns, in their order."""
    altitudes = [np.nan if f.altitude_m is None else f.altitude_m for f in facts]
    centers = np.array([f.center for f in facts], np.float64).reshape(-1, 2).round(DECIMALS)
    bounds = np.array([unwrapped(f.bbox) for f in facts], np.float64).reshape(-1, 4)
    return TileColumns(
        reference_set=np.array([f.reference_set for f in facts], np.str_),
        tile_id=np.array([f.tile_id for f in facts], np.str_),
        angle_deg=np.array([f.angle_deg for f in facts], np.int32),
        overlap_pct=np.array([percent(f.overlap) for f in facts], np.int32),
        altitude_m=np.array(altitudes, np.float64),
        lon=centers[:, 0],
        lat=centers[:, 1],
        west=bounds[:, 0],
        south=bounds[:, 1],
        east=bounds[:, 2],
        north=bounds[:, 3],
    )


def percent(overlap: float) -> int:
    """An overlap fraction as the whole percent that filters compare, e.g. 0.5 → 50."""
    return round(overlap * 100)


def unwrapped(box: BBox) -> BBox:
    """A box at `DECIMALS` with west <= east: east is above 180 where it crosses the antimeridian."""
    west, south, east, north = (round(float(degrees), DECIMALS) for degrees in box)
    return BBox(west, south, east + 360.0 if west > east else east, north)


def turns(box: BBox) -> tuple[BBox, ...]:
    """An asked-for box at every longitude where an unwrapped footprint may touch it: where it lies, a turn
    further east (for footprints that cross the antimeridian), and a turn back where it reaches 180 itself."""
    west, south, east, north = unwrapped(box)
    shifts = (0.0, 360.0, -360.0) if east >= 180.0 else (0.0, 360.0)
    return tuple(BBox(west + by, south, east + by, north) for by in shifts)


def mask(tiles: TileColumns, where: Where = ANYTHING) -> Bools:
    """bool [N]: which tiles match every condition of `where`. An unknown altitude is in no range."""
    keep: Bools = np.ones(len(tiles), np.bool_)
    if where.reference_sets:
        keep &= np.isin(tiles.reference_set, where.reference_sets)
    if where.tile_id is not None:
        keep &= tiles.tile_id == where.tile_id
    if where.angles is not None:
        keep &= np.isin(tiles.angle_deg, where.angles)
    if where.overlap_pct is not None:
        keep &= tiles.overlap_pct == where.overlap_pct
    if where.altitude_m is not None:
        low, high = where.altitude_m
        keep &= (tiles.altitude_m >= low) & (tiles.altitude_m <= high)
    if where.touches is not None:
        keep &= _touching(tiles, where.touches)
    if where.near is not None:
        lon, lat, radius_m = where.near
        # The haversine is the dear one: only for those still in, and no circle reaches beyond its band of latitude.
        keep &= np.abs(tiles.lat - lat) <= np.degrees(radius_m / EARTH_RADIUS_M) + 10.0**-DECIMALS
        left = np.flatnonzero(keep)
        keep[left] = distance_m(lon, lat, tiles.lon[left], tiles.lat[left]) <= radius_m
    return keep


def _touching(tiles: TileColumns, box: BBox) -> Bools:
    _, south, _, north = unwrapped(box)
    beside: Bools = np.zeros(len(tiles), np.bool_)
    for turn in turns(box):
        beside |= (tiles.west <= turn.east) & (tiles.east >= turn.west)
    return beside & (tiles.south <= north) & (tiles.north >= south)
