"""A base map that the user gives: MBTiles or PMTiles with raster tiles, or a GeoTIFF in any CRS."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coarseloc.core.errors import CoarselocError, InputError
from coarseloc.core.types import BBox
from coarseloc.imagery.map_tiles import MAX_ZOOM, MapTile, encode, window_tile, zoom_range
from coarseloc.imagery.windows import OrthophotoWindows

_WORLD = BBox(-180.0, -85.0, 180.0, 85.0)
_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True, slots=True)
class BaseMap:
    """Tiles of the web's map grid out of one file. Safe to call from threads."""

    path: Path
    bounds: BBox
    min_zoom: int
    max_zoom: int
    version: str  # changes with the file
    read: Callable[[MapTile], bytes | None]

    def tile(self, tile: MapTile) -> bytes | None:
        """A picture file; None where the map has no tile, or one that is no picture."""
        if not self.min_zoom <= tile.zoom <= self.max_zoom or not tile.meets(self.bounds):
            return None
        data = self.read(tile)
        return data if data and image_type(data) else None


def image_type(data: bytes) -> str:
    """The media type of a PNG, JPEG or WebP file by its first bytes; empty for any other."""
    return next((kind for head, kind in _TYPES.items() if data.startswith(head)), "")


def open_base_map(path: Path) -> BaseMap:
    """Raises InputError where the file is not there, or is no map with raster tiles."""
    if not path.is_file():
        raise InputError(f"base map {path} is not there: give a .mbtiles, a .pmtiles or a GeoTIFF")
    opener = {".mbtiles": _open_mbtiles, ".pmtiles": _open_pmtiles}.get(path.suffix.lower(), _open_raster)
    return opener(path)


def _version(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_mtime_ns:x}{stat.st_size:x}"


def _open_mbtiles(path: Path) -> BaseMap:
    """MBTiles 1.3: SQLite, rows counted from the south."""

    def ask(query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    try:
        facts = dict(ask("SELECT name, value FROM metadata"))
        low, high = ask("SELECT min(zoom_level), max(zoom_level) FROM tiles")[0]
    except sqlite3.Error as error:
        raise InputError(f"base map {path} cannot be read as MBTiles: {error}") from None
    _check_raster(path, str(facts.get("format", "png")))
    if low is None:
        raise InputError(f"base map {path} holds no tile")

    def read(tile: MapTile) -> bytes | None:
        row = 2**tile.zoom - 1 - tile.y
        query = "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        rows = ask(query, tile.zoom, tile.x, row)
        return bytes(rows[0][0]) if rows else None

    return BaseMap(path, _bounds(facts.get("bounds")), int(low), min(int(high), MAX_ZOOM), _version(path), read)


def _bounds(text: Any) -> BBox:
    try:
        west, south, east, north = (float(part) for part in str(text).split(","))
    except ValueError:
        return _WORLD
    return BBox(west, south, east, north) if -90 <= south < north <= 90 else _WORLD


def _open_pmtiles(path: Path) -> BaseMap:
    from pmtiles.reader import MmapSource, Reader
    from pmtiles.tile import TileType

    reading = threading.Lock()  # the reader's file has one position
    try:
        reader = Reader(MmapSource(path.open("rb")))
        header = reader.header()
    except Exception as error:  # whatever a damaged file makes it raise
        raise InputError(f"base map {path} cannot be read as PMTiles: {error}") from None
    _check_raster(path, TileType(header["tile_type"]).name.lower())

    def read(tile: MapTile) -> bytes | None:
        with reading:
            data: bytes | None = reader.get(tile.zoom, tile.x, tile.y)
            return data

    west, south, east, north = (header[name] / 1e7 for name in ("min_lon_e7", "min_lat_e7", "max_lon_e7", "max_lat_e7"))
    return BaseMap(path, BBox(west, south, east, north), header["min_zoom"], header["max_zoom"], _version(path), read)


def _check_raster(path: Path, form: str) -> None:
    if form not in ("png", "jpg", "jpeg", "webp"):
        raise InputError(f"base map {path} holds tiles of {form}: expected pictures (png, jpg or webp), not vectors")


def _open_raster(path: Path) -> BaseMap:
    windows = OrthophotoWindows(path)
    low, high = zoom_range(windows.bounds, windows.gsd_m)

    def read(tile: MapTile) -> bytes | None:
        try:
            return encode(window_tile(windows, tile), "webp")
        except CoarselocError:  # a part that cannot be read leaves a gap
            return None

    return BaseMap(path, windows.bounds, low, high, _version(path), read)
