"""Tiles and views cut from rasters: true north, true size, in any CRS; where the source ends; what is refused.

The rasters of `compass` say in every pixel how far east and north it lies, so views are checked against geometry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from rasterio.enums import ColorInterp
from rasterio.transform import Affine as Transform

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import Failure, LonLat, View
from coarseloc.imagery.orthophoto import cut_view, open_orthophoto
from coarseloc.imagery.raster import Raster

GANGNAM = LonLat(127.02765, 37.49792)
EIGHT = tuple(range(0, 360, 45))
PER_LEVEL_M = 4.0
Write = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def around(crs: str, pixel: tuple[float, float], size: int = 240, turn_deg: float = 0.0) -> Transform:
    """A geotransform whose raster of `size` pixels has GANGNAM in its middle, turned about it."""
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [GANGNAM.lon], [GANGNAM.lat])
    centred = Transform.translation(-size / 2, -size / 2)
    return Transform.translation(x, y) @ Transform.rotation(turn_deg) @ Transform.scale(pixel[0], -pixel[1]) @ centred


# Pixels of no whole number of levels, so that rounding leans to no side.
RASTERS: dict[str, tuple[str, Transform]] = {
    "utm": ("EPSG:32652", around("EPSG:32652", (4.3, 4.3))),
    "utm of the next zone: 3.7 degrees of grid convergence": ("EPSG:32651", around("EPSG:32651", (4.3, 4.3))),
    "web mercator: 1.26 map metres a metre": ("EPSG:3857", around("EPSG:3857", (5.3, 5.3))),
    "degrees: pixels are not square on the ground": ("EPSG:4326", around("EPSG:4326", (4.7e-5, 3.7e-5))),
    "the Korean grid": ("EPSG:5186", around("EPSG:5186", (4.3, 4.3))),
    "turned by 30 degrees": ("EPSG:32652", around("EPSG:32652", (4.3, 4.3), turn_deg=30)),
    "south up": ("EPSG:32652", around("EPSG:32652", (4.3, -4.3))),
    "pixels twice as wide as high": ("EPSG:32652", around("EPSG:32652", (4.3, 2.7))),
}


def expected(center: LonLat, footprint_m: float, heading: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(red, green) that a view of a compass raster must have."""
    per_lon, per_lat = geo.metres_per_degree(GANGNAM.lat)
    across, up = np.meshgrid((np.arange(side) + 0.5) / side - 0.5, 0.5 - (np.arange(side) + 0.5) / side)
    sin, cos = math.sin(math.radians(heading)), math.cos(math.radians(heading))
    east = (center.lon - GANGNAM.lon) * per_lon + footprint_m * (across * cos + up * sin)
    north = (center.lat - GANGNAM.lat) * per_lat + footprint_m * (up * cos - across * sin)
    return 128 + east / PER_LEVEL_M, 128 + north / PER_LEVEL_M


def assert_is_view(pixels: np.ndarray, center: LonLat, footprint_m: float, heading: float) -> None:
    """Each pixel within the levels that rounding takes (three times: written, averaged, and bicubic truncates),
    and all of them together, less the half level of truncating, within a quarter: 1 m, a quarter of a pixel. Few
    pixels at quarter turns may all be rounded one way: half a level then."""
    within = 0.25 if len(pixels) >= 64 else 0.5
    for channel, should in enumerate(expected(center, footprint_m, heading, len(pixels))):
        off = pixels[..., channel] - np.clip(should, 0, 255)
        assert np.abs(off).max() <= 2.3
        assert -0.5 - within <= off.mean() <= within


