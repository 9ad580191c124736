"""Tiles of the web's map grid: the right ground in the right pixel, and base maps of three kinds."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from coarseloc.core.errors import InputError
from coarseloc.core.types import BBox, LonLat
from coarseloc.imagery.base_map import open_base_map
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.imagery.map_tiles import MapTile, encode, picture_tile, window_tile, zoom_range
from coarseloc.imagery.windows import OrthophotoWindows

MIDDLE = LonLat(127.03, 37.5)


def tile_at(place: LonLat, zoom: int) -> MapTile:
    across = 2**zoom
    y = (1 - np.arcsinh(np.tan(np.radians(place.lat))) / np.pi) / 2
    return MapTile(zoom, int((place.lon + 180) / 360 * across), int(y * across))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """125 m of ground at 1 m a pixel, whose red says how far east a pixel is, and green how far south."""
    ramp = (2 * np.arange(125)).astype(np.uint8)
    pixels = np.dstack([np.tile(ramp, (125, 1)), np.tile(ramp[:, None], (1, 125)), np.full((125, 125), 99, np.uint8)])
    return write_rgb(tmp_path_factory.mktemp("photo") / "ramp.tif", pixels, center=MIDDLE, gsd_m=1.0)


@given(st.integers(1, 22), st.floats(-179, 179), st.floats(-84, 84))
def test_a_place_lies_in_the_tile_that_is_named_for_it(zoom, lon, lat):
    box = tile_at(LonLat(lon, lat), zoom).box
    assert box.west - 1e-9 <= lon <= box.east + 1e-9 and box.south - 1e-9 <= lat <= box.north + 1e-9


def test_a_tile_shows_the_ground_that_lies_under_it_and_is_clear_beyond(photo):
    source = OrthophotoWindows(photo)
    tile = tile_at(MIDDLE, 17)
    rgba = window_tile(source, tile)
    box = tile.box
    lon = box.west + (np.arange(256) + 0.5) / 256 * (box.east - box.west)
    lat = box.north - (np.arange(256) + 0.5) / 256 * (box.north - box.south)
    x, y = source._raster.pixels_of(*np.meshgrid(lon, lat))
    inside = (np.minimum(x, y) > 2) & (np.maximum(x, y) < 123)
    beyond = (np.minimum(x, y) < -2) | (np.maximum(x, y) > 127)
    assert rgba[..., 3][inside].min() == 255 and (not beyond.any() or rgba[..., 3][beyond].max() == 0)
    seen, expected = rgba[..., :2].astype(float), 2 * np.dstack([x - 0.5, y - 0.5])
    off = (seen - expected)[inside]
    assert np.abs(off - np.median(off)).max() < 1.5 and abs(np.median(off)) < 1.2, "two levels are a metre, a pixel"


def test_neighbouring_tiles_meet_without_a_seam(photo):
    source = OrthophotoWindows(photo)
    tile = tile_at(MIDDLE, 20)
    left = window_tile(source, tile)
    right = window_tile(source, MapTile(tile.zoom, tile.x + 1, tile.y))
    both = (left[:, -1, 3] > 0) & (right[:, 0, 3] > 0)
    assert both.any()
    assert np.abs(left[both, -1, :2].astype(int) - right[both, 0, :2]).max() <= 2


def test_a_picture_of_all_of_it_is_cut_at_the_same_places():
    tile = tile_at(MIDDLE, 18)
    west, south, east, north = tile.box
    bounds = BBox(west - 0.0002, south - 0.0001, east + 0.0002, north - 0.0003)
    ramp = np.tile(np.arange(250, dtype=np.uint8), (100, 1))
    rgba = picture_tile(np.dstack([ramp] * 3), bounds, tile)
    lon = west + (np.arange(256) + 0.5) / 256 * (east - west)
    expected = (lon - bounds.west) / (bounds.east - bounds.west) * 250 - 0.5
    assert np.abs(rgba[200, :, 0] - expected).max() < 1.5
    assert rgba[200, :, 3].min() == 255 and rgba[0, :, 3].max() == 0, "north of the picture there is nothing"


def test_zooms_go_from_the_whole_map_to_its_own_pixels(photo):
    source = OrthophotoWindows(photo)
    low, high = zoom_range(source.bounds, source.gsd_m)
    assert tile_at(MIDDLE, high).pixel_m <= 1.07 and tile_at(MIDDLE, high - 1).pixel_m > 1.0
    assert 400 / tile_at(MIDDLE, low).pixel_m * 2 >= 200 and low < high


@pytest.mark.parametrize("tile", [MapTile(25, 0, 0), MapTile(3, 8, 0), MapTile(3, 0, 8), MapTile(-1, 0, 0)])
def test_what_is_no_tile_of_the_grid_says_so(tile):
    assert not tile.exists


def test_a_tile_meets_bounds_across_the_antimeridian():
    fiji = BBox(179.9, -17.0, -179.9, -16.0)
    assert (
        MapTile(10, 0, 559).meets(fiji) and MapTile(10, 1023, 559).meets(fiji) and not MapTile(10, 512, 559).meets(fiji)
    )


# --- base maps -----------------------------------------------------------------------------------


def picture(level: int) -> bytes:
    return encode(np.full((256, 256, 4), [level, 0, 0, 255], np.uint8), "png")


def test_mbtiles_count_their_rows_from_the_south(tmp_path):
    path = tmp_path / "base.mbtiles"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE metadata (name text, value text)")
        file.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
        file.execute("INSERT INTO metadata VALUES ('format', 'png')")
        file.execute("INSERT INTO tiles VALUES (3, 6, 4, ?)", (picture(7),))
        file.commit()
    base = open_base_map(path)
    assert base.tile(MapTile(3, 6, 3)) == picture(7)
    assert base.tile(MapTile(3, 6, 4)) is None and base.tile(MapTile(9, 0, 0)) is None


def test_pmtiles_of_pictures_are_read_and_of_vectors_refused(tmp_path):
    for kind in (TileType.PNG, TileType.MVT):
        with (tmp_path / f"{kind.name}.pmtiles").open("wb") as file:
            writer = Writer(file)
            writer.write_tile(zxy_to_tileid(3, 6, 3), picture(9))
            box = {"min_lon_e7": 900_000_000, "min_lat_e7": 0, "max_lon_e7": 1_350_000_000, "max_lat_e7": 664_000_000}
            writer.finalize({"tile_type": kind, "tile_compression": Compression.NONE, **box}, {})
    assert open_base_map(tmp_path / "PNG.pmtiles").tile(MapTile(3, 6, 3)) == picture(9)
    with pytest.raises(InputError, match="tiles of mvt: expected pictures"):
        open_base_map(tmp_path / "MVT.pmtiles")


def test_a_geotiff_is_a_base_map_too(photo):
    base = open_base_map(photo)
    data = base.tile(tile_at(MIDDLE, base.max_zoom))
    assert data and Image.open(io.BytesIO(data)).size == (256, 256)
    assert base.tile(tile_at(LonLat(0, 0), base.max_zoom)) is None


@pytest.mark.parametrize("name", ["no.mbtiles", "bad.mbtiles", "bad.pmtiles", "bad.tif"])
def test_what_is_no_base_map_is_refused_with_its_name(tmp_path, name):
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"no map at all" * 20)
    with pytest.raises(InputError, match=name):
        open_base_map(tmp_path / name)
