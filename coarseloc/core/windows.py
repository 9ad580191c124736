"""A piece of the map that frames are registered on, and the protocol of where such pieces come from. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coarseloc.core import geo
from coarseloc.core.rotation import Affine
from coarseloc.core.types import BBox, Bools, Floats, LonLat, UInt8


@dataclass(frozen=True, slots=True)
class MapWindow:
    """A piece of the map with square pixels of `gsd_m` metres.

    `pixels`: uint8 [H, W, 3], RGB. `valid`: bool [H, W], False where there is no ground; None where all of it is.
    `to_ground`: continuous pixels (x right, y down, from the upper left corner) to metres (east, north) of `center`;
    a similarity: north need not be exactly up, so that a window may keep its map's own grid.
    """

    pixels: UInt8
    valid: Bools | None
    gsd_m: float
    to_ground: Affine
    center: LonLat

    @property
    def heading_deg(self) -> float:
        """Clockwise from true north, that the window's upper edge faces."""
        return float(np.degrees(np.arctan2(-self.to_ground.b, -self.to_ground.e)))

    def location(self, x_m: float, y_m: float) -> LonLat:
        """The position of window metres (x right, y down, from the upper left corner)."""
        east, north = self.to_ground(float(x_m) / self.gsd_m, float(y_m) / self.gsd_m)
        return geo.offset(self.center, east, north)

    def metres_of(self, location: LonLat) -> tuple[float, float]:
        """Window metres of a position near the window."""
        east, north = geo.offset_m(self.center, location)
        linear = self.axes()
        x, y = np.linalg.solve(linear, [east - self.to_ground.c, north - self.to_ground.f])
        return float(x) * self.gsd_m, float(y) * self.gsd_m

    def middle(self, width_px: int, height_px: int) -> MapWindow:
        """Its pixels around its middle, at most so many, and as many more as are needed to keep that middle."""
        height, width = self.pixels.shape[:2]
        left, top = max(0, (width - width_px) // 2), max(0, (height - height_px) // 2)
        part = slice(top, height - top), slice(left, width - left)
        a, b, c, d, e, f = self.to_ground
        moved = Affine(a, b, c + a * left + b * top, d, e, f + d * left + e * top)
        valid = None if self.valid is None or self.valid[part].all() else self.valid[part]
        return MapWindow(self.pixels[part], valid, self.gsd_m, moved, self.center)

    def axes(self) -> Floats:
        """float64 [2, 2]: pixels (right, down) to metres (east, north)."""
        a, b, _, d, e, _ = self.to_ground
        return np.array([[a, b], [d, e]])

    def from_ground_axes(self) -> Floats:
        """float64 [2, 2], orthonormal: window axes (right, down) to (east, north)."""
        return self.axes() / self.gsd_m


class WindowSource(Protocol):
    """Where pieces of the map come from: an orthophoto, or a mosaic of captures. Equal only to itself."""

    def __hash__(self) -> int: ...

    @property
    def gsd_m(self) -> float:
        """The map's own ground sample distance."""
        ...

    @property
    def bounds(self) -> BBox:
        """The box around all of the map."""
        ...

    def window(self, center: LonLat, side_m: float, gsd_m: float) -> MapWindow:
        """A square window around a position, at least `side_m` metres a side, `gsd_m` metres a pixel, up within a few
        degrees of true north. Where the map ends, `valid` is False. Raises InputError where the map cannot be read.
        """
        ...


def north_up(pixels: UInt8, valid: Bools | None, gsd_m: float, center: LonLat) -> MapWindow:
    """A window whose middle lies at `center` and whose up is true north."""
    height, width = pixels.shape[:2]
    to_ground = Affine(gsd_m, 0.0, -width * gsd_m / 2, 0.0, -gsd_m, height * gsd_m / 2)
    return MapWindow(pixels, valid, gsd_m, to_ground, center)


def blocks_over(bounds: BBox, most_m: float) -> tuple[list[LonLat], tuple[float, float]]:
    """(centres, half the width and half the height in metres) of the fewest equal blocks, none larger than `most_m`
    metres a side, that cover a box."""
    middle = geo.box_center(bounds)
    nearest = min(abs(bounds.south), abs(bounds.north)) if bounds.south * bounds.north > 0 else 0.0
    per_lon, per_lat = geo.metres_per_degree(nearest)[0], geo.metres_per_degree(middle.lat)[1]
    width_m, height_m = (bounds.east - bounds.west) % 360.0 * per_lon, (bounds.north - bounds.south) * per_lat
    columns, rows = (max(1, math.ceil(extent / most_m - 1e-9)) for extent in (width_m, height_m))
    centers = []
    for row in range(rows):
        lat = bounds.north - (row + 0.5) * height_m / rows / per_lat
        for column in range(columns):
            lon = bounds.west + (column + 0.5) * width_m / columns / per_lon
            centers.append(LonLat((lon + 180.0) % 360.0 - 180.0, lat))
    return centers, (width_m / columns / 2, height_m / rows / 2)
