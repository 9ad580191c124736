"""Tiles of the web's map grid (XYZ, EPSG:3857) cut out of a map's windows, or of one picture of all of it.

Within a tile Mercator is taken as affine, which is right to a tenth of a pixel where a tile is below 20 km.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.types import BBox, LonLat, UInt8
from coarseloc.core.windows import WindowSource

TILE_PX = 256
MAX_ZOOM = 24
_EQUATOR_M = 2 * math.pi * 6_378_137.0
_MARGIN = 1.03  # a degree's two lengths differ from Mercator's by up to 0.7 %; the rest is bicubic's reach
_BICUBIC_PX = 3  # that it reaches beyond a tile's edge
_FORMATS: dict[str, dict[str, Any]] = {"webp": {"quality": 86, "method": 2}, "png": {"compress_level": 4}}
FORMATS = tuple(_FORMATS)


@dataclass(frozen=True, slots=True)
class MapTile:
    """One tile of the grid: `x` counts from 180° W, `y` from the north."""

    zoom: int
    x: int
    y: int

    @property
    def exists(self) -> bool:
        return 0 <= self.zoom <= MAX_ZOOM and max(self.x, self.y) < 2**self.zoom and min(self.x, self.y) >= 0

    @property
    def box(self) -> BBox:
        west, east = (360.0 * x / 2**self.zoom - 180.0 for x in (self.x, self.x + 1))
        north, south = (self._latitude(y) for y in (self.y, self.y + 1))
        return BBox(west, south, east, north)

    @property
    def center(self) -> LonLat:
        return LonLat(360.0 * (self.x + 0.5) / 2**self.zoom - 180.0, self._latitude(self.y + 0.5))

    @property
    def pixel_m(self) -> float:
        """Metres a pixel, about."""
        return _EQUATOR_M * math.cos(math.radians(self.center.lat)) / float(TILE_PX * 2**self.zoom)

    def _latitude(self, y: float) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**self.zoom))))

    def meets(self, bounds: BBox) -> bool:
        box = self.box
        offset = float(geo.signed_difference_deg(self.center.lon, geo.box_center(bounds).lon))
        beside = abs(offset) >= (geo.box_width_deg(bounds) + box.east - box.west) / 2
        return not beside and box.south < bounds.north and box.north > bounds.south


def zoom_range(bounds: BBox, gsd_m: float) -> tuple[int, int]:
    """(the zoom at which the bounds still fill half a tile, the one that shows pixels of `gsd_m` metres in full)."""
    across = max(*geo.box_size_m(bounds), TILE_PX * gsd_m)
    at_equator = _EQUATOR_M * math.cos(math.radians(geo.box_center(bounds).lat))
    farthest = max(0, math.floor(math.log2(at_equator / across)) - 1)
    nearest = math.ceil(math.log2(at_equator / TILE_PX / gsd_m) - 0.1)
    return farthest, min(MAX_ZOOM, max(farthest, nearest))


def window_tile(source: WindowSource, tile: MapTile) -> UInt8:
    """uint8 [256, 256, 4], RGBA; transparent where the map has no ground.

    Raises what `WindowSource.window` does.
    """
    center, box = tile.center, tile.box
    per_lon, per_lat = geo.metres_per_degree(center.lat)
    width_m, height_m = (box.east - box.west) * per_lon, (box.north - box.south) * per_lat
    window = source.window(center, max(width_m, height_m) * _MARGIN, width_m / TILE_PX)
    corners = [window.metres_of(LonLat(*place)) for place in _corners(box)]
    pixels = [(x / window.gsd_m, y / window.gsd_m) for x, y in corners]
    alpha = np.ones(window.pixels.shape[:2], np.bool_) if window.valid is None else window.valid
    return _cut(window.pixels, alpha, pixels)


def picture_tile(picture: UInt8, bounds: BBox, tile: MapTile) -> UInt8:
    """uint8 [256, 256, 4], RGBA. picture: uint8 [H, W, 3], of the bounds, north up, its pixels even in degrees."""
    height, width = picture.shape[:2]
    per_x, per_y = width / geo.box_width_deg(bounds), height / (bounds.north - bounds.south)
    left = float(geo.signed_difference_deg(bounds.west, tile.box.west))
    if left > 180.0 or left + 360.0 < geo.box_width_deg(bounds):
        left %= 360.0
    right = left + tile.box.east - tile.box.west
    top, bottom = ((bounds.north - lat) * per_y for lat in (tile.box.north, tile.box.south))
    corners = [(left * per_x, top), (right * per_x, top), (left * per_x, bottom)]
    return _cut(picture, np.broadcast_to(np.True_, (height, width)), corners)


def encode(rgba: UInt8, form: str) -> bytes:
    """A tile as a file; form: of FORMATS."""
    file = io.BytesIO()
    image = Image.fromarray(rgba)
    (image.convert("RGB") if rgba[..., 3].min() == 255 else image).save(file, form, **_FORMATS[form])
    return file.getvalue()


def _corners(box: BBox) -> list[tuple[float, float]]:
    return [(box.west, box.north), (box.east, box.north), (box.west, box.south)]


def _cut(pixels: UInt8, valid: Any, corners: list[tuple[float, float]]) -> UInt8:
    """What lies between the upper left, upper right and lower left corner, in continuous pixels of the image; averaged
    first where it is finer than the tile."""
    (x0, y0), (x1, y1), (x2, y2) = corners
    xs, ys = (x0, x1, x2, x1 + x2 - x0), (y0, y1, y2, y1 + y2 - y0)
    factor = max(1, int(min(math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x0, y2 - y0)) / TILE_PX))
    spare = factor if factor > 1 else _BICUBIC_PX
    left, top = max(0, int(min(xs)) - spare), max(0, int(min(ys)) - spare)
    part = slice(top, max(top, int(max(ys)) + spare)), slice(left, max(left, int(max(xs)) + spare))
    if not pixels[part].size:
        return np.zeros((TILE_PX, TILE_PX, 4), np.uint8)
    image, mask = Image.fromarray(pixels[part]), Image.fromarray(valid[part].view(np.uint8) * np.uint8(255))
    if factor > 1:
        image, mask = image.reduce(factor), mask.reduce(factor)
    (x0, y0), (x1, y1), (x2, y2) = (((x - left) / factor, (y - top) / factor) for x, y in corners)
    affine = ((x1 - x0) / TILE_PX, (x2 - x0) / TILE_PX, x0, (y1 - y0) / TILE_PX, (y2 - y0) / TILE_PX, y0)
    size, kind = (TILE_PX, TILE_PX), Image.Transform.AFFINE
    colours = np.asarray(image.transform(size, kind, affine, Image.Resampling.BICUBIC))
    alpha = np.asarray(mask.transform(size, kind, affine, Image.Resampling.NEAREST))
    return np.dstack([colours, alpha])
