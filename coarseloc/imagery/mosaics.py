"""Windows of the map laid together out of pictures of known place, heading and size: reference captures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine
from coarseloc.core.types import BBox, Bools, Floats, LonLat, UInt8
from coarseloc.core.windows import MapWindow, north_up
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.windows import window_side_px

_BORDER_PX = 1.0  # of a picture left out where another one continues: its outermost pixels are mixed with nothing


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture on the ground: its middle, the heading of its upper edge, and its width in metres."""

    path: Path
    center: LonLat
    heading_deg: float
    width_m: float


class CaptureWindows:
    """A `core.windows.WindowSource` over reference captures. Safe to call from threads."""

    def __init__(
        self, pictures: Sequence[PlacedPicture], gsd_m: float, read: Callable[[Path], UInt8] = read_image
    ) -> None:
        """pictures: at one heading each place, best all at the same; gsd_m: of a picture; read: of its file."""
        if not pictures:
            raise InputError("no pictures to lay a map together: expected at least one capture with a position")
        self._pictures = pictures
        self.gsd_m = gsd_m
        self._read = read
        self._places = np.array([picture.center for picture in pictures], np.float64)
        self._reach_m = np.array([picture.width_m for picture in pictures]) / math.sqrt(2)
        self.bounds = self._box()

    def pictures_around(self, center: LonLat, side_m: float) -> int:
        """How many pictures a window would be laid together from."""
        return len(self._reaching(center, side_m / 2))

    def window(self, center: LonLat, side_m: float, gsd_m: float) -> MapWindow:
        """A north-up window out of the pictures that reach into it, each pixel from the one whose middle is nearest.

        Raises ImageryError where one of their files cannot be read, InputError for an impossible size.
        """
        side_px = window_side_px(side_m, gsd_m)
        east, north = self._offsets(center)
        half = side_px * gsd_m / 2
        reaching = self._reaching(center, half)
        pixels = np.zeros((side_px, side_px, 3), np.uint8)
        nearest_m = np.full((side_px, side_px), np.inf)
        line = (np.arange(side_px) + 0.5) * gsd_m - half  # metres from the middle, right and down
        for index in reaching.tolist():
            picture, pose = self._pictures[index], (float(east[index]), float(north[index]))
            distance = np.hypot(line[None] - pose[0], line[:, None] + pose[1])
            values, inside = _laid(self._read(picture.path), picture, pose, side_px, gsd_m)
            chosen = inside & (distance < nearest_m)
            pixels[chosen] = values[chosen]
            nearest_m[chosen] = distance[chosen]
        valid = np.isfinite(nearest_m)
        return north_up(pixels, None if valid.all() else valid, gsd_m, center)

    def _reaching(self, center: LonLat, half_m: float) -> NDArray[np.intp]:
        """The indices of the pictures that may reach into a window of half this side, whatever their heading."""
        return np.flatnonzero(np.maximum(*map(np.abs, self._offsets(center))) <= half_m + self._reach_m)

    def _offsets(self, center: LonLat) -> tuple[Floats, Floats]:
        """(east, north) metres of every picture's middle."""
        per_lon, per_lat = geo.metres_per_degree(center.lat)
        east = geo.signed_difference_deg(center.lon, self._places[:, 0]) * per_lon
        return east, (self._places[:, 1] - center.lat) * per_lat

    def _box(self) -> BBox:
        box = geo.bounds(self._places[:, 0], self._places[:, 1])
        per_lon, per_lat = geo.metres_per_degree(max(abs(box.south), abs(box.north)))
        half = max(picture.width_m for picture in self._pictures) / 2
        return BBox(
            box.west - half / per_lon, box.south - half / per_lat, box.east + half / per_lon, box.north + half / per_lat
        )


def _laid(
    source: UInt8, picture: PlacedPicture, offset_m: tuple[float, float], side_px: int, gsd_m: float
) -> tuple[UInt8, Bools]:
    """(a picture on a window's pixels uint8 [side, side, 3], where it covers them bool [side, side]).

    `offset_m`: of its middle from the window's, (east, north). Averaged first where it is finer than the window.
    """
    image = Image.fromarray(source)
    factor = max(1, int(gsd_m / (picture.width_m / image.width)))
    if factor > 1:
        image = image.reduce(factor)
    pixel_m = picture.width_m / source.shape[1] * factor
    heading = math.radians(picture.heading_deg)
    cos, sin = math.cos(heading), math.sin(heading)
    # Window metres (right, down) from the picture's middle → its own right and down: turned back by the heading.
    scale = gsd_m / pixel_m
    middle = source.shape[1] / factor / 2, source.shape[0] / factor / 2
    right, down = (-side_px / 2 * gsd_m - offset_m[0]) / pixel_m, (-side_px / 2 * gsd_m + offset_m[1]) / pixel_m
    to_picture = Affine(
        cos * scale, sin * scale, middle[0] + cos * right + sin * down,
        -sin * scale, cos * scale, middle[1] - sin * right + cos * down,
    )  # fmt: skip
    laid = image.transform((side_px, side_px), Image.Transform.AFFINE, to_picture, Image.Resampling.BICUBIC)
    column, row = np.arange(side_px) + 0.5, (np.arange(side_px) + 0.5)[:, None]
    x = to_picture.a * column + to_picture.b * row + to_picture.c
    y = to_picture.d * column + to_picture.e * row + to_picture.f
    inside = (np.minimum(x, y) >= _BORDER_PX) & (x <= 2 * middle[0] - _BORDER_PX) & (y <= 2 * middle[1] - _BORDER_PX)
    return np.asarray(laid), np.asarray(inside)
