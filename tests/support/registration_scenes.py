"""A generated map and frames photographed over it with a known pose: what registration is tested on."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.camera import Distortion
from coarseloc.core.rotation import Affine
from coarseloc.core.types import LonLat
from coarseloc.core.windows import MapWindow, north_up
from coarseloc.localize.registration import geometry
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.simulate.terrain import render_area

GSD_M = 2.0
SIDE_M = 1000.0
CENTER = LonLat(127.03, 37.49)


@functools.cache
def scene_map(seed: int = 5) -> np.ndarray:
    """uint8 [500, 500, 3], 2 m a pixel."""
    return render_area(seed, SIDE_M, SIDE_M, GSD_M)


def photograph(pose: WindowPose, shape: FrameGeometry, seed: int = 5) -> np.ndarray:
    """The frame uint8 [H, W, 3] whose pose on the map this is."""
    half = shape.width_px / 2
    from_pixels = np.array([[1 / half, 0, -1], [0, 1 / half, -shape.height_px / shape.width_px], [0, 0, 1]])
    h = np.diag([1 / GSD_M, 1 / GSD_M, 1.0]) @ geometry.to_ground(pose, shape) @ from_pixels
    data = (h / h[2, 2]).ravel()[:8].tolist()
    size = (shape.width_px, shape.height_px)
    picture = Image.fromarray(scene_map(seed)).transform(
        size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC
    )
    return np.asarray(picture)


def pictured(straight: np.ndarray, distortion: Distortion, half_fov_tan: float) -> np.ndarray:
    """uint8 [H, W, 3]: what a lens makes of a picture without distortion, whose borders are repeated beyond it.

    By the pixel: the inverse of the lens's formulas by fixed points (as OpenCV undistorts points), then bilinear.
    """
    height, width = straight.shape[:2]
    per_ray = width / 2 / half_fov_tan
    x_lens = (np.arange(width)[None] + 0.5 - width / 2) / per_ray + np.zeros((height, 1))
    y_lens = (np.arange(height)[:, None] + 0.5 - height / 2) / per_ray + np.zeros((1, width))
    d, x, y = distortion, x_lens, y_lens
    for _ in range(60):
        r2 = x * x + y * y
        radial = 1 + d.k1 * r2 + d.k2 * r2**2 + d.k3 * r2**3
        tangential_x = 2 * d.p1 * x * y + d.p2 * (r2 + 2 * x * x)
        tangential_y = d.p1 * (r2 + 2 * y * y) + 2 * d.p2 * x * y
        x, y = (x_lens - tangential_x) / radial, (y_lens - tangential_y) / radial
    column = np.clip(x * per_ray + width / 2 - 0.5, 0, width - 1.001)
    row = np.clip(y * per_ray + height / 2 - 0.5, 0, height - 1.001)
    i, j = row.astype(int), column.astype(int)
    below, right = (row - i)[..., None], (column - j)[..., None]
    upper = straight[i, j] * (1 - right) + straight[i, j + 1] * right
    lower = straight[i + 1, j] * (1 - right) + straight[i + 1, j + 1] * right
    return np.round(upper * (1 - below) + lower * below).astype(np.uint8)


def scene_window(center: LonLat, side_m: float, gsd_m: float, seed: int = 5) -> MapWindow:
    """A window of the map, resampled; not valid off it."""
    picture = Image.fromarray(scene_map(seed))
    east, north = _metres(center)
    side = math.ceil(side_m / gsd_m - 1e-9)
    scale = gsd_m / GSD_M
    left = (east + SIDE_M / 2) / GSD_M - side * scale / 2
    top = (SIDE_M / 2 - north) / GSD_M - side * scale / 2
    affine = Affine(scale, 0.0, left, 0.0, scale, top)
    if scale > 1.0:  # as a raster is read: smaller by averaging first
        reduced = round(picture.width / scale)
        factor = picture.width / reduced
        picture = picture.resize((reduced, reduced), Image.Resampling.BOX)
        affine = Affine(scale / factor, 0.0, left / factor, 0.0, scale / factor, top / factor)
    size = (side, side)
    pixels = np.asarray(picture.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    ground = Image.fromarray(np.full((picture.height, picture.width), 255, np.uint8))
    valid = np.asarray(ground.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.NEAREST)) > 127
    return north_up(pixels, None if valid.all() else valid, gsd_m, center)


class SceneSource:
    """The map as a source of windows."""

    gsd_m = GSD_M
    bounds = geo.square(CENTER, SIDE_M)

    def window(self, center: LonLat, side_m: float, gsd_m: float) -> MapWindow:
        return scene_window(center, side_m, gsd_m)


def location(x_m: float, y_m: float) -> LonLat:
    """The position of the map's metres (right, down, from its upper left corner)."""
    return north_up(scene_map(), None, GSD_M, CENTER).location(x_m, y_m)


def _metres(center: LonLat) -> tuple[float, float]:
    whole = north_up(scene_map(), None, GSD_M, CENTER)
    x, y = whole.metres_of(center)
    return x - SIDE_M / 2, SIDE_M / 2 - y
