"""Windows of an orthophoto: where they lie, what is valid, and how a whole map is covered by them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine
from coarseloc.core.types import BBox, LonLat
from coarseloc.core.windows import MapWindow, blocks_over, north_up
from coarseloc.imagery import geotiff
from coarseloc.imagery.orthophoto import cut_view
from coarseloc.imagery.windows import MAX_WINDOW_PX, OrthophotoWindows

CENTER = LonLat(127.03, 37.49)


@pytest.fixture(scope="module")
def orthophoto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 x 240 px of 2 m, a light square of 20 m in its middle."""
    pixels = np.full((240, 300, 3), 60, np.uint8)
    pixels[115:125, 145:155] = 220
    return geotiff.write_rgb(tmp_path_factory.mktemp("windows") / "area.tif", pixels, center=CENTER, gsd_m=2.0)


def test_a_window_shows_what_a_cut_view_shows(orthophoto: Path):
    center = geo.offset(CENTER, 30.0, -20.0)
    window = OrthophotoWindows(orthophoto).window(center, 120.0, 2.0)
    assert np.array_equal(window.pixels, cut_view(orthophoto, center, 120.0, 0.0, 60).pixels)
    assert window.valid is None and window.center == center and window.gsd_m == 2.0


def test_a_window_knows_where_its_pixels_are(orthophoto: Path):
    window = OrthophotoWindows(orthophoto).window(geo.offset(CENTER, 30.0, -20.0), 120.0, 2.0)
    light = window.pixels[..., 0] > 140
    rows, columns = np.nonzero(light)
    middle = window.location((columns.mean() + 0.5) * 2.0, (rows.mean() + 0.5) * 2.0)
    assert float(geo.ellipsoid_distance_m(middle.lon, middle.lat, *CENTER)) < 1.5  # the grid starts on whole metres


def test_beyond_the_raster_a_window_is_not_valid(orthophoto: Path):
    source = OrthophotoWindows(orthophoto)
    corner = LonLat(source.bounds.west, source.bounds.north)
    window = source.window(corner, 100.0, 2.0)
    assert window.valid is not None and 0.15 < float(window.valid.mean()) < 0.3
    assert not window.pixels[~window.valid].any()
    far = source.window(geo.offset(corner, -5000.0, 0.0), 100.0, 2.0)
    assert far.valid is not None and not far.valid.any()


def test_a_window_without_size_or_of_too_many_pixels_is_refused(orthophoto: Path):
    source = OrthophotoWindows(orthophoto)
    for side_m, gsd_m in ((0.0, 1.0), (100.0, 0.0), (10.0 * MAX_WINDOW_PX, 1.0)):
        with pytest.raises(InputError, match="expected both above 0"):
            source.window(CENTER, side_m, gsd_m)


def test_the_map_has_its_own_ground_sample_distance_and_bounds(orthophoto: Path):
    source = OrthophotoWindows(orthophoto)
    assert math.isclose(source.gsd_m, 2.0, rel_tol=1e-3)
    assert bool(geo.inside(CENTER.lon, CENTER.lat, source.bounds))


def test_metres_and_positions_of_a_turned_window_are_each_others_inverse():
    cos, sin = math.cos(0.02), math.sin(0.02)
    window = MapWindow(
        np.zeros((50, 60, 3), np.uint8), None, 2.0, Affine(2 * cos, 2 * sin, -60.0, 2 * sin, -2 * cos, 50.0), CENTER
    )
    assert np.allclose(window.metres_of(window.location(31.0, 77.0)), (31.0, 77.0), atol=1e-6)
    assert math.isclose(window.heading_deg, math.degrees(-0.02), abs_tol=1e-9)
    assert north_up(window.pixels, None, 2.0, CENTER).heading_deg == 0.0


@pytest.mark.parametrize("most_m", [100.0, 230.0, 700.0, 5000.0])
def test_blocks_cover_their_box_and_are_no_larger_than_said(most_m: float):
    west, south = CENTER
    per_lon, per_lat = geo.metres_per_degree(south)
    bounds = BBox(west, south, west + 600.0 / per_lon, south + 480.0 / per_lat)
    centers, (half_width_m, half_height_m) = blocks_over(bounds, most_m)
    assert 2 * max(half_width_m, half_height_m) <= most_m + 1.0
    lon, lat = np.meshgrid(np.linspace(bounds.west, bounds.east, 40), np.linspace(bounds.south, bounds.north, 40))
    covered = np.zeros(lon.shape, bool)
    for center in centers:
        covered |= (np.abs(lon - center.lon) * per_lon <= half_width_m + 0.5) & (
            np.abs(lat - center.lat) * per_lat <= half_height_m + 0.5
        )
    assert covered.all()
    assert math.isclose(len(centers) * 4 * half_width_m * half_height_m, 600.0 * 480.0, rel_tol=0.01)


@pytest.mark.parametrize(
    ("width_px", "height_px", "shape"), [(60, 20, (20, 60)), (30, 50, (50, 30)), (31, 99, (50, 32))]
)
def test_a_windows_middle_keeps_its_positions(width_px: int, height_px: int, shape: tuple[int, int]):
    cos, sin = math.cos(0.02), math.sin(0.02)
    to_ground = Affine(2 * cos, 2 * sin, -60.0, 2 * sin, -2 * cos, 50.0)
    valid = np.ones((50, 60), bool)
    valid[0, 0] = False
    window = MapWindow(
        np.arange(9000, dtype=np.uint16).reshape(50, 60, 3).astype(np.uint8), valid, 2.0, to_ground, CENTER
    )
    middle = window.middle(width_px, height_px)
    rows, columns = shape
    left, top = (60 - columns) // 2, (50 - rows) // 2
    assert middle.pixels.shape == (rows, columns, 3)
    assert np.array_equal(middle.pixels, window.pixels[top : 50 - top, left : 60 - left])
    assert middle.valid is None
    first, second = middle.location(7.0, 11.0), window.location(7.0 + 2 * left, 11.0 + 2 * top)
    assert np.allclose(first, second, atol=1e-12)
