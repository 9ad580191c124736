"""The grid of unturned footprints over an area, and how large a footprint is. Pure.

Footprints are squares in metres, laid in longitude and latitude by the metres a degree has at each row,
so a tile is as large in the north of the area as in the south.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import BBox, LonLat, Tile

Float64 = NDArray[np.float64]

MAX_TILES = 2_000_000  # more is a mistyped footprint or overlap, not a reference set
_SLACK = 1e-4  # of a footprint's side: an area exactly n strides wide keeps its n-th tile despite rounding
_SAMPLE = 512  # centres whose nearest neighbour is looked up: enough for a median


def grid(bounds: BBox, footprint_m: float, overlap: float) -> list[Tile]:
    """Every footprint of `footprint_m` metres that lies inside `bounds`, `footprint_m * (1 - overlap)` apart.

    The first footprint's north-west corner is the bounds' own; index 1 is there, and indices run west to
    east, then north to south. A row lies on one latitude. Bounds may cross the antimeridian (west > east).
    Raises InputError where a value is impossible or not even one footprint fits.
    """
    return tiles_at(centres(bounds, footprint_m, overlap), footprint_m)


def tiles_at(places: Float64, footprint_m: float) -> list[Tile]:
    """Tiles of `footprint_m` metres around places, float64 [N, 2] (lon, lat), indexed from 1 in this order."""
    spots = [LonLat(lon, lat) for lon, lat in places.tolist()]
    return [Tile(index, center, geo.square(center, footprint_m)) for index, center in enumerate(spots, 1)]


def centres(bounds: BBox, footprint_m: float, overlap: float) -> Float64:
    """The centres of `grid`, float64 [N, 2] (lon, lat), in its order; for grids of which few tiles are kept."""
    stride_m = check_footprint(footprint_m) * (1 - check_overlap(overlap))
    _check_bounds(bounds)
    width_m, height_m = geo.box_size_m(bounds)
    rows = _count(height_m, footprint_m, stride_m)
    if rows * _count(width_m, footprint_m, stride_m) > MAX_TILES:
        raise InputError(
            f"a stride of {stride_m:.3g} m would lay more than {MAX_TILES:,} tiles on {width_m:.0f} m x "
            f"{height_m:.0f} m: give a larger footprint or less overlap"
        )
    places = []
    lat = bounds.north - footprint_m / 2 / geo.metres_per_degree(bounds.north)[1]
    for _ in range(rows):
        per_lon, per_lat = geo.metres_per_degree(lat)
        columns = np.arange(_count(geo.box_width_deg(bounds) * per_lon, footprint_m, stride_m))
        lon = bounds.west + (footprint_m / 2 + columns * stride_m) / per_lon
        places.append(np.stack([(lon + 180) % 360 - 180, np.full(len(lon), lat)], axis=1))
        lat -= stride_m / per_lat
    if not sum(map(len, places)):
        raise InputError(
            f"no tile fits: the area is {width_m:.1f} m x {height_m:.1f} m, a footprint {footprint_m:.1f} m "
            "a side. Give a smaller footprint (or a lower altitude), or a larger area."
        )
    return np.concatenate(places)


def footprint_from_fov(altitude_m: float, fov_deg: float) -> float:
    """Side in metres of the ground that a downward camera sees: 2 h tan(fov / 2)."""
    if not (math.isfinite(altitude_m) and altitude_m > 0):
        raise InputError(f"altitude is {altitude_m} m: expected metres above ground, more than 0")
    if not 0 < fov_deg < 180:
        raise InputError(f"field of view is {fov_deg} degrees: expected more than 0 and less than 180")
    return 2 * altitude_m * math.tan(math.radians(fov_deg) / 2)


def footprint_from_spacing(places: Sequence[LonLat], overlap: float) -> float:
    """Side in metres that a grid's own spacing implies: stride / (1 - overlap).

    The stride is the median distance from a centre to its nearest other one, so a few missing or misplaced
    tiles do not matter. Raises InputError where fewer than two places differ.
    """
    return spacing(places) / (1 - check_overlap(overlap))


def spacing(places: Sequence[LonLat]) -> float:
    """The median distance in metres from a centre to its nearest other one."""
    apart = np.unique(np.round(np.asarray(places, float).reshape(-1, 2), 7), axis=0)  # 1e-7 degrees: 1 cm
    if len(apart) < 2:
        raise InputError(
            f"{len(apart)} place(s) with a position: the footprint cannot be told from the grid's spacing, "
            "which takes two. Give the footprint in metres."
        )
    step = -(-len(apart) // _SAMPLE)
    nearest = [_nearest_m(LonLat(lon, lat), apart) for lon, lat in apart[::step]]
    return float(np.median(nearest))


def strides(places: Sequence[LonLat]) -> tuple[float | None, float | None]:
    """(east, north) metres from a centre to its next one in its row, and in its column: medians; None without any."""
    apart = np.unique(np.round(np.asarray(places, float).reshape(-1, 2), 7), axis=0)
    medians: list[float | None] = []
    for axis in (0, 1):
        nearest = []
        for lon, lat in apart[:: max(1, -(-len(apart) // _SAMPLE))]:
            offsets = np.abs(_offsets(LonLat(lon, lat), apart))
            in_line = offsets[(offsets[:, 1 - axis] < offsets[:, axis] / 4), axis]
            nearest += [in_line.min()] if len(in_line) else []
        medians.append(float(np.median(nearest)) if nearest else None)
    return medians[0], medians[1]


def _nearest_m(place: LonLat, places: Float64) -> float:
    """Metres to the nearest other place, on the ellipsoid the grid was laid on: the sphere is off by up to 0.5 %."""
    return float(np.partition(np.hypot(*_offsets(place, places).T), 1)[1])  # [0] is the place itself


def _offsets(place: LonLat, places: Float64) -> Float64:
    """float64 [N, 2]: metres east and north of a place."""
    east = (places[:, 0] - place.lon + 180.0) % 360.0 - 180.0
    return np.stack([east, places[:, 1] - place.lat], axis=1) * geo.metres_per_degree(place.lat)


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


def _check_bounds(bounds: BBox) -> None:
    west, south, east, north = bounds
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise InputError(
            f"bounds {tuple(bounds)} are not west, south, east, north in WGS84 degrees "
            "(longitudes within ±180, latitudes within ±90, south below north)"
        )


def _count(length_m: float, footprint_m: float, stride_m: float) -> int:
    """How many footprints, `stride_m` apart, lie within a length."""
    room = length_m - footprint_m * (1 - _SLACK)
    return math.floor(room / stride_m) + 1 if room >= 0 else 0


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` rows, int64 ascending: one at a random place in each of as many equal parts, the same
    ones every time. Evenly spaced rows may all lie in one column of a grid, or at one heading."""
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, most + 1)
    within = np.random.default_rng(0).random(most)
    return np.asarray((edges[:-1] + within * np.diff(edges)).astype(np.int64))
