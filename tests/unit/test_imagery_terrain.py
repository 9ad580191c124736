"""Heights of the ground, between a raster's pixels."""

import numpy as np
import pytest
import rasterio
from terrain_rasters import NORTH, STEP, WEST, write_dem

from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
from coarseloc.imagery.terrain import terrain_heights_m


def slope(rows: int = 40, columns: int = 50) -> np.ndarray:
    """100 m, rising 3 m a pixel eastwards and falling 2 m southwards."""
    row, column = np.mgrid[:rows, :columns]
    return 100.0 + 3.0 * column - 2.0 * row


def place(column: float, row: float) -> LonLat:
    """Of pixels, the first one's middle at (0, 0)."""
    return LonLat(WEST + (column + 0.5) * STEP, NORTH - (row + 0.5) * STEP)


def test_heights_lie_on_the_plane_between_pixels(tmp_path):
    dem = write_dem(tmp_path / "dem.tif", slope())
    rng = np.random.default_rng(0)
    points = [(float(column), float(row)) for column, row in rng.uniform(0, (48.9, 38.9), (50, 2))]
    heights = terrain_heights_m(dem, [place(*point) for point in points])
    assert heights == pytest.approx([100.0 + 3.0 * column - 2.0 * row for column, row in points], abs=1e-3)


def test_a_dem_is_opened_by_the_driver_of_its_kind_and_no_other(tmp_path):
    dem = write_dem(tmp_path / "dem.tif", slope())
    grid = tmp_path / "grid.asc"
    lines = [f"ncols 50\nnrows 40\nxllcorner {WEST}\nyllcorner {NORTH - 40 * STEP}\ncellsize {STEP}\n"]
    grid.write_text("".join([*lines, *(" ".join(map(str, row)) + "\n" for row in slope())]))
    with rasterio.open(dem) as source:
        grid.with_suffix(".prj").write_text(source.crs.to_wkt())
    assert terrain_heights_m(grid, [place(5, 5)]) == pytest.approx([105.0], abs=1e-2)
    remote = tmp_path / "remote.xml"  # GDAL would ask a server for it
    remote.write_text("<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>")
    with pytest.raises(InputError, match="raster"):
        terrain_heights_m(remote, [place(5, 5)])


def test_places_beyond_the_raster_or_without_a_height_have_none(tmp_path):
    heights = slope()
    heights[10:20, 10:20] = -9999.0
    dem = write_dem(tmp_path / "dem.tif", heights)
    inside, hole, beside, beyond, border = terrain_heights_m(
        dem, [place(30, 30), place(15, 15), place(9.75, 15), place(-3, 5), place(-0.4, 5)]
    )
    assert inside == pytest.approx(130.0) and hole is None and beyond is None
    assert beside == pytest.approx(100.0 + 27.0 - 30.0)  # the pixel beside the hole
    assert border == pytest.approx(90.0)  # the outermost pixel's half
    assert terrain_heights_m(dem, []) == []
    assert terrain_heights_m(dem, [place(-30, 5)]) == [None]


def test_files_that_are_no_heights_in_metres_are_refused(tmp_path):
    for name, options, message in (
        ("rgb.tif", {"count": 3}, "has 3 bands"),
        ("nowhere.tif", {"crs": None}, "states no CRS"),
    ):
        with pytest.raises(InputError, match=message):
            terrain_heights_m(write_dem(tmp_path / name, slope(), **options), [place(1, 1)])
    feet = write_dem(tmp_path / "feet.tif", slope())
    with rasterio.open(feet, "r+") as target:
        target.units = ("ft",)
    with pytest.raises(InputError, match="is in ft"):
        terrain_heights_m(feet, [place(1, 1)])
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(InputError, match="cannot be read"):
        terrain_heights_m(tmp_path / "text.tif", [place(1, 1)])
