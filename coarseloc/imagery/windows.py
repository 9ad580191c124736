"""Windows of the map cut out of an orthophoto, in any CRS, up by true north."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from coarseloc.core import geo, rotation
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine
from coarseloc.core.types import LonLat, UInt8
from coarseloc.core.windows import MapWindow, north_up
from coarseloc.imagery.file_names import resolve
from coarseloc.imagery.raster import Raster

MAX_WINDOW_PX = 8192  # a side: a mistyped resolution, not a window


def window_side_px(side_m: float, gsd_m: float) -> int:
    """The pixels a side of a window of at least `side_m` metres. Raises InputError for an impossible size."""
    if not (side_m > 0 and gsd_m > 0 and side_m / gsd_m <= MAX_WINDOW_PX):
        raise InputError(
            f"a window of {side_m} m at {gsd_m} m a pixel: expected both above 0, and at most "
            f"{MAX_WINDOW_PX} pixels a side"
        )
    return max(2, math.ceil(side_m / gsd_m - 1e-9))


class OrthophotoWindows:
    """A `core.windows.WindowSource` that reads one raster. Safe to call from threads."""

    def __init__(self, path: Path, crs: str | None = None, border_is_ground: bool = False) -> None:
        """crs: what the file's CRS is, where it does not say so rightly; border_is_ground: as of `Raster`; `notices`:
        what was chosen.

        Raises InputError where the file cannot be read or placed on the Earth.
        """
        self._raster = Raster(resolve(path), crs, border_is_ground)
        self.notices: Sequence[str] = self._raster.notices
        self.gsd_m = self._raster.metres_per_pixel()
        self.crs = self._raster.crs.to_string()  # an authority's code, or WKT
        width, height = self._raster.width, self._raster.height
        lon, lat = self._raster.positions_of([0, width, width, 0], [0, 0, height, height])
        self.bounds = geo.bounds(lon, lat)

    def view(self, center: LonLat, side_m: float, heading_deg: float, side_px: int) -> UInt8:
        """uint8 [side_px, side_px, 3]: what is seen of a square around any position, its upper edge facing a heading.

        Raises InputError where the raster cannot be read.
        """
        return self._raster.view(center, side_m, heading_deg, side_px).pixels

    def window(self, center: LonLat, side_m: float, gsd_m: float) -> MapWindow:
        """A north-up window of `gsd_m` metres a pixel around any position, by averaging where the raster is finer and
        bicubic where it is coarser or turned; black and not valid where the raster ends or holds no ground.

        Raises InputError where the raster cannot be read, or the window would have more than MAX_WINDOW_PX a side.
        """
        side_px = window_side_px(side_m, gsd_m)
        to_source = Affine(*self._raster.affines([center], side_px * gsd_m, side_px)[0].tolist())
        source = self._raster.window(to_source, side_px)
        if source is None:
            pixels = np.zeros((side_px, side_px, 3), np.uint8)
            return north_up(pixels, np.zeros((side_px, side_px), np.bool_), gsd_m, center)
        pixels, valid, to_pixels = source
        view = rotation.affine_view(pixels, to_pixels, side_px, 0.0, valid)
        ground = None if view.ground_fraction == 1.0 else _ground(pixels.shape[:2], valid, to_pixels, side_px)
        return north_up(view.pixels, ground, gsd_m, center)


def _ground(shape: tuple[int, ...], valid: np.ndarray | None, to_pixels: Affine, side_px: int) -> np.ndarray:
    """bool [side_px, side_px]: where the pixels of a source of `shape` lie under a window and are valid."""
    mask = np.ones(shape, np.bool_) if valid is None else valid
    image = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    turned = image.transform((side_px, side_px), Image.Transform.AFFINE, tuple(to_pixels), Image.Resampling.NEAREST)
    return np.asarray(turned) > 127
