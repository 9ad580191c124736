"""Borders of pictures and rasters that are black or white and show no ground, though nothing says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Bools, UInt8

_LEVELS = 3  # beside black and white, that lossy compression leaves
_SAMPLES = 128  # a side: where a picture is looked at
_AGAIN = 3  # rounds of runs: bays of a collar are reached round corners


def blank(values: NDArray[Any]) -> Bools:
    """Where a pixel is black in all bands, or white in all; values [B, H, W] → bool [H, W].

    In 8 bits but for a few levels; else exactly 0, or the integer type's highest value.
    """
    if values.dtype == np.uint8:
        black, white = values <= _LEVELS, values >= 255 - _LEVELS
        return np.asarray(black.all(axis=0) | white.all(axis=0))
    dark: Bools = (values == 0).all(axis=0)
    if not np.issubdtype(values.dtype, np.integer):
        return dark
    return np.asarray(dark | (values == np.iinfo(values.dtype).max).all(axis=0))


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


def _runs(empty: Bools, seeds: Bools) -> Bools:
    """Cells that follow the left border, or a seed, in their row without a cell that is not empty between."""
    column = np.arange(empty.shape[1])
    last_full = np.maximum.accumulate(np.where(empty, -1, column), axis=1)
    last_seed = np.maximum.accumulate(np.where(seeds, column, -1), axis=1)
    return np.asarray(empty & ((last_full < 0) | (last_seed > last_full)))


def seen_share(picture: UInt8) -> float:
    """The share of a picture uint8 [H, W, 3] that is not a black or white border."""
    height, width = picture.shape[:2]
    small = picture[:: max(1, height // _SAMPLES), :: max(1, width // _SAMPLES)]
    empty = blank(np.moveaxis(small, -1, 0))
    edges = (empty[0], empty[-1], empty[:, 0], empty[:, -1])
    if not any(edge.any() for edge in edges):
        return 1.0
    return float(1.0 - from_border(empty).mean())
