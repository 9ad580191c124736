"""Where a raster says that it lies: datums, longitudes beyond 180, exchanged axes, and files of other kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio.warp
from PIL import Image
from rasterio.transform import Affine as Transform

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import Failure, LonLat, View
from coarseloc.imagery.orthophoto import OrthophotoSource, open_orthophoto
from coarseloc.imagery.raster import Raster
from coarseloc.imagery.windows import OrthophotoWindows

Write = Callable[..., Path]
SEOUL = LonLat(127.03, 37.50)
BESSEL = "+proj=tmerc +lat_0=38 +lon_0={lon_0} +k=1 +x_0=200000 +y_0=500000 +units=m +no_defs "
CENTRAL, MODIFIED = BESSEL.format(lon_0=127), BESSEL.format(lon_0=127.0028902777778)


def ground(size: int = 96) -> np.ndarray:
    return np.random.default_rng(4).integers(40, 220, (3, size, size), np.uint8)


def around(crs: str, size: int = 96, place: LonLat = SEOUL) -> Transform:
    """One metre a pixel, a place in the middle of a raster of `size` pixels."""
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [place.lon], [place.lat])
    return Transform(1, 0, x - size / 2, 0, -1, y + size / 2)


def middle(path: Path, crs: str | None = None) -> LonLat:
    raster = Raster(path, crs)
    return LonLat(*(float(value) for value in raster.positions_of(raster.width / 2, raster.height / 2)))


@pytest.mark.parametrize(
    ("definition", "code", "absent"),
    [(CENTRAL, "EPSG:2097", "EPSG:5174"), (MODIFIED, "EPSG:5174", "EPSG:2097")],
)
def test_a_grid_without_its_datum_is_refused_with_the_codes_that_fit(
    tiff: Write, definition: str, code: str, absent: str
) -> None:
    path = tiff(ground(), crs=definition + "+ellps=bessel", transform=around(code))
    with pytest.raises(InputError, match=f"ballpark.*{code} .*--crs EPSG:") as refusal:
        Raster(path)
    assert absent not in str(refusal.value)
    assert geo.distance_m(*middle(path, code), *SEOUL) < 0.1


def test_the_korean_unified_grid_is_known_by_its_numbers(tiff: Write) -> None:
    unified = "+proj=tmerc +lat_0=38 +lon_0=127.5 +k=0.9996 +x_0=1000000 +y_0=2000000 +ellps=bessel +units=m"
    with pytest.raises(InputError, match="EPSG:5178 "):
        Raster(tiff(ground(), crs=unified, transform=around("EPSG:5178")))


def test_a_grid_that_no_code_has_is_refused_without_one(tiff: Write) -> None:
    path = tiff(ground(), crs=BESSEL.format(lon_0=126.3) + "+ellps=bessel", transform=around("EPSG:2097"))
    with pytest.raises(InputError, match="No EPSG code near there"):
        Raster(path)


def test_a_datum_that_the_file_ties_to_wgs84_itself_is_taken(tiff: Write) -> None:
    shift = "+ellps=bessel +towgs84=-115.8,474.99,674.11,1.16,-2.31,-1.63,6.43"
    path = tiff(ground(), crs=CENTRAL + shift, transform=around("EPSG:2097"))
    assert Raster(path).notices == []
    assert geo.distance_m(*middle(path), *SEOUL) < 1.0


def test_an_unnamed_datum_on_grs80_is_taken_for_wgs84_and_told(tiff: Write) -> None:
    path = tiff(ground(), crs=CENTRAL + "+ellps=GRS80", transform=around("EPSG:5181"))
    (notice,) = Raster(path).notices
    assert "taken for WGS84" in notice and "--crs" in notice


@pytest.mark.parametrize("crs", ["EPSG:5186", "EPSG:5174", "EPSG:32652", "EPSG:3857", "EPSG:5179"])
def test_a_known_datum_needs_no_word(tiff: Write, crs: str) -> None:
    assert Raster(tiff(ground(), crs=crs, transform=around(crs))).notices == []


@pytest.mark.parametrize("crs", ["5174", "EPSG:99999", "+proj=utm", "EPSG:4978", "EPSG:4004"])
def test_a_crs_that_places_nothing_is_refused(tiff: Write, crs: str) -> None:
    with pytest.raises(InputError, match="--crs"):
        Raster(tiff(ground()), crs)


def test_the_crs_of_the_user_stands_above_the_files_and_decides_its_fingerprint(tiff: Write) -> None:
    path = tiff(ground(), crs="EPSG:2097", transform=around("EPSG:5174"))
    plain = open_orthophoto(path, footprint_m=40, angles=[0])
    source = open_orthophoto(path, footprint_m=40, angles=[0], crs="epsg:5174")
    assert source.reference_set.parameters["crs"] == "EPSG:5174" and "crs" not in plain.reference_set.parameters
    assert any("taken as EPSG:5174" in notice for notice in source.notices)
    assert source.source_fingerprint(source.tiles[0], 0) != plain.source_fingerprint(plain.tiles[0], 0)
    windows = OrthophotoWindows(path, "EPSG:5174")
    assert windows.window(SEOUL, 60, 1.0).valid is None


def test_a_file_with_a_place_but_no_crs_is_read_by_the_users(tiff: Write) -> None:
    path = tiff(ground(), crs=None, transform=around("EPSG:5186"))
    with pytest.raises(InputError, match="--crs"):
        Raster(path)
    assert geo.distance_m(*middle(path, "EPSG:5186"), *SEOUL) < 0.1


@pytest.mark.parametrize(("west", "lon"), [(263.0, -97.0), (-263.0, 97.0), (180.0 - 48e-5, 180.0)])
def test_longitudes_beyond_180_are_taken_as_what_they_are(tiff: Write, west: float, lon: float) -> None:
    path = tiff(ground(), crs="EPSG:4326", transform=Transform(1e-5, 0, west - 48e-5, 0, -1e-5, 47.5 + 48e-5))
    source = open_orthophoto(path, footprint_m=30, overlap=0, angles=[0])
    assert all(abs(geo.signed_difference_deg(tile.center.lon, lon)) < 2e-3 for tile in source.tiles)
    for tile in source.tiles:
        (view,) = source.views(tile, [0])
        assert isinstance(view, View) and view.ground_fraction == 1.0 and np.ptp(view.pixels) > 50
    if abs(west) > 180.01:
        assert any("180" in notice for notice in source.notices)


def test_exchanged_axes_in_degrees_are_told(tiff: Write) -> None:
    path = tiff(ground(), crs="EPSG:4326", transform=Transform(1e-5, 0, 37.5, 0, -1e-5, 127.03))
    with pytest.raises(InputError, match="axes are exchanged, x holds latitudes"):
        Raster(path)


def test_exchanged_axes_of_a_grid_are_told(tiff: Write) -> None:
    right = around("EPSG:5186")
    path = tiff(ground(), crs="EPSG:5186", transform=Transform(1, 0, right.f - 48, 0, -1, right.c + 48))
    with pytest.raises(InputError, match=r"axes are exchanged.*it lies inside, at 127\.0"):
        Raster(path)


@pytest.mark.parametrize(("place", "is_told"), [((129.08, 35.17), True), ((128.6, 35.87), False)])
def test_a_raster_in_the_grid_of_the_neighbouring_zone_is_taken(tiff: Write, place: LonLat, is_told: bool) -> None:
    right = around("EPSG:5186", place=LonLat(*place))  # Busan and Daegu, in Korea's central belt
    raster = Raster(tiff(ground(), crs="EPSG:5186", transform=right))
    assert any("are its axes exchanged" in notice for notice in raster.notices) == is_told


def test_a_local_crs_and_a_place_at_null_are_told(tiff: Write) -> None:
    with pytest.raises(InputError, match=r"local CRS.*--crs EPSG:"):
        Raster(tiff(ground(), crs='LOCAL_CS["site",UNIT["metre",1]]', transform=Transform(1, 0, 9, 0, -1, 9)))
    raster = Raster(tiff(ground(), crs="EPSG:4326", transform=Transform(1e-5, 0, 0, 0, -1e-5, 0)))
    assert any("latitude and longitude are 0" in notice for notice in raster.notices)


def test_degrees_in_a_grid_of_metres_are_told(tiff: Write) -> None:
    path = tiff(ground(), crs="EPSG:5186", transform=Transform(1e-5, 0, SEOUL.lon, 0, -1e-5, SEOUL.lat))
    with pytest.raises(InputError, match=r"these are degrees.*--crs EPSG:4326"):
        Raster(path)


def test_a_raster_far_from_where_its_grid_is_for_is_told_of(tiff: Write) -> None:
    notices = Raster(tiff(ground(), crs="EPSG:5186", transform=Transform(1, 0, 3_000_000, 0, -1, 550_000))).notices
    assert len(notices) == 1 and "outside the area" in notices[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"msid", "MrSID.*gdal_translate"),
        (b"\x89HDF\r\n\x1a\n", "HDF5.*gdal_translate"),
        (b"PK\x03\x04", "ZIP archive.*Unpack"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
    ],
)
def test_a_sound_file_of_another_kind_is_called_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "area.tif"
    path.write_bytes(content + b"\0" * 64)
    with pytest.raises(InputError, match=words) as refusal:
        Raster(path)
    assert "whole" not in str(refusal.value)


def test_a_picture_named_as_a_geotiff_is_called_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "area.tif", format="JPEG")
    with pytest.raises(InputError, match=r"a JPEG picture.*world file"):
        Raster(tmp_path / "area.tif")


# --- mosaics ------------------------------------------------------------------------------------


def mosaic(tiff: Write, dtype: type = np.uint8, nodata: float | None = None) -> tuple[Path, Path, Path]:
    """(a VRT of two sheets side by side, its west one, its east one)."""
    values, place = ground(128).astype(dtype), around("EPSG:5186", 128)
    west = tiff(values[:, :, :64], crs="EPSG:5186", transform=place)
    east = tiff(values[:, :, 64:], crs="EPSG:5186", transform=place)
    name = {"uint8": "Byte", "uint16": "UInt16"}[np.dtype(dtype).name]
    bands = "".join(
        f'<VRTRasterBand dataType="{name}" band="{band}">'
        + ("" if nodata is None else f"<NoDataValue>{nodata}</NoDataValue>")
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{sheet.name}</SourceFilename><SourceBand>{band}'
            f'</SourceBand><SrcRect xOff="0" yOff="0" xSize="64" ySize="128"/><DstRect xOff="{left}" yOff="0" '
            'xSize="64" ySize="128"/></SimpleSource>'
            for left, sheet in ((0, west), (64, east))
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path = west.parent / "mosaic.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="128" rasterYSize="128"><SRS>EPSG:5186</SRS><GeoTransform>{place.c}, 1, 0, '
        f"{place.f}, 0, -1</GeoTransform>{bands}</VRTDataset>"
    )
    return path, west, east


def failed(source: OrthophotoSource) -> list[bool]:
    views = [next(iter(source.views(tile, [0]))) for tile in source.tiles]
    assert all(view.kind == "unreadable" for view in views if isinstance(view, Failure))
    return [isinstance(view, Failure) for view in views]


@pytest.mark.parametrize(("dtype", "nodata"), [(np.uint8, None), (np.uint16, None), (np.uint8, 0)])
@pytest.mark.parametrize("spoilt", ["gone", "empty", "damaged"])
def test_tiles_of_a_mosaics_missing_part_are_failures_each_time(
    tiff: Write, dtype: type, nodata: float | None, spoilt: str
) -> None:
    path, _, east = mosaic(tiff, dtype, nodata)
    whole = open_orthophoto(path, footprint_m=30, overlap=0, angles=[0])
    assert not any(failed(whole)) and not whole.notices[: np.dtype(dtype) == np.uint8]
    if spoilt == "gone":
        east.unlink()
    else:
        east.write_bytes(b"" if spoilt == "empty" else b"II*\0nonsense")
    source = open_orthophoto(path, footprint_m=30, overlap=0, angles=[0])
    for _ in range(2):
        flags = failed(source)
        assert len(flags) == 16 and flags == [False, False, True, True] * 4
    assert any(east.name in notice for notice in source.notices)


def test_a_whole_mosaic_reads_as_its_sheets(tiff: Write) -> None:
    path, west, _ = mosaic(tiff)
    center = geo.offset(SEOUL, -32, 0)
    window, sheet = (OrthophotoWindows(file).window(center, 40, 1.0) for file in (path, west))
    np.testing.assert_array_equal(window.pixels, sheet.pixels)