@pytest.mark.parametrize("name", RASTERS)
def test_every_tile_is_upright_by_true_north_and_of_its_size_in_any_crs(compass: Write, name: str) -> None:
    crs, transform = RASTERS[name]
    source = open_orthophoto(compass(crs, transform, 240, 240), footprint_m=150, overlap=0.2, angles=EIGHT)
    assert len(source.tiles) >= 4 and not source.failures
    whole = 0
    for tile in source.tiles:
        for view in source.views(tile, EIGHT):
            assert isinstance(view, View)
            if view.ground_fraction == 1:
                assert_is_view(view.pixels, tile.center, 150, view.angle_deg)
                whole += 1
    assert whole >= 4 * len(source.tiles)  # the four square ones always are


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(RASTERS)), st.floats(-60, 60), st.floats(-60, 60), st.floats(0, 360), st.integers(20, 200)
)  # fmt: skip
def test_a_view_can_be_cut_at_any_place_heading_and_size(
    compass: Write, name: str, east: float, north: float, heading: float, side: int
) -> None:
    path = _raster_path(compass, name)
    center = geo.offset(GANGNAM, east, north)
    pixels, ground = cut_view(path, center, 120, heading, side)
    assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8 and ground == 1.0
    assert_is_view(pixels, center, 120, heading)


_RASTER_PATHS: dict[str, Path] = {}


def _raster_path(compass: Write, name: str) -> Path:
    if name not in _RASTER_PATHS:
        crs, transform = RASTERS[name]
        _RASTER_PATHS[name] = compass(crs, transform, 240, 240)
    return _RASTER_PATHS[name]


def test_a_source_finer_than_the_tile_is_averaged_not_sampled(tiff: Write) -> None:
    checker = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    view = cut_view(tiff(np.stack([checker] * 3)), GANGNAM, 200, 30, 50)
    assert abs(view.pixels.astype(int) - 127).max() <= 8


def test_tiles_begin_in_the_north_west_and_lie_inside(compass: Write) -> None:
    crs, transform = RASTERS["utm of the next zone: 3.7 degrees of grid convergence"]
    path = compass(crs, transform, 240, 240)
    source = open_orthophoto(path, footprint_m=200, overlap=0.5)
    raster = Raster(path)
    for tile in source.tiles:
        west, south, east, north = tile.bbox
        x, y = raster.pixels_of([west, east, west, east], [south, south, north, north])
        assert min(x.min(), y.min()) > -0.6 and max(x.max(), y.max()) < 240.6
    assert [tile.index for tile in source.tiles] == list(range(1, len(source.tiles) + 1))
    assert source.tiles[0].center.lat >= max(t.center.lat for t in source.tiles) - 1e-9
    assert len(source.tiles) >= 49  # (960 - 2 × 56) m hold 7 strides of 100 m and a footprint each way


def test_a_long_strip_across_the_meridians_is_tiled_along_its_length(compass: Write) -> None:
    path = compass("EPSG:32652", around("EPSG:32652", (4.3, 4.3), turn_deg=40), 240, 60)
    source = open_orthophoto(path, footprint_m=100, overlap=0.5)
    assert len(source.tiles) >= 20  # the box inside its outline holds none, the box around it mostly sky
    assert all(next(iter(source.views(tile, [0]))).ground_fraction == 1.0 for tile in source.tiles)  # type: ignore[union-attr]


