"""Borders of pictures and rasters that are of one colour and show no ground, though nothing says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from coarseloc.core.types import Bools, UInt8

Colour = NDArray[Any]
"""[B], of a raster's own type."""

_LEVELS = 3  # beside the colour, that lossy compression leaves
_SAMPLES = 128  # a side: where a picture is looked at
_AGAIN = 3  # rounds of runs: bays of a collar are reached round corners
_LEAST_SHARE = 0.05  # of a picture: less may be a roof, a beach or a shadow at its edge
_EDGE_SHARE = 0.05  # of its outermost pixels
_EXACT_SHARE = 0.8  # of a border's pixels that are its colour to the level: water, snow and sand are not so even
_INNER_SHARE = 0.98  # the same, without the fringe
_FRINGE = 8  # pixels along its edge, where lossy compression rings


def blank(values: NDArray[Any], colour: Colour | None = None) -> Bools:
    """Where a pixel is black in all bands, white in all, or of a colour; values [B, H, W] → bool [H, W].

    In 8 bits but for a few levels; else exactly 0, or the integer type's highest value.
    """
    if values.dtype == np.uint8:
        empty: Bools = (values.max(axis=0) <= _LEVELS) | (values.min(axis=0) >= 255 - _LEVELS)
    else:
        empty = (values == 0).all(axis=0)
        if np.issubdtype(values.dtype, np.integer):
            empty |= (values == np.iinfo(values.dtype).max).all(axis=0)
    return empty if colour is None else empty | _near(values, colour, _LEVELS)


def edge_colour(edge: NDArray[Any]) -> Colour | None:
    """The commonest colour of outermost pixels [B, N], where many hold it and it is not black or white."""
    colours, counts = np.unique(edge, axis=1, return_counts=True)
    counts[blank(colours[:, None])[0]] = 0
    often = counts.size and counts.max() >= _EDGE_SHARE * edge.shape[1]
    return colours[:, counts.argmax()] if often else None


def is_border_colour(values: NDArray[Any], usable: Bools, colour: Colour) -> bool:
    """Whether a colour of the outermost pixels is that of a border which shows no ground.

    values: [B, H, W]; usable: bool [H, W], False where there is no ground anyway. Such a border takes 5 % of the
    picture and leaves as much, which is not of one colour; and it is even to the level, as water, snow and sand
    are not.
    """
    border = from_border(_near(values, colour, _LEVELS) | ~usable) & usable
    rest = usable & ~border
    if min(border.mean(), rest.mean()) < _LEAST_SHARE:
        return False
    exact = _near(values, colour, 0)
    inner = _shrunk(border, _FRINGE) if values.dtype == np.uint8 else border
    if 4 * inner.sum() < border.sum():
        inner = border
    if exact[border].mean() < _EXACT_SHARE or exact[inner].mean() < _INNER_SHARE:
        return False
    ground = values[:, rest]
    _, counts = np.unique(ground[:, :: max(1, ground.shape[1] // _SAMPLES**2)], axis=1, return_counts=True)
    return bool(counts.max() < counts.sum() / 2)


def picture_border_colour(values: NDArray[Any]) -> Colour | None:
    """The colour, not black or white, of a picture's border that shows no ground; values [B, H, W]."""
    colour = edge_colour(np.concatenate([values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]], axis=1))
    usable = np.ones(values.shape[1:], np.bool_)
    return colour if colour is not None and is_border_colour(values, usable, colour) else None


def from_border(empty: Bools) -> Bools:
    """Of cells bool [H, W] those that are reached from the border along rows and columns without leaving them."""
    reached = np.zeros_like(empty)
    for _ in range(_AGAIN):
        before = int(reached.sum())
        for view, out in ((empty, reached), (empty.T, reached.T)):
            seeds = out.copy()
            for step in (1, -1):
                out |= _runs(view[:, ::step], seeds[:, ::step])[:, ::step]
        if int(reached.sum()) == before:
            break
    return reached


def seen_share(picture: UInt8) -> float:
    """The share of a picture uint8 [H, W, 3] that is not a border of one colour."""
    height, width = picture.shape[:2]
    small = np.moveaxis(picture[:: max(1, height // _SAMPLES), :: max(1, width // _SAMPLES)], -1, 0).copy()
    empty = blank(small, picture_border_colour(small))
    edges = (empty[0], empty[-1], empty[:, 0], empty[:, -1])
    if not any(edge.any() for edge in edges):
        return 1.0
    return float(1.0 - from_border(empty).mean())


def _near(values: NDArray[Any], colour: Colour, levels: int) -> Bools:
    """Where values [B, …] are a colour, in 8 bits but for some levels; bool […]."""
    wide = colour.reshape(-1, *[1] * (values.ndim - 1))
    if values.dtype != np.uint8:
        return np.asarray((values == wide).all(axis=0))
    return np.asarray((np.abs(values.astype(np.int16) - wide) <= levels).all(axis=0))


def _shrunk(cells: Bools, by: int) -> Bools:
    """Cells bool [H, W] that have only such beside them as far as `by` rows and columns, as far as the picture goes."""
    mask = Image.fromarray(np.pad(cells, by, mode="edge").view(np.uint8))
    return np.asarray(mask.filter(ImageFilter.MinFilter(2 * by + 1)))[by:-by, by:-by] > 0


def _runs(empty: Bools, seeds: Bools) -> Bools:
    """Cells that follow the left border, or a seed, in their row without a cell that is not empty between."""
    column = np.arange(empty.shape[1], dtype=np.int32)
    last_full = np.maximum.accumulate(np.where(empty, np.int32(-1), column), axis=1)
    last_seed = np.maximum.accumulate(np.where(seeds, column, np.int32(-1)), axis=1)
    return np.asarray(empty & ((last_full < 0) | (last_seed > last_full)))
