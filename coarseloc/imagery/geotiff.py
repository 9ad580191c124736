"""Write a north-up RGB array as a georeferenced, tiled GeoTIFF."""

from __future__ import annotations

import math
from pathlib import Path

import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import transform

from coarseloc.core import files
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat, UInt8


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial, rasterio.open(
        partial, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8", crs=crs, transform=to_crs,
        photometric="RGB", tiled=True, blockxsize=256, blockysize=256, compress="deflate", predictor=2,
    ) as raster:  # fmt: skip
        raster.write(pixels.transpose(2, 0, 1))
        raster.build_overviews([level for level in levels if min(height, width) // level > 0], Resampling.average)
    return path
