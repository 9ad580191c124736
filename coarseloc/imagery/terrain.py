"""Heights of the ground above sea level, out of a raster of them (a DEM)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio.warp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from coarseloc.core.errors import InputError
from coarseloc.core.types import Floats, LonLat
from coarseloc.imagery.raster_files import open_raster, raster_files

_HEIGHT_DRIVERS = {".asc": "AAIGrid", ".hgt": "SRTMHGT", ".dt0": "DTED", ".dt1": "DTED", ".dt2": "DTED"}
_METRES = (None, "", "m", "metre", "metres", "meter", "meters")


def terrain_heights_m(path: Path, places: Sequence[LonLat]) -> list[float | None]:
    """Metres above sea level at each place, bilinear between the raster's pixels; None beyond it and where it has none.

    Files are of the kinds that maps are, or `.asc`, `.hgt`, `.dt0` … `.dt2`. Raises InputError where the file is no
    raster of one band, in metres, in a known CRS.
    """
    try:
        with _open_heights(path) as source:
            if source.count != 1:
                raise InputError(f"{path} has {source.count} bands: expected heights in metres alone, as a DEM has")
            if source.crs is None:
                raise InputError(f"{path} states no CRS: write it with `gdal_edit.py -a_srs EPSG:CODE`")
            if source.units[0] not in _METRES:
                raise InputError(f"{path} is in {source.units[0]}: expected heights in metres")
            if not places:
                return []
            longitudes, latitudes = zip(*places, strict=True)
            xs, ys = rasterio.warp.transform("EPSG:4326", source.crs, longitudes, latitudes)
            x, y = np.array(xs), np.array(ys)
            a, b, c, d, e, f = (~source.transform)[:6]
            columns, rows = a * x + b * y + c - 0.5, d * x + e * y + f - 0.5  # of pixels' middles
            inside = (columns > -0.5) & (columns < source.width - 0.5) & (rows > -0.5) & (rows < source.height - 0.5)
            if not inside.any():
                return [None] * len(places)
            left, top = (math.floor(float(axis[inside].min())) for axis in (columns, rows))
            right, bottom = (math.floor(float(axis[inside].max())) + 2 for axis in (columns, rows))
            window = Window(left, top, right - left, bottom - top)
            pixels = source.read(1, window=window, boundless=True, masked=True).astype(np.float64).filled(np.nan)
    except RasterioError as error:
        raise InputError(f"{path} cannot be read as a raster: {error}") from error
    heights = _bilinear(pixels, columns - left, rows - top, inside)
    return [None if math.isnan(height) else height for height in heights.tolist()]


def _open_heights(path: Path) -> DatasetReader:
    """As a map is opened, by the driver of its content; or by its suffix, as grids of heights alone are."""
    driver = _HEIGHT_DRIVERS.get(path.suffix.lower())
    if driver is not None and path.is_file():
        return open_raster(str(path), driver)
    files = raster_files(path, None)
    if files.missing:
        raise InputError(f"{path} lacks a part that it names: {files.missing[0].path}")
    return open_raster(files.name, files.driver)


def _bilinear(pixels: Floats, columns: Floats, rows: Floats, inside: np.ndarray) -> Floats:
    """float64 [P]: between four pixels, those that have a height; NaN where none has, and outside."""
    column, row = (np.where(inside, np.floor(axis), 0).astype(int) for axis in (columns, rows))
    right, down = np.where(inside, columns - column, 0.0), np.where(inside, rows - row, 0.0)
    corners = np.stack(
        [pixels[row, column], pixels[row, column + 1], pixels[row + 1, column], pixels[row + 1, column + 1]]
    )
    weights = np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    weights = np.where(np.isnan(corners), 0.0, weights)
    total = weights.sum(0)
    heights = (weights * np.nan_to_num(corners)).sum(0) / np.where(total > 0, total, 1.0)
    return np.where(inside & (total > 0), heights, np.nan)