def test_the_turned_corners_of_an_inner_tile_are_ground_and_of_an_outer_one_are_told(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    source = open_orthophoto(compass(crs, transform, 240, 240), footprint_m=160, overlap=0.5)
    middle = min(source.tiles, key=lambda t: float(geo.distance_m(*t.center, *GANGNAM)))
    inner = [view for view in source.views(middle, EIGHT) if isinstance(view, View)]
    assert {view.ground_fraction for view in inner} == {1.0}
    outer = {v.angle_deg: v for v in source.views(source.tiles[0], EIGHT) if isinstance(v, View)}
    assert outer[0].ground_fraction == outer[90].ground_fraction == 1.0
    assert 0.8 < outer[45].ground_fraction < 1.0
    black = (outer[45].pixels == 0).all(axis=-1).mean()
    assert black == pytest.approx(1 - outer[45].ground_fraction, abs=0.002)


def test_a_view_off_the_raster_is_black(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    path = compass(crs, transform, 240, 240)
    for east in (5_000, 9_000_000):
        pixels, ground = cut_view(path, geo.offset(GANGNAM, east, 0), 100, 10, 32)
        assert ground == 0.0 and not pixels.any()
    half, ground = cut_view(path, geo.offset(GANGNAM, 240 * 4.3 / 2, 0), 100, 0, 32)
    assert ground == pytest.approx(0.5, abs=0.06)
    assert half[:, :14].any() and not half[:, 18:].any()


# --- sizes and names ----------------------------------------------------------------------------


def test_the_reference_set_says_how_it_was_cut(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    path = compass(crs, transform, 240, 240)
    reference_set = open_orthophoto(path, altitude_m=300, fov_deg=30, overlap=0.25, angles=(90, 0)).reference_set
    assert reference_set.kind == "orthophoto" and reference_set.source == str(path)
    assert (reference_set.altitude_m, reference_set.overlap, reference_set.angles) == (300, 0.25, (0, 90))
    assert reference_set.footprint_m == pytest.approx(160.77, abs=0.01)
    assert reference_set.parameters["tile_px"] == 64  # 37 source pixels, but never less than 64
    assert reference_set.parameters["source_m_per_px"] == pytest.approx(4.3, rel=0.002)
    assert reference_set.name == f"{path.stem}-300m-25"
    assert open_orthophoto(path, footprint_m=400).reference_set.parameters["tile_px"] == 93
    assert open_orthophoto(path, footprint_m=400, tile_px=32, name="x").reference_set.name == "x"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"altitude_m": 300},
        {"fov_deg": 60},
        {"footprint_m": 100, "altitude_m": 300, "fov_deg": 60},
        {"footprint_m": -1},
        {"footprint_m": 100, "altitude_m": 0},
        {"footprint_m": 100, "overlap": 50},
        {"footprint_m": 100, "tile_px": 4},
        {"footprint_m": 100, "angles": ()},
        {"footprint_m": 10},  # two and a half pixels
        {"footprint_m": 5000},
    ],
)
def test_impossible_sizes_are_refused(compass: Write, options: dict[str, Any]) -> None:
    crs, transform = RASTERS["utm"]
    with pytest.raises(InputError):
        open_orthophoto(compass(crs, transform, 240, 240), **options)


