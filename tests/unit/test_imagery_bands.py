"""What a raster's bands hold: their order, alpha, white that is low, odd values; pictures that show nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from coarseloc.core.errors import ImageryError
from coarseloc.core.types import Failure, LonLat, View
from coarseloc.imagery.collars import from_border, picture_border_colour, seen_share
from coarseloc.imagery.decode import read_image, seen_ground
from coarseloc.imagery.orthophoto import cut_view, open_orthophoto
from coarseloc.imagery.raster import Raster

Write = Callable[..., Path]
GANGNAM = LonLat(127.02765, 37.49792)


def ground(bands: int = 3, size: int = 124) -> np.ndarray:
    return np.random.default_rng(4).integers(40, 220, (bands, size, size), np.uint8)


def described(path: Path, *names: str) -> Path:
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    return path


def seen(path: Path) -> list[float]:
    return cut_view(path, GANGNAM, 20, 0, 20).pixels.reshape(-1, 3).mean(axis=0).round().tolist()


def flat(*levels: int) -> np.ndarray:
    return np.stack([np.full((60, 60), level, np.uint8) for level in levels])


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("Blue", "Green", "Red", "NIR"), (3, 2, 1)),
        (("band 1 (B)", "band 2 (G)", "band 3 (R)", "band 4 (N)"), (3, 2, 1)),
        (("rededge", "NIR", "green", "blue", "Red"), (5, 3, 4)),
        (("coastal_blue", "BLUE", "Green", "Red Edge", "red"), (5, 3, 2)),
        (("Near-Infrared", "red", "green", "blue"), (2, 3, 4)),
    ],
)
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_bands_are_taken_by_their_descriptions(
    tiff: Write, names: tuple[str, ...], bands: tuple[int, ...], photometric: str
) -> None:
    path = described(tiff(flat(*range(10, 10 + 10 * len(names), 10)), photometric=photometric), *names)
    raster = Raster(path)
    assert raster.colours.bands == bands and any("descriptions" in notice for notice in raster.notices)
    assert seen(path) == [10 * band for band in bands]


def test_many_bands_of_which_nothing_is_said_are_told_of(tiff: Write) -> None:
    (notice,) = Raster(tiff(ground(5), photometric="minisblack")).notices
    assert "does not say which of its 5 bands" in notice


@pytest.mark.parametrize("name", ["", "NIR"])
def test_near_infrared_that_is_called_alpha_is_ground(tiff: Write, name: str) -> None:
    values = ground(4)
    values[3, 40:80] //= 4
    path = tiff(values, photometric="rgb", alpha="YES")
    if name:
        described(path, "", "", "", name)
    source = open_orthophoto(path, footprint_m=30, overlap=0, angles=[0])
    assert len(source.tiles) == 16 and source.reference_set.parameters["ignores_alpha"] is True
    assert any("called alpha" in notice for notice in source.notices)
    assert {next(iter(source.views(tile, [0]))).ground_fraction for tile in source.tiles} == {1.0}  # type: ignore[union-attr]


@pytest.mark.parametrize("blank", [0, 255])
def test_alpha_that_is_not_called_so_is_the_end_of_the_ground(tiff: Write, blank: int) -> None:
    values = ground(4)
    values[3] = 255
    values[:3, :, :60], values[3, :, :60] = blank, 0
    source = open_orthophoto(tiff(values, photometric="rgb", alpha="NO"), footprint_m=30, overlap=0, angles=[0])
    assert len(source.tiles) == 8 and source.reference_set.parameters["alpha_band"] == 4
    assert any("taken as alpha" in notice for notice in source.notices)


def test_a_fourth_band_of_two_values_over_a_picture_is_no_alpha(tiff: Write) -> None:
    values = ground(4)
    values[3] = np.where(values[0] > 120, 255, 0)
    assert Raster(tiff(values, photometric="rgb", alpha="NO")).alpha_band is None


@pytest.mark.parametrize("bands", [3, 4])
def test_rasters_that_leave_no_doubt_keep_their_fingerprint(tiff: Write, bands: int) -> None:
    values = ground(bands)
    if bands == 4:
        values[3] = np.where(np.arange(124) < 50, 0, 255)
    source = open_orthophoto(tiff(values, alpha="YES" if bands == 4 else "NO"), footprint_m=30, angles=[0])
    assert set(source.reference_set.parameters) == {
        "tile_px", "source_m_per_px", "source_px", "bands", "stretch", "fov_deg", "outside"
    }  # fmt: skip
    assert [notice for notice in source.notices if "places are left out" not in notice] == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_that_is_the_lowest_value_becomes_white(tiff: Write, dtype: type) -> None:
    values = np.repeat(np.linspace(0, 255, 120).astype(dtype)[None, None], 120, axis=1)
    path = tiff(values, photometric="miniswhite")
    pixels = cut_view(path, GANGNAM, 110, 0, 110).pixels
    assert pixels[55, 0].min() > 225 and pixels[55, -1].max() < 30
    assert any("min-is-white" in notice for notice in Raster(path).notices)


@pytest.mark.parametrize("odd", [-10000, -9999, -3.4e38, 1e20])
@pytest.mark.parametrize("share", [0.01, 0.4])
def test_an_odd_value_that_is_not_declared_is_no_ground_and_moves_no_tone(
    tiff: Write, odd: float, share: float
) -> None:
    values = (ground() / 255 * 0.3).astype(np.float32)
    plain = Raster(tiff(values)).colours.stretch
    values[:, : int(124 * share) + 1] = odd
    path = tiff(values)
    raster = Raster(path)
    assert raster.colours.stretch == pytest.approx(plain, abs=0.01)
    assert any("nodata" in notice for notice in raster.notices)
    view = cut_view(path, GANGNAM, 100, 0, 50)
    assert view.ground_fraction == pytest.approx(1.0 if share == 0.01 else 0.61, abs=0.03)


def test_two_odd_values_and_a_saturated_one_are_left_out(tiff: Write) -> None:
    values = (ground().astype(np.uint16) * 4).astype(np.int32)
    values[:, :10], values[:, 10:20], values[:, 20:30] = -10000, -9999, 65535
    assert Raster(tiff(values)).colours.stretch == pytest.approx((160, 880), abs=20)


@pytest.mark.parametrize("kind", ["ramp", "two surfaces", "few hot pixels"])
def test_a_raster_of_sound_values_has_no_odd_one(tiff: Write, kind: str) -> None:
    values = ground().astype(np.uint16)
    if kind == "two surfaces":
        values[:, :60] += 150
    elif kind == "few hot pixels":
        values[:, 3, 3] = 65535
    assert Raster(tiff(values)).value_limits is None


def test_colours_of_a_palette_in_sixteen_bits_are_looked_up(tiff: Write) -> None:
    path = tiff(np.full((1, 60, 60), 700, np.uint16), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {700: (11, 22, 33, 255)})
        assert file.colorinterp[0] == ColorInterp.palette
    assert seen(path) == [11, 22, 33]


# --- pictures that show nothing -------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 255, 90])
def test_tiles_of_one_colour_are_failures_and_no_references(tiff: Write, level: int) -> None:
    values = ground()
    values[:, :, :70] = level
    source = open_orthophoto(tiff(values), footprint_m=30, overlap=0, angles=[0, 90], border_is_ground=True)
    results = [list(source.views(tile, [0, 90])) for tile in source.tiles]
    failures = [result for result in results if isinstance(result[0], Failure)]
    assert len(failures) == 8 and all(len(result) == 1 and result[0].kind == "one-colour" for result in failures)
    assert sum(isinstance(view, View) for result in results for view in result) == 16


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("B2", "B3", "B4"), r"\(1, 2, 3\), described as B2, B3, B4, are taken as red"),  # Landsat's, of 5 or of 8
        (("B02", "B03", "B04"), r"\(3, 2, 1\) are taken as red.* as their descriptions say"),  # Sentinel-2
        (("청색", "녹색", "적색"), r"\(3, 2, 1\) are taken as red.* as their descriptions say"),
    ],
)
def test_bands_are_taken_by_their_descriptions_and_it_is_said(tiff: Write, names: tuple[str, ...], words: str) -> None:
    path = tiff(ground())
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = names
    assert any(re.search(words, notice) for notice in Raster(path).notices)


def with_collar(level: int | Sequence[int], dtype: type = np.uint8, noise: int = 0) -> np.ndarray:
    """Ground with slanting corners of nothing, a third of it."""
    values = ground().astype(dtype)
    y, x = np.mgrid[: values.shape[1], : values.shape[2]]
    outside = (x + y < 0.7 * values.shape[2]) | (x + y > 1.5 * values.shape[2])
    speckles = np.random.default_rng(2).integers(0, noise + 1, values.shape)
    values[:, outside] = abs(np.reshape(level, (-1, 1, 1)) - speckles)[:, outside].astype(dtype)
    return values


@pytest.mark.parametrize(
    ("level", "dtype", "noise", "word"),
    [
        (0, np.uint8, 0, "black or white"),
        (255, np.uint8, 2, "black or white"),
        (0, np.uint16, 0, "black or white"),
        ((255, 0, 255), np.uint8, 0, "one-coloured (255, 0, 255)"),
        (128, np.uint8, 0, "one-coloured (128, 128, 128)"),
        (300, np.uint16, 0, "one-coloured (300, 300, 300)"),
        (0.5, np.float32, 0, "one-coloured (0.5, 0.5, 0.5)"),
    ],
)
def test_a_border_that_is_not_declared_is_no_ground_and_told(
    tiff: Write, level: int | Sequence[int], dtype: type, noise: int, word: str
) -> None:
    path = tiff(with_collar(level, dtype, noise))
    raster = Raster(path)
    mask = raster.ground_mask()
    y, x = np.mgrid[: raster.height, : raster.width]
    inside = (x + y > 0.7 * raster.width + 2) & (x + y < 1.5 * raster.width - 2)
    outside = (x + y < 0.7 * raster.width - 2) | (x + y > 1.5 * raster.width + 2)
    assert mask is not None and mask[inside].all() and not mask[outside].any()
    assert any(f"{word} border" in notice and "--border-is-ground" in notice for notice in raster.notices)
    source = open_orthophoto(path, footprint_m=20, overlap=0, angles=[0])
    assert source.reference_set.parameters["outside"] > 0
    assert any("places are left out" in notice for notice in source.notices)
    assert Raster(path, border_is_ground=True).ground_mask() is None


def test_speckles_of_compression_beside_a_declared_nodata_are_no_ground(tiff: Write) -> None:
    raster = Raster(tiff(with_collar(0, noise=2), nodata=0))
    mask = raster.ground_mask()
    assert mask is not None and not mask[:20, :20].any()


@pytest.mark.parametrize("colour", [(255, 0, 255), (128, 128, 128)])
@pytest.mark.parametrize("quality", [75, 90])
def test_a_coloured_border_that_jpeg_has_frayed_is_no_ground(colour: Sequence[int], quality: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.moveaxis(with_collar(colour), 0, -1)).save(buffer, "JPEG", quality=quality)
    picture = np.array(Image.open(buffer))
    assert picture_border_colour(np.moveaxis(picture, -1, 0)) is not None
    assert seen_share(picture) == pytest.approx(0.69, abs=0.05)


@pytest.mark.parametrize("surface", ["water", "snow", "sand", "shallows"])
@pytest.mark.parametrize("quality", [None, 50, 90])
def test_even_ground_at_the_border_is_no_collar(surface: str, quality: int | None) -> None:
    """Half of the picture: nearly even, with a slope or grain of a level or two, as surfaces have."""
    colour = {"water": (34, 58, 66), "snow": (243, 246, 248), "sand": (212, 196, 160), "shallows": (60, 120, 118)}
    values, rng = ground(size=256), np.random.default_rng(1)
    x = np.arange(256)
    slope = 5 * np.sin(x / 40)[None, :, None] + 4 * (x / 256)[None, None, :]
    grain = rng.normal(0, 0.5 if surface == "water" else 2, (3, 256, 256))
    even = np.reshape(colour[surface], (3, 1, 1)) + slope + grain
    values[:, :, :128] = even.clip(0, 255).round().astype(np.uint8)[:, :, :128]
    if quality:
        buffer = io.BytesIO()
        Image.fromarray(np.moveaxis(values, 0, -1)).save(buffer, "JPEG", quality=quality)
        values = np.moveaxis(np.array(Image.open(buffer)), -1, 0)
    assert picture_border_colour(values) is None


def test_black_inside_a_raster_and_white_in_a_corner_of_it_are_ground(tiff: Write) -> None:
    values = ground()
    values[:, 40:70, 40:70] = 0
    values[:, :20, :28] = 255  # 3.6 %: a bright roof
    raster = Raster(tiff(values))
    assert raster.collar is None and raster.ground_mask() is None


@pytest.mark.parametrize(
    ("columns", "level", "reason"),
    [
        (64, 0, "one colour"),
        (40, 0, "62% of it is a border"),
        (20, 255, None),
        (64, 128, "one colour"),
        (40, 128, "62%"),
    ],
)
def test_a_capture_of_which_less_than_half_is_ground_is_none(columns: int, level: int, reason: str | None) -> None:
    picture = np.moveaxis(ground(3)[:, :64, :64], 0, -1).copy()
    picture[:, :columns] = level
    why = seen_ground(picture).too_little
    assert why is None if reason is None else why is not None and reason in why


def test_a_border_is_reached_round_a_corner_and_an_island_is_not() -> None:
    empty = np.zeros((12, 12), np.bool_)
    empty[0:6, 2] = empty[5, 2:8] = empty[5:9, 7] = empty[9:11, 3:5] = True
    reached = from_border(empty)
    assert reached[8, 7] and not reached[9:11, 3:5].any() and reached.sum() == 14


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_camera_bits_in_sixteen_has_the_contrast_of_eight(tmp_path: Path, bits: int) -> None:
    eight = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    Image.fromarray((eight / 255 * (2**bits - 1)).round().astype(np.uint16)).save(tmp_path / "frame.png")
    assert np.abs(read_image(tmp_path / "frame.png")[..., 0] - eight).max() <= 1


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 1), (np.uint16, 255), (np.uint16, 4095), (np.uint8, 255)])
def test_alpha_that_is_full_below_its_types_highest_value_is_told_and_taken(
    tiff: Write, dtype: type, full: int
) -> None:
    values = np.concatenate([ground(), np.full((1, 124, 124), full, np.uint8 if full < 256 else np.uint16)]).astype(
        dtype
    )
    values[3, :, :62] = 0
    raster = Raster(tiff(values, photometric="rgb", alpha="yes"))
    mask = raster.ground_mask()
    assert mask is not None and mask.mean() == pytest.approx(0.5, abs=0.01) and mask[:, -1].all()
    assert any("taken as full" in notice for notice in raster.notices) == (full != np.iinfo(dtype).max)


def test_thermal_values_of_a_narrow_range_are_stretched_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grey = ground(1)[0].astype(np.uint16)
    Image.fromarray(29_000 + 5 * grey).save(tmp_path / "thermal.tif")
    pixels = read_image(tmp_path / "thermal.tif")[..., 0]
    assert np.corrcoef(pixels.ravel(), grey.ravel())[0, 1] > 0.99 and np.ptp(pixels) == 255
    assert caplog.text == "" or "thermal" in caplog.text
    Image.fromarray(29_000 + grey // 8).save(tmp_path / "fog.tif")  # holds no more than this
    assert np.ptp(read_image(tmp_path / "fog.tif")) < 2


def test_a_tiff_of_five_bands_is_called_what_it_is(tiff: Write) -> None:
    with pytest.raises(ImageryError, match="TIFF whose bands or compression"):
        read_image(tiff(ground(5)))
