"""Write georeferenced GeoTIFFs: a north-up RGB array, and values of places as a raster of a map's own CRS."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.transform import Affine
from rasterio.warp import transform

from coarseloc.core import files, geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import Floats, LonLat, UInt8
from coarseloc.imagery.raster import Raster

_CELLS_PER_STRIDE = 2  # a side: so many show each place alike in a grid that is turned against the raster's
_CELLS_AT_ONCE = 2**22  # distances to places, in memory


def utm_epsg(center: LonLat) -> int:
    """Return the EPSG code of the WGS84 UTM zone that holds a position (the plain six-degree zones)."""
    if not -80.0 <= center.lat <= 84.0:
        raise InputError(f"UTM ends at 80° S and 84° N, found latitude {center.lat}: choose another centre")
    zone = min(int((center.lon + 180.0) // 6.0) + 1, 60)
    return (32600 if center.lat >= 0 else 32700) + zone


def write_rgb(path: Path, pixels: UInt8, *, center: LonLat, gsd_m: float) -> Path:
    """Write uint8 [H, W, 3] so that its middle lies at `center`, in metres of the UTM zone there, with
    overviews down to about 256 pixels. Replaces what is there only when the new file is whole."""
    height, width = pixels.shape[:2]
    crs = CRS.from_epsg(utm_epsg(center))
    (east,), (north,) = transform(CRS.from_epsg(4326), crs, [center.lon], [center.lat])
    # A grid that starts on whole metres keeps coordinates readable.
    west, top = round(east - width * gsd_m / 2), round(north + height * gsd_m / 2)
    to_crs = Affine(gsd_m, 0.0, west, 0.0, -gsd_m, top)
    levels = [2**n for n in range(1, max(1, math.ceil(math.log2(max(height, width) / 256))) + 1)]
    with _new_raster(
        path, width=width, height=height, count=3, dtype="uint8", crs=crs, transform=to_crs,
        photometric="RGB", tiled=True, blockxsize=256, blockysize=256, compress="deflate", predictor=2,
    ) as raster:  # fmt: skip
        raster.write(pixels.transpose(2, 0, 1))
        raster.build_overviews([level for level in levels if min(height, width) // level > 0], Resampling.average)
    return path


@contextmanager
def _new_raster(path: Path, **profile: Any) -> Iterator[DatasetWriter]:
    """Open a GeoTIFF in memory, written to `path` at the end: GDAL does not say of every write that it failed."""
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **profile) as raster:
            yield raster
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, memory.getbuffer())


def write_places(
    path: Path,
    lon: Floats,
    lat: Floats,
    values: Mapping[str, Floats],
    *,
    stride_m: float,
    like: Path | None = None,
    crs: str | None = None,
) -> Path:
    """Write a float32 band for each of `values`, [P] of P places: every cell has its nearest place's, nan (nodata)
    where none lies within a stride.

    lon, lat: [P]. stride_m: between places. like: a raster whose CRS is taken, `crs` if that says so; WGS84 without.
    """
    target = CRS.from_epsg(4326) if like is None else Raster(like, crs).crs
    wgs84 = CRS.from_epsg(4326)
    middle = LonLat(float(lon[len(lon) // 2]), float(lat[len(lat) // 2]))
    corners = [middle, geo.offset(middle, stride_m, 0.0), geo.offset(middle, 0.0, stride_m)]
    (x0, x1, x2), (y0, y1, y2) = transform(wgs84, target, *map(list, zip(*corners, strict=True)))
    cell_x, cell_y = (math.hypot(*step) / _CELLS_PER_STRIDE for step in ((x1 - x0, y1 - y0), (x2 - x0, y2 - y0)))
    xs, ys = (np.asarray(axis) for axis in transform(wgs84, target, lon.tolist(), lat.tolist()))
    half = _CELLS_PER_STRIDE / 2
    west, north = xs.min() - half * cell_x, ys.max() + half * cell_y
    width, height = round((xs.max() - west) / cell_x + half), round((north - ys.min()) / cell_y + half)
    nearest, cells = _nearest((xs - west) / cell_x, (north - ys) / cell_y, width, height)
    with _new_raster(
        path, width=width, height=height, count=len(values), dtype="float32", crs=target,
        transform=Affine(cell_x, 0.0, west, 0.0, -cell_y, north), nodata=np.nan, compress="deflate",
    ) as raster:  # fmt: skip
        for band, (name, of_places) in enumerate(values.items(), start=1):
            near = cells <= _CELLS_PER_STRIDE / math.sqrt(2) + 0.01  # half a place's diagonal
            raster.write(np.where(near, of_places[nearest], np.nan).astype(np.float32), band)
            raster.set_band_description(band, name)
    return path


def _nearest(x: Floats, y: Floats, width: int, height: int) -> tuple[np.ndarray, Floats]:
    """(the nearest place of each cell int [height, width], how many cells away it lies), places given in cells."""
    places, distances = [], []
    column = np.arange(width)[None, :, None] + 0.5
    rows = max(1, _CELLS_AT_ONCE // (width * len(x)))
    for top in range(0, height, rows):
        row = np.arange(top, min(top + rows, height))[:, None, None] + 0.5
        apart = np.hypot(column - x, row - y)
        places.append(apart.argmin(axis=2))
        distances.append(apart.min(axis=2))
    return np.concatenate(places), np.concatenate(distances)