def test_a_stamp_tells_place_cut_and_source(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    path = compass(crs, transform, 240, 240)

    def stamp(**options: Any) -> str:
        source = open_orthophoto(path, **({"footprint_m": 200} | options))
        return source.source_fingerprint(source.tiles[0], 0)

    assert stamp() == stamp(angles=(0,))  # another angle alone needs no new reading of this one
    source = open_orthophoto(path, footprint_m=200)
    stamps = {stamp(), stamp(footprint_m=201), stamp(tile_px=100), source.source_fingerprint(source.tiles[1], 0)}
    assert len(stamps) == 4


def test_two_cuts_of_one_source_are_bit_equal(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    path = compass(crs, transform, 240, 240)
    digests = []
    for _ in range(2):
        source = open_orthophoto(path, footprint_m=200)
        digests.append([v.content_digest for v in source.views(source.tiles[3], EIGHT) if isinstance(v, View)])
    assert digests[0] == digests[1] and len(set(digests[0])) == 8


def test_a_heading_is_the_same_alone_as_among_eight(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    source = open_orthophoto(compass(crs, transform, 240, 240), footprint_m=200)
    middle = source.tiles[len(source.tiles) // 2]
    together = {v.angle_deg: v.pixels for v in source.views(middle, EIGHT) if isinstance(v, View)}
    for angle in EIGHT:
        (alone,) = source.views(middle, [angle])
        assert isinstance(alone, View)
        assert_array_equal(alone.pixels, together[angle])


def test_threads_may_share_a_source(compass: Write) -> None:
    crs, transform = RASTERS["utm"]
    source = open_orthophoto(compass(crs, transform, 240, 240), footprint_m=160)

    def digests(tile: Any) -> list[str]:
        return [view.content_digest for view in source.views(tile, EIGHT) if isinstance(view, View)]

    alone = [digests(tile) for tile in source.tiles]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digests, source.tiles)) == alone


# --- bands, types, nodata -----------------------------------------------------------------------


def flat(*levels: int, size: int = 120, dtype: type = np.uint8) -> np.ndarray:
    return np.stack([np.full((size, size), level, dtype) for level in levels])


def seen(path: Path) -> list[int]:
    """The colour in the middle."""
    return cut_view(path, GANGNAM, 40, 45, 32).pixels[16, 16].tolist()


def test_one_band_is_grey_and_undeclared_bands_beyond_three_are_ignored(tiff: Write) -> None:
    assert seen(tiff(flat(90))) == [90, 90, 90]
    assert seen(tiff(flat(90, 0), photometric="MINISBLACK")) == [90, 90, 90]
    assert seen(tiff(flat(10, 20, 30, 0), photometric="MINISBLACK", alpha="unspecified")) == [10, 20, 30]


def test_declared_colours_are_taken_whatever_their_order(tiff: Write) -> None:
    path = tiff(flat(1, 30, 20, 10), photometric="MINISBLACK", alpha="unspecified")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    assert seen(path) == [10, 20, 30]


@pytest.mark.parametrize("bands", [2, 4])
def test_declared_alpha_is_the_end_of_the_ground(tiff: Write, bands: int) -> None:
    values = flat(*[200] * bands)
    values[-1] = 255
    values[-1, :, 60:] = 0
    path = tiff(values, alpha="YES")
    pixels, ground = cut_view(path, GANGNAM, 80, 90, 64)
    assert ground == pytest.approx(0.5, abs=0.02)
    assert (pixels[:30] == 0).all() and (pixels[34:] == 200).all()  # east, the upper half at 90, is none


def test_a_palette_is_looked_up(tiff: Write) -> None:
    path = tiff(flat(7))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {7: (11, 22, 33, 255)})
    assert seen(path) == [11, 22, 33]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_other_types_are_stretched_once_for_the_whole_raster(tiff: Write, dtype: type) -> None:
    ramp = np.linspace(1000, 3000, 126 * 126).reshape(126, 126).astype(dtype)
    path = tiff(np.stack([ramp, ramp, ramp]))
    source = open_orthophoto(path, footprint_m=40, overlap=0)
    low, high = source.reference_set.parameters["stretch"]
    assert low == pytest.approx(1010, abs=3) and high == pytest.approx(2990, abs=3)
    first, last = (next(iter(source.views(t, [0]))) for t in (source.tiles[0], source.tiles[-1]))
    assert isinstance(first, View) and isinstance(last, View)
    assert first.pixels.min() == 0 and last.pixels.max() >= 245
    assert seen(path) == pytest.approx([127] * 3, abs=3)


def test_uint8_is_never_stretched(tiff: Write) -> None:
    path = tiff(np.random.default_rng(0).integers(100, 120, (3, 120, 120), np.uint8))
    assert Raster(path).colours.stretch is None
    assert cut_view(path, GANGNAM, 100, 0, 100).pixels.min() > 85  # bicubic overshoots a little


def test_a_hole_of_nodata_is_no_ground_but_a_white_roof_is(tiff: Write) -> None:
    values = flat(80, 80, 80)
    values[:, :, :40] = 255  # a hole
    values[:, 58:62, 80:84] = 255  # a roof
    view = cut_view(tiff(values, nodata=255), GANGNAM, 100, 0, 100)
    assert view.ground_fraction == pytest.approx(0.7, abs=0.01)
    assert (view.pixels[:, :29] == 0).all()
    assert view.pixels[50, 71].min() > 200


@pytest.mark.parametrize("nodata", [None, math.nan])
def test_what_is_not_a_number_is_no_ground(tiff: Write, nodata: float | None) -> None:
    values = flat(1, 2, 3, dtype=np.float32)
    values[:, :, :60] = np.nan
    values[:, :60] *= 2
    view = cut_view(tiff(values, nodata=nodata), GANGNAM, 80, 0, 80)
    assert view.ground_fraction == pytest.approx(0.5, abs=0.02)
    assert (view.pixels[:, :38] == 0).all()


def test_tiles_without_half_of_ground_are_left_out_and_counted(tiff: Write) -> None:
    values = np.random.default_rng(2).integers(60, 200, (3, 126, 126), np.uint8)
    values[:, :, :44] = 0
    source = open_orthophoto(tiff(values, nodata=0), footprint_m=20, overlap=0)
    assert source.reference_set.parameters["outside"] == 2 * 6
    assert [tile.index for tile in source.tiles] == list(range(1, 4 * 6 + 1))
    assert all(next(iter(source.views(t, [0]))).ground_fraction > 0.75 for t in source.tiles)  # type: ignore[union-attr]


def test_a_raster_without_any_ground_is_refused(tiff: Write) -> None:
    with pytest.raises(InputError, match="ground"):
        open_orthophoto(tiff(flat(0, 0, 0), nodata=0), footprint_m=20)
    with pytest.raises(InputError, match="no valid pixel"):
        open_orthophoto(tiff(flat(0, 0, 0, dtype=np.uint16), nodata=0), footprint_m=20)


# --- what is refused ----------------------------------------------------------------------------


def test_a_raster_without_a_crs_is_refused(tiff: Write) -> None:
    with pytest.raises(InputError, match="no coordinate reference system"):
        open_orthophoto(tiff(flat(1, 2, 3), crs=None, transform=Transform(1, 0, 5, 0, -1, 5)), footprint_m=20)


def test_a_raster_without_a_geotransform_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", crs="EPSG:32652") as file:
        file.write(np.ones((1, 9, 9), np.uint8))
    with pytest.raises(InputError, match="no geotransform"):
        open_orthophoto(path, footprint_m=20)


def test_degrees_that_are_metres_are_refused_with_what_was_found(tiff: Write) -> None:
    path = tiff(flat(1, 2, 3), crs="EPSG:4326", transform=Transform(5, 0, 485902, 0, -5, 5209248))
    with pytest.raises(InputError, match=r"485902\.0.*metres of a projected CRS"):
        open_orthophoto(path, footprint_m=20)


@pytest.mark.parametrize("content", [None, b"", b"hello", b"II*\x00\x08\x00\x00\x00", "folder"])
def test_what_is_no_geotiff_is_refused(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "x.tif"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tif"):
        open_orthophoto(path, footprint_m=20)


def test_a_file_cut_short_fails_tile_by_tile(tiff: Write) -> None:
    path = tiff(np.random.default_rng(0).integers(0, 255, (3, 300, 300), np.uint8), compress="deflate", tiled=True,
                blockxsize=64, blockysize=64)  # fmt: skip
    source = open_orthophoto(path, footprint_m=60, overlap=0)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    views = [next(iter(source.views(tile, [0]))) for tile in source.tiles]
    broken = [view for view in views if isinstance(view, Failure)]
    assert broken and len(broken) < len(views)
    assert {(failure.kind, failure.stage) for failure in broken} == {("unreadable", "read")}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_geotiff_gives_tiles_or_an_input_error(tiff: Write, tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray((_RASTER_PATHS.setdefault("small", tiff(flat(10, 20, 30, size=40)))).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, 600) | st.integers(0, len(whole) - 1))
        whole[min(position, len(whole) - 1)] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.tif"
    path.write_bytes(whole)
    try:
        source = open_orthophoto(path, footprint_m=20, tile_px=32)
    except InputError:
        return
    for view in source.views(source.tiles[0], EIGHT):
        assert isinstance(view, View | Failure)


def test_a_real_orthophoto_is_cut(shared_data: Path) -> None:
    source = open_orthophoto(shared_data / "naip" / "m_4709963_se_14_1_20180716.tif", footprint_m=640)
    assert len(source.tiles) == 130 and source.reference_set.parameters["tile_px"] == 128
    views = [view for view in source.views(source.tiles[45], EIGHT) if isinstance(view, View)]
    assert {view.ground_fraction for view in views} == {1.0}
