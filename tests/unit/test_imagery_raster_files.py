"""Rasters of every kind that people have: world files, JPEG 2000, ERDAS, GeoPackage, MBTiles, folders of sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rasterio.warp
from PIL import Image
from rasterio.transform import Affine as Transform

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.imagery.raster import Raster

SEOUL = LonLat(127.03, 37.50)
GRID = "EPSG:5186"
SIZE = 128


def ground(seed: int = 4, bands: int = 3) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(40, 220, (bands, SIZE // 8, SIZE // 8), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def around(crs: str = GRID) -> Transform:
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [SEOUL.lon], [SEOUL.lat])
    return Transform(1, 0, round(x) - SIZE / 2, 0, -1, round(y) + SIZE / 2)


def write(path: Path, values: np.ndarray, transform: Transform, crs: str | None = GRID, **profile: object) -> Path:
    profile = {"driver": "GTiff", "dtype": values.dtype, "crs": crs, "transform": transform, **profile}
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", **shape, **profile) as dataset:
        dataset.write(values)
    return path


def world_file(path: Path, to: Transform) -> None:
    path.write_text(f"{to.a}\n0\n0\n{to.e}\n{to.c + to.a / 2}\n{to.f + to.e / 2}\n")


def middle_view(path: Path, crs: str | None = None) -> np.ndarray:
    raster = Raster(path, crs)
    lon, lat = raster.positions_of(raster.width / 2, raster.height / 2)
    assert geo.distance_m(float(lon), float(lat), *SEOUL) < 2
    return raster.view(LonLat(float(lon), float(lat)), 64.0, 0.0, 64).pixels


@pytest.fixture
def expected(tmp_path: Path) -> np.ndarray:
    return middle_view(write(tmp_path / "expected.tif", ground(), around()))


@pytest.mark.parametrize(("suffix", "world"), [("png", "pgw"), ("jpg", "jgw"), ("tif", "tfw")])
def test_a_picture_with_a_world_file_is_placed_by_the_users_crs(
    tmp_path: Path, suffix: str, world: str, expected: np.ndarray
) -> None:
    path = tmp_path / f"area.{suffix}"
    Image.fromarray(np.moveaxis(ground(), 0, 2)).save(path, quality=98, subsampling=0)
    world_file(tmp_path / f"area.{world}", around())
    with pytest.raises(InputError, match="--crs EPSG"):
        Raster(path)
    assert np.abs(middle_view(path, GRID).astype(int) - expected).mean() < 4


def test_a_picture_without_a_world_file_is_told_which_it_lacks(tmp_path: Path) -> None:
    Image.fromarray(np.moveaxis(ground(), 0, 2)).save(tmp_path / "area.png")
    with pytest.raises(InputError, match=r"a PNG picture.*world file \(area\.pgw\).*gdal_translate"):
        Raster(tmp_path / "area.png")


def test_the_prj_beside_a_file_without_a_crs_is_taken_and_told(tmp_path: Path, expected: np.ndarray) -> None:
    path = write(tmp_path / "area.tif", ground(), around(), crs=None)
    path.with_suffix(".prj").write_text(rasterio.crs.CRS.from_user_input(GRID).to_wkt(version="WKT1_ESRI"))
    assert any("that of area.prj is taken" in notice for notice in Raster(path).notices)
    assert np.array_equal(middle_view(path), expected)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("area.img", {"driver": "HFA"}),
        ("area.jp2", {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}),
        ("area.gpkg", {"driver": "GPKG", "TILE_FORMAT": "PNG"}),
    ],
)
def test_other_kinds_of_rasters_show_what_a_geotiff_shows(
    tmp_path: Path, name: str, profile: dict[str, str], expected: np.ndarray
) -> None:
    source = write(tmp_path / "source.tif", ground(), around())
    rasterio.shutil.copy(source, tmp_path / name, **profile)
    assert np.abs(middle_view(tmp_path / name).astype(int) - expected).mean() < 1


def test_mbtiles_are_read(tmp_path: Path) -> None:
    mercator = around("EPSG:3857")
    source = write(tmp_path / "source.tif", ground(), mercator, "EPSG:3857")
    rasterio.shutil.copy(source, tmp_path / "area.mbtiles", driver="MBTiles", TILE_FORMAT="PNG")
    raster = Raster(tmp_path / "area.mbtiles")
    lon, lat = rasterio.warp.transform("EPSG:3857", "EPSG:4326", [mercator.c + 64], [mercator.f - 64])
    place = LonLat(lon[0], lat[0])
    views = [r.view(place, 40.0, 0.0, 40) for r in (raster, Raster(source))]
    assert views[0].ground_fraction == 1.0
    assert np.abs(views[0].pixels.astype(int) - views[1].pixels).mean() < 12


def sheets(folder: Path, values: np.ndarray, **profile: object) -> Path:
    """Four sheets of one map."""
    folder.mkdir()
    half = SIZE // 2
    for row in (0, 1):
        for column in (0, 1):
            part = values[:, row * half :, column * half :][:, :half, :half]
            to_crs = around() @ Transform.translation(column * half, row * half)
            write(folder / f"s{row}{column}.tif", part, to_crs, **profile)
    return folder


def test_a_folder_of_sheets_is_one_map(tmp_path: Path, expected: np.ndarray) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    assert np.array_equal(middle_view(folder), expected)
    assert "its 4 sheets are taken as one map" in Raster(folder).notices[0]


def test_a_gap_between_sheets_is_no_ground(tmp_path: Path) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    (folder / "s01.tif").unlink()
    raster = Raster(folder)
    lon, lat = raster.positions_of(96, 32)
    assert "25.0% of their box is on none of them" in raster.notices[0]
    assert raster.view(LonLat(float(lon), float(lat)), 32.0, 0.0, 32).ground_fraction == 0.0
    assert len(open_orthophoto(folder, footprint_m=64, overlap=0, angles=[0]).tiles) == 3


def test_a_sheet_without_ground_hides_no_other(tmp_path: Path, expected: np.ndarray) -> None:
    folder = sheets(tmp_path / "sheets", ground(), nodata=0)
    write(folder / "z.tif", np.zeros((3, SIZE, SIZE), np.uint8), around(), nodata=0)
    assert np.array_equal(middle_view(folder), expected)


def test_sheets_that_overlap_and_copies_are_told(tmp_path: Path) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    (folder / "s00 (1).tif").write_bytes((folder / "s00.tif").read_bytes())
    notices = Raster(folder).notices
    assert "25.0% on several" in notices[0]
    assert "s00.tif and s00 (1).tif show the same ground" in notices[1]


def test_sheets_of_other_resolution_are_brought_to_one(tmp_path: Path, expected: np.ndarray) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    with rasterio.open(folder / "s11.tif") as dataset:
        coarse, to_crs = dataset.read()[:, ::2, ::2], dataset.transform @ Transform.scale(2)
    write(folder / "s11.tif", coarse, to_crs)
    assert any("sides of 1 to 2" in notice for notice in Raster(folder).notices)
    assert np.array_equal(middle_view(folder), expected)


def test_sheets_in_two_crs_are_refused_with_what_to_run(tmp_path: Path) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    write(folder / "other.tif", ground(), around("EPSG:32652"), "EPSG:32652")
    with pytest.raises(InputError, match=r"4 in EPSG:5186, 1 in EPSG:32652; first other other\.tif.*gdalwarp"):
        Raster(folder)


def test_sheets_of_other_bands_or_far_away_are_refused(tmp_path: Path) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    write(folder / "grey.tif", ground()[:1], around())
    with pytest.raises(InputError, match=r"differ in their bands: grey\.tif has gray"):
        Raster(folder)
    write(folder / "grey.tif", ground(), around() @ Transform.translation(1e5, 0))
    with pytest.raises(InputError, match=r"far apart.*farthest is grey\.tif"):
        Raster(folder)


def test_sheets_with_palettes_of_their_own_keep_their_colours(tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    for index, colour in enumerate([(200, 10, 20), (30, 180, 40)]):
        path = folder / f"{index}.tif"
        to_crs = around() @ Transform.translation(index * SIZE, 0)
        write(path, np.full((1, SIZE, SIZE), 7, np.uint8), to_crs, photometric="palette")
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, {7: (*colour, 255)})
    raster = Raster(folder)
    for x, colour in ((64, (200, 10, 20)), (192, (30, 180, 40))):
        lon, lat = raster.positions_of(x, 64)
        assert raster.view(LonLat(float(lon), float(lat)), 16.0, 0.0, 16).pixels[8, 8].tolist() == list(colour)


def test_a_changed_part_changes_the_fingerprints_of_tiles(tmp_path: Path) -> None:
    folder = sheets(tmp_path / "sheets", ground())
    before = open_orthophoto(folder, footprint_m=64, angles=[0])
    with rasterio.open(folder / "s00.tif") as dataset:
        profile = dataset.profile
    write(folder / "s00.tif", ground(9)[:, :64, :64], profile["transform"], compress="deflate")
    after = open_orthophoto(folder, footprint_m=64, angles=[0])
    assert before.source_fingerprint(before.tiles[0], 0) != after.source_fingerprint(after.tiles[0], 0)


def test_a_world_file_and_a_prj_that_contradict_their_file_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "area.tif", ground(), around())
    world_file(tmp_path / "area.tfw", around())
    (tmp_path / "area.prj").write_text(rasterio.crs.CRS.from_epsg(5186).to_wkt("WKT1_ESRI"))
    assert Raster(path).notices == []
    world_file(tmp_path / "area.tfw", around() @ Transform.translation(300, 0))
    (tmp_path / "area.prj").write_text(rasterio.crs.CRS.from_epsg(5181).to_wkt("WKT1_ESRI"))
    moved, other_grid = Raster(path).notices
    assert "area.tfw" in moved and "300 pixels beside" in moved
    assert "area.prj" in other_grid and "m off" in other_grid


def test_pages_of_a_tiff_and_one_band_of_heights_are_told(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.moveaxis(ground(seed), 0, 2)) for seed in (1, 2)]
    pictures[0].save(tmp_path / "pages.tif", save_all=True, append_images=pictures[1:])
    world_file(tmp_path / "pages.tfw", around())
    assert any("holds 2 pictures (pages)" in notice for notice in Raster(tmp_path / "pages.tif", GRID).notices)
    heights = write(tmp_path / "dem.tif", ground(bands=1).astype(np.float32), around())
    assert any("heights (DEM, DSM)" in notice for notice in Raster(heights).notices)


def test_an_aux_xml_that_lays_its_file_elsewhere_is_told(tmp_path: Path) -> None:
    path, to = write(tmp_path / "area.tif", ground(), around()), around()
    aux = tmp_path / "area.tif.aux.xml"
    aux.write_text(f"<PAMDataset><GeoTransform>{to.c}, 1, 0, {to.f}, 0, -1</GeoTransform></PAMDataset>")
    assert Raster(path).notices == []
    aux.write_text(f"<PAMDataset><GeoTransform>{to.c + 300}, 1, 0, {to.f}, 0, -1</GeoTransform></PAMDataset>")
    (notice,) = Raster(path).notices
    assert "area.tif.aux.xml lays area.tif 300 pixels beside" in notice


def test_places_at_a_grids_origin_and_nowhere_are_told(tmp_path: Path) -> None:
    origin = write(tmp_path / "local.tif", ground(), Transform(1, 0, 0, 0, -1, SIZE))
    assert any("origin of its grid" in notice for notice in Raster(origin).notices)
    millimetres = Transform(1000, 0, around().c * 1000, 0, -1000, around().f * 1000)
    with pytest.raises(InputError, match="lies nowhere in its CRS EPSG:5186"):
        Raster(write(tmp_path / "mm.tif", ground(), millimetres))
