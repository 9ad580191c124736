"""Where the tiles of a raster lie: the grid over it, less what falls outside or holds no ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import tiling
from coarseloc.core.errors import InputError
from coarseloc.core.types import BBox, Tile
from coarseloc.imagery.raster import Raster

MIN_GROUND = 0.5  # tiles with less of it at heading 0 are left out

_EDGE = 0.49  # of a tile's pixel: so little may pass the raster's edge, as the pixels' centres stay inside
_SAMPLES = 16  # a side: where ground is looked for in a tile
_CHUNK = 4096  # tiles at once

Float64 = NDArray[np.float64]


def layout_tiles(raster: Raster, footprint_m: float, overlap: float, side_px: int) -> tuple[list[Tile], Float64, int]:
    """Lay tiles over a raster; returns (tiles, their affines float64 [N, 6], number of places without enough ground).

    The grid runs along parallels and meridians, the raster seldom quite does. So two grids are tried, over the
    box inside the raster's outline and over the box around it, and the one with more tiles inside is taken.
    """
    places, affines = np.empty((0, 2)), np.empty((0, 6))
    refusal = InputError(f"no tile fits: no footprint of {footprint_m:g} m lies whole inside {raster.path.name}")
    for bounds in _grid_bounds(raster):
        try:
            grid = tiling.centres(bounds, footprint_m, overlap)
        except InputError as error:
            refusal = error
            continue
        whole = _whole_footprints(raster, grid, footprint_m, side_px)
        places, affines = max((places, affines), whole, key=lambda footprints: len(footprints[0]))
    if len(places) == 0:
        raise refusal
    on_ground = _ground_shares(raster, affines, side_px) >= MIN_GROUND
    if not on_ground.any():
        raise InputError(
            f"none of the {len(places)} footprints of {footprint_m:g} m inside {raster.path.name} holds as much as "
            f"{MIN_GROUND:.0%} of ground: is its nodata value or mask right, or its border ground (--border-is-ground)?"
        )
    return tiling.tiles_at(places[on_ground], footprint_m), affines[on_ground], int((~on_ground).sum())


def _whole_footprints(raster: Raster, places: Float64, footprint_m: float, side_px: int) -> tuple[Float64, Float64]:
    """Select the places whose whole footprint is inside the raster; returns (places, affines)."""
    x, y = raster.pixels_of(places[:, 0], places[:, 1])
    places = places[(x > 0) & (x < raster.width) & (y > 0) & (y < raster.height)]  # few of a long strip's box
    affines = raster.affines(places, footprint_m, side_px)
    x, y = _lattice(affines, side_px, [0.0, 1.0])
    a, b, _, d, e, _ = (column[:, None] for column in affines.T)
    edge = _EDGE * np.sqrt(np.abs(a * e - b * d))
    whole = (x > -edge) & (x < raster.width + edge) & (y > -edge) & (y < raster.height + edge)
    whole = whole.all(axis=1)
    return places[whole], affines[whole]


def _grid_bounds(raster: Raster) -> list[BBox]:
    """Return the box inside the raster's outline, where its edges run roughly north and east, and the box around it."""
    t = np.linspace(0.0, 1.0, 33)
    start, end = np.zeros_like(t), np.ones_like(t)
    x = np.stack([t, t, start, end]) * raster.width  # one row for each edge
    y = np.stack([start, end, t, t]) * raster.height
    lon, lat = raster.positions_of(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise InputError(f"{raster.path.name} reaches beyond where its CRS maps to longitude and latitude: crop it")
    middle = lon[0, 0]
    lon = middle + (lon - middle + 180) % 360 - 180  # unwrapped, for rasters across the antimeridian
    by_lon, by_lat = lon.mean(axis=1), lat.mean(axis=1)
    inner = (
        lon[by_lon.argmin()].max(),
        lat[by_lat.argmin()].max(),
        lon[by_lon.argmax()].min(),
        lat[by_lat.argmax()].min(),
    )
    outer = (lon.min(), lat.min(), lon.max(), lat.max())
    return [
        BBox(_wrap_lon(west), float(south), _wrap_lon(east), float(north))
        for west, south, east, north in (inner, outer)
        if west < east and south < north
    ]


def _wrap_lon(lon: float) -> float:
    return float(lon) if -180 <= lon <= 180 else float((lon + 180) % 360 - 180)


def _lattice(affines: Float64, side_px: int, fractions: Sequence[float]) -> tuple[Float64, Float64]:
    """Return raster pixels (x, y), [N, F²] each, of a lattice at F fractions of every tile's sides."""
    u, v = (part.ravel() * side_px for part in np.meshgrid(fractions, fractions))
    a, b, c, d, e, f = (column[:, None] for column in affines.T)
    return a * u + b * v + c, d * u + e * v + f


def _ground_shares(raster: Raster, affines: Float64, side_px: int) -> Float64:
    """Return float64 [N], the share of ground in each tile at heading 0, sampled from a small copy of the mask."""
    mask = raster.ground_mask()
    if mask is None:
        return np.ones(len(affines))
    height, width = mask.shape
    fractions = [(i + 0.5) / _SAMPLES for i in range(_SAMPLES)]
    shares = []
    for start in range(0, len(affines), _CHUNK):
        x, y = _lattice(affines[start : start + _CHUNK], side_px, fractions)
        column = np.clip(x * width / raster.width, 0, width - 1).astype(int)
        row = np.clip(y * height / raster.height, 0, height - 1).astype(int)
        shares.append(mask[row, column].mean(axis=1))
    return np.concatenate(shares)
