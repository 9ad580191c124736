"""Values of places as a raster: where each cell lies, and what it holds."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform

from coarseloc.core import geo
from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import write_places, write_rgb

MIDDLE = LonLat(127.03, 37.5)


def places(columns=4, rows=3, stride_m=200.0):
    spots = [geo.offset(MIDDLE, stride_m * x, -stride_m * y) for y in range(rows) for x in range(columns)]
    return np.array(spots).T


@pytest.mark.parametrize("projected", [True, False])
def test_each_place_reads_its_own_value_back_in_the_maps_crs(tmp_path, projected):
    lon, lat = places()
    like = write_rgb(tmp_path / "map.tif", np.zeros((64, 64, 3), np.uint8), center=MIDDLE, gsd_m=5.0)
    values = np.arange(12.0)
    path = write_places(
        tmp_path / "out" / "values.tif", lon, lat, {"number": values, "half": values / 2},
        stride_m=200.0, like=like if projected else None,
    )  # fmt: skip
    with rasterio.open(path) as raster, rasterio.open(like) as source:
        assert raster.crs == (source.crs if projected else rasterio.crs.CRS.from_epsg(4326))
        assert raster.descriptions == ("number", "half")
        x, y = transform("EPSG:4326", raster.crs, lon.tolist(), lat.tolist())
        sampled = np.array(list(raster.sample(zip(x, y, strict=True))))
        assert np.array_equal(sampled[:, 0], values) and np.array_equal(sampled[:, 1], values / 2)
        assert (raster.width, raster.height) == (8, 6)


def test_cells_beyond_a_stride_of_any_place_hold_nothing(tmp_path):
    lon, lat = places()
    gone = np.array([5, 6])  # a hole in the grid
    lon, lat = np.delete(lon, gone), np.delete(lat, gone)
    path = write_places(tmp_path / "values.tif", lon, lat, {"one": np.ones(10)}, stride_m=200.0)
    with rasterio.open(path) as raster:
        held = np.isfinite(raster.read(1))
        hole = raster.index(*geo.offset(MIDDLE, 300.0, -200.0))
    assert not held[hole] and held.sum() == 4 * 10
