"""The grid of unturned footprints over an area, and how large a footprint is. Pure.

Footprints are squares in metres, laid in longitude and latitude by the metres a degree has at each row,
so a tile is as large in the north of the area as in the south.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from coarseloc import geo
from coarseloc.errors import InputError
from coarseloc.types import BBox, LonLat, Tile

MAX_TILES = 2_000_000  # more is a mistyped footprint or overlap, not a reference set
_SLACK = 1e-4  # of a footprint's side: an area exactly n strides wide keeps its n-th tile despite rounding
_SAMPLE = 512  # centres whose nearest neighbour is looked up: enough for a median


def grid(bounds: BBox, footprint_m: float, overlap: float) -> list[Tile]:
    """Every footprint of `footprint_m` metres that lies inside `bounds`, `footprint_m * (1 - overlap)` apart.

    The first footprint's north-west corner is the bounds' own; index 1 is there, and indices run west to
    east, then north to south. A row lies on one latitude. Bounds may cross the antimeridian (west > east).
    Raises InputError where a value is impossible or not even one footprint fits.
    """
    stride_m = _stride(footprint_m, overlap)
    _check_bounds(bounds)
    width_deg = _width_deg(bounds)
    rows = [
        (lat, _count(width_deg * geo.metres_per_degree(lat)[0], footprint_m, stride_m))
        for lat in _row_latitudes(bounds, footprint_m, stride_m)
    ]
    tiles: list[Tile] = []
    for lat, columns in rows:
        edge = LonLat(bounds.west, lat)
        for column in range(columns):
            center = geo.offset(edge, footprint_m / 2 + column * stride_m, 0.0)
            tiles.append(Tile(len(tiles) + 1, center, geo.square(center, footprint_m)))
    if not tiles:
        width_m, height_m = _size(bounds)
        raise InputError(
            f"no tile fits: the area is {width_m:.1f} m x {height_m:.1f} m, a footprint {footprint_m:.1f} m "
            "a side. Give a smaller footprint (or a lower altitude), or a larger area."
        )
    return tiles


def footprint_from_fov(altitude_m: float, fov_deg: float) -> float:
    """Side in metres of the ground that a downward camera sees: 2 h tan(fov / 2)."""
    if not (math.isfinite(altitude_m) and altitude_m > 0):
        raise InputError(f"altitude is {altitude_m} m: expected metres above ground, more than 0")
    if not 0 < fov_deg < 180:
        raise InputError(f"field of view is {fov_deg} degrees: expected more than 0 and less than 180")
    return 2 * altitude_m * math.tan(math.radians(fov_deg) / 2)


def footprint_from_spacing(centres: Sequence[LonLat], overlap: float) -> float:
    """Side in metres that a grid's own spacing implies: stride / (1 - overlap).

    The stride is the median distance from a centre to its nearest other one, so a few missing or misplaced
    tiles do not matter. Raises InputError where fewer than two places differ.
    """
    return spacing(centres) / (1 - check_overlap(overlap))


def spacing(centres: Sequence[LonLat]) -> float:
    """The median distance in metres from a centre to its nearest other one."""
    places = np.unique(np.round(np.asarray(centres, float).reshape(-1, 2), 7), axis=0)  # 1e-7 degrees: 1 cm
    if len(places) < 2:
        raise InputError(
            f"{len(places)} place(s) with a position: the footprint cannot be told from the grid's spacing, "
            "which takes two. Give the footprint in metres."
        )
    step = max(1, len(places) // _SAMPLE)
    nearest = [_nearest_m(LonLat(lon, lat), places) for lon, lat in places[::step]]
    return float(np.median(nearest))


def _nearest_m(place: LonLat, places: NDArray[np.float64]) -> float:
    """Metres to the nearest other place, on the ellipsoid the grid was laid on: the sphere is off by up to 0.5 %."""
    per_lon, per_lat = geo.metres_per_degree(place.lat)
    east = (places[:, 0] - place.lon + 180.0) % 360.0 - 180.0
    distances = np.hypot(east * per_lon, (places[:, 1] - place.lat) * per_lat)
    return float(np.partition(distances, 1)[1])  # [0] is the place itself


def check_overlap(overlap: float) -> float:
    """`overlap` itself if it is a fraction in [0, 1), else InputError."""
    if not 0 <= overlap < 1:
        raise InputError(f"overlap is {overlap}: expected a fraction in [0, 1), such as 0.5 for 50 %")
    return overlap


def check_footprint(footprint_m: float) -> float:
    """`footprint_m` itself if it is a length, else InputError."""
    if not (math.isfinite(footprint_m) and footprint_m > 0):
        raise InputError(f"footprint is {footprint_m} m: expected a finite number of metres above 0")
    return footprint_m


def _stride(footprint_m: float, overlap: float) -> float:
    return check_footprint(footprint_m) * (1 - check_overlap(overlap))


def _check_bounds(bounds: BBox) -> None:
    west, south, east, north = bounds
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise InputError(
            f"bounds {tuple(bounds)} are not west, south, east, north in WGS84 degrees "
            "(longitudes within ±180, latitudes within ±90, south below north)"
        )


def _row_latitudes(bounds: BBox, footprint_m: float, stride_m: float) -> Iterator[float]:
    """The latitude of each row's centres, north to south."""
    height_m = (bounds.north - bounds.south) * geo.metres_per_degree((bounds.north + bounds.south) / 2)[1]
    rows = _count(height_m, footprint_m, stride_m)
    width_m = _size(bounds)[0]
    if rows * max(1, _count(width_m, footprint_m, stride_m)) > MAX_TILES:
        raise InputError(
            f"a stride of {stride_m:.3g} m would lay more than {MAX_TILES:,} tiles on {width_m:.0f} m x "
            f"{height_m:.0f} m: give a larger footprint or less overlap"
        )
    lat = bounds.north - footprint_m / 2 / geo.metres_per_degree(bounds.north)[1]
    for _ in range(rows):
        yield lat
        lat -= stride_m / geo.metres_per_degree(lat)[1]


def _count(length_m: float, footprint_m: float, stride_m: float) -> int:
    """How many footprints, `stride_m` apart, lie within a length."""
    room = length_m - footprint_m * (1 - _SLACK)
    return math.floor(room / stride_m) + 1 if room >= 0 else 0


def _width_deg(bounds: BBox) -> float:
    return bounds.east - bounds.west + (360 if bounds.west > bounds.east else 0)


def _size(bounds: BBox) -> tuple[float, float]:
    """(width, height) in metres at the bounds' middle latitude."""
    per_lon, per_lat = geo.metres_per_degree((bounds.south + bounds.north) / 2)
    return _width_deg(bounds) * per_lon, (bounds.north - bounds.south) * per_lat
