"""Turning pictures. Pure: numpy and Pillow, no files.

The heading of a view is the direction its upper edge faces, in degrees clockwise from true north. So the
view at 90 has east on top and is `np.rot90(north_up, 1)`.

Pixel coordinates are continuous: (0, 0) is the upper left *corner* of the upper left pixel, x to the right
and y down, as in rasterio and in Pillow's AFFINE transform.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coarseloc.core.errors import InputError
from coarseloc.core.types import UInt8

Bool = NDArray[np.bool_]

HEADINGS = (0, 45, 90, 135, 180, 225, 270, 315)
"""What references are turned to unless something else is asked for."""


class Affine(NamedTuple):
    """x' = a x + b y + c, y' = d x + e y + f: in the order of Pillow's AFFINE data and rasterio's transforms."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        return self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f

    def after(self, first: Affine) -> Affine:
        """This map applied to what `first` gives."""
        c, f = self(first.c, first.f)
        return Affine(
            self.a * first.a + self.b * first.d, self.a * first.b + self.b * first.e, c,
            self.d * first.a + self.e * first.d, self.d * first.b + self.e * first.e, f,
        )  # fmt: skip


class RotatedView(NamedTuple):
    """A view and how much of it is ground."""

    pixels: UInt8  # [side, side, 3]
    ground_fraction: float


def affine_views(
    window: UInt8, to_source: Affine, side_px: int, angles: Iterable[int], valid: Bool | None = None
) -> dict[int, RotatedView]:
    """Views of one place at whole-degree headings, out of one north-up or any other window around it.

    window: uint8 [H, W, 3]; to_source: pixels of the view at heading 0 → pixels of the window; valid:
    bool [H, W], False where the window holds no ground (None: all of it does). Returns uint8
    [side, side, 3] per angle, black where there is no ground. Headings a multiple of 90 apart share one
    resampling: eight headings are two of them, the other six are exact transposes.
    """
    picture = Image.fromarray(window)
    views: dict[int, RotatedView] = {}
    bases: dict[int, RotatedView] = {}
    for angle in normalise_headings(angles):
        base = angle % 90
        if base not in bases:
            bases[base] = _resample(picture, rotate_affine(to_source, base, side_px), side_px, valid)
        pixels, ground = bases[base]
        views[angle] = RotatedView(quarter_turns(pixels, angle // 90), ground)
    return views


def affine_view(
    window: UInt8, to_source: Affine, side_px: int, heading_deg: float, valid: Bool | None = None
) -> RotatedView:
    """One view at any heading; arguments as `affine_views`."""
    to_window = rotate_affine(to_source, heading_deg, side_px)
    return _resample(Image.fromarray(window), to_window, side_px, valid)


def rotate_affine(to_source: Affine, heading_deg: float, side_px: int) -> Affine:
    """The map of the view at `heading_deg`, given that of the view at heading 0.

    A step right in the turned view is a step towards heading + 90, a step up one towards the heading:
    x = x' cos h - y' sin h, y = x' sin h + y' cos h about the centre, y down.
    """
    cos, sin = _cos_sin(heading_deg)
    middle = side_px / 2
    about_centre = Affine(cos, -sin, middle * (1 - cos + sin), sin, cos, middle * (1 - cos - sin))
    return to_source.after(about_centre)


def source_bounds(to_source: Affine, side_px: int, headings: Iterable[float]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in source pixels that the views at `headings` reach: 1.4142 times the
    view's side as soon as one of them is at 45 degrees."""
    corners = [
        rotate_affine(to_source, heading, side_px)(x, y)
        for heading in {heading % 90 for heading in headings}  # quarter turns cover the same square
        for x in (0, side_px)
        for y in (0, side_px)
    ]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def quarter_turns(pixels: UInt8, turns: int) -> UInt8:
    """The view whose heading is `turns` quarter turns further clockwise; exact, contiguous, uint8 [H, W, 3]."""
    # A pixel is moved as one item of three bytes: twice as fast as three of one.
    whole = np.ascontiguousarray(pixels).view("V3")[..., 0]
    return np.ascontiguousarray(np.rot90(whole, turns))[..., None].view(np.uint8)


def normalise_headings(angles: Iterable[int]) -> tuple[int, ...]:
    """Headings as whole degrees in [0, 360), sorted, each once; InputError for a fraction of a degree."""
    headings = list(angles)
    wrong = [angle for angle in headings if not math.isfinite(angle) or angle != int(angle)]
    if wrong or not headings:
        raise InputError(f"angles {headings}: expected whole degrees such as 0, 45, 90")
    return tuple(sorted({int(angle) % 360 for angle in headings}))


def stored_angle(angle_deg: int, turned: str) -> int:
    """The heading in this project's convention of a set turned "cw" (as here) or "ccw" (the other way)."""
    if turned not in ("cw", "ccw"):
        raise InputError(f'turned is "{turned}": expected "cw" (angles are headings) or "ccw" (the other way)')
    return (angle_deg if turned == "cw" else 360 - angle_deg) % 360


def _resample(picture: Image.Image, to_window: Affine, side_px: int, valid: Bool | None) -> RotatedView:
    """Bicubic, as Pillow does it; it paints black what lies outside the window."""
    size = (side_px, side_px)
    view = picture.transform(size, Image.Transform.AFFINE, to_window, Image.Resampling.BICUBIC)
    pixels = np.array(view)
    if valid is None and _inside(to_window, side_px, picture.size):
        return RotatedView(pixels, 1.0)
    ground = Image.fromarray(
        np.ones((picture.height, picture.width), np.uint8) if valid is None else valid.view(np.uint8)
    )
    mask = np.asarray(ground.transform(size, Image.Transform.AFFINE, to_window, Image.Resampling.NEAREST))
    pixels[mask == 0] = 0
    return RotatedView(pixels, float(mask.mean()))


def _inside(to_window: Affine, side_px: int, window_size: tuple[int, int]) -> bool:
    """Whether every pixel of the view has its centre in the window."""
    ends: Sequence[float] = (0.5, side_px - 0.5)
    reached = [to_window(x, y) for x in ends for y in ends]
    return all(0 <= x < window_size[0] and 0 <= y < window_size[1] for x, y in reached)


def _cos_sin(heading_deg: float) -> tuple[float, float]:
    """Exact at quarter turns, where a rounding of 1e-16 would move pixel centres across borders."""
    quarter, rest = divmod(heading_deg % 360, 90)
    if rest == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarter) % 4]  # 4 of a hair below 0
    return math.cos(math.radians(heading_deg)), math.sin(math.radians(heading_deg))
