"""Maps on a page: the ground as it looks from above, in metres around a middle, with what is drawn over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, PolyCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.errors import CoarselocError
from coarseloc.core.types import BBox, Floats, LonLat, UInt8
from coarseloc.core.windows import MapWindow, WindowSource
from coarseloc.i18n import Translator
from search.evaluation.report import style

LONGEST_PX = 640  # of the ground's picture
_JPEG_PX = 128  # of a capture's decoded side: a map shows it smaller still
_MARGIN = 1.04
_PALE = 0.55  # of the ground's own colours under what is drawn over it
_TICKS_M = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
GOOD_TO_BAD: Colormap = LinearSegmentedColormap.from_list("good-to-bad", ["#0072b2", "#f2f2f2", "#c44e00"])


class GroundDrawing:
    """A box of the ground, in metres east and north of its middle, with its picture where there is one."""

    def __init__(self, box: BBox, source: WindowSource | None = None) -> None:
        """source: where the picture comes from; a map that cannot be read leaves the ground blank."""
        self.middle = geo.box_center(box)
        width_m, height_m = (max(extent, 1.0) * _MARGIN for extent in geo.box_size_m(box))
        self.width_m, self.height_m = width_m, height_m
        self._window = None if source is None else _window(source, self.middle, max(width_m, height_m))

    def metres(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """(east, north) of the middle."""
        return geo.local_metres(self.middle, lon, lat)

    def figure(self, translate: Translator) -> tuple[Figure, Axes]:
        """A figure with the ground in it, its axes in metres."""
        height_in = min(9.0, max(2.5, (style.WIDTH_IN - 1.7) * self.height_m / self.width_m + 0.7))
        figure, (ax,) = style.new_figure(height_in=height_in)
        ax.set_aspect("equal")
        ax.set_xlim(-self.width_m / 2, self.width_m / 2)
        ax.set_ylim(-self.height_m / 2, self.height_m / 2)
        ax.grid(visible=False)
        if self._window is not None:
            self._draw(ax, self._window)
        tick = next((step for step in _TICKS_M if max(self.width_m, self.height_m) / step <= 8), _TICKS_M[-1])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MultipleLocator(tick))
        ax.set_xlabel(
            translate("metres east of {lat}, {lon}").format(
                lat=f"{self.middle.lat:.5f}°", lon=f"{self.middle.lon:.5f}°"
            )
        )
        ax.set_ylabel(translate("metres north"))
        return figure, ax

    def _draw(self, ax: Axes, window: MapWindow) -> None:
        half = window.pixels.shape[0] * window.gsd_m / 2
        ink = np.full((*window.pixels.shape[:2], 4), 255, np.uint8)
        ink[..., :3] = 255 - (255 - window.pixels.astype(np.float32)) * _PALE
        if window.valid is not None:
            ink[..., 3] = np.where(window.valid, 255, 0)
        ax.imshow(ink, extent=(-half, half, -half, half), interpolation="none", aspect="equal", zorder=0)
        ax.set_xlim(-self.width_m / 2, self.width_m / 2)
        ax.set_ylim(-self.height_m / 2, self.height_m / 2)

    def boxes(self, ax: Axes, boxes: Sequence[BBox], *, colour: str, fill: float = 0.0, line: float = 0.6) -> None:
        """Footprints, as outlines or filled."""
        patches = []
        for box in boxes:
            east, north = self.metres(np.array([box.west, box.east]), np.array([box.south, box.north]))
            patches.append(Rectangle((east[0], north[0]), east[1] - east[0], north[1] - north[0]))
        if patches:
            face = (*to_rgb(colour), fill) if fill else "none"
            ax.add_collection(
                PatchCollection(patches, facecolor=face, edgecolor=(*to_rgb(colour), 0.8), linewidth=line, zorder=2)
            )

    def cells(
        self,
        ax: Axes,
        lon: Floats,
        lat: Floats,
        values: Floats,
        side_m: float,
        *,
        cmap: Colormap,
        low: float,
        high: float,
    ) -> PolyCollection:
        """Squares of `side_m` around places, coloured by values; nan is left blank."""
        east, north = self.metres(lon, lat)
        finite = np.isfinite(values)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side_m / 2
        squares = np.stack([east, north], axis=1)[finite, None] + corners
        cells = PolyCollection(list(squares), cmap=cmap, alpha=0.72, edgecolor="none", zorder=2)
        cells.set_array(np.asarray(values)[finite])
        cells.set_clim(low, high)
        ax.add_collection(cells)
        return cells


def _window(source: WindowSource, middle: LonLat, side_m: float) -> MapWindow | None:
    gsd_m = max(side_m / LONGEST_PX, source.gsd_m)
    try:
        return source.window(middle, side_m, gsd_m)
    except CoarselocError:  # the map is a backdrop: what is drawn over it stands without
        return None


def read_small(path: Path) -> UInt8:
    """A JPEG decoded at about `_JPEG_PX` a side, any other picture whole: enough for a map of all of them."""
    with Image.open(path) as picture:
        picture.draft("RGB", (_JPEG_PX, _JPEG_PX))
        return np.asarray(picture.convert("RGB"))
