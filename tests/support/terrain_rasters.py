"""Rasters of heights, as a DEM is."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

WEST, NORTH, STEP = 127.0, 37.6, 0.001


def write_dem(path: Path, heights: np.ndarray, **options: Any) -> Path:
    profile = {
        "driver": "GTiff", "height": heights.shape[-2], "width": heights.shape[-1], "count": 1, "dtype": "float32",
        "crs": "EPSG:4326", "transform": from_origin(WEST, NORTH, STEP, STEP), "nodata": -9999.0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile | options) as target:
        for band in range(target.count):
            target.write(heights.astype(np.float32), band + 1)
    return path
