"""Which bands of a raster are its colours, and how their values become uint8 RGB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from coarseloc.core.errors import InputError
from coarseloc.core.types import UInt8

PERCENTILES = (0.5, 99.5)  # of the valid values, mapped to 0 and 255
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True, slots=True)
class Colours:
    """How a raster's bands are shown: the same for every tile of it."""

    bands: tuple[int, ...]  # one (grey or palette) or three, counted from 1
    palette: UInt8 | None = None  # [256, 3]
    stretch: tuple[float, float] | None = None  # the values that become 0 and 255; None for uint8

    def rgb(self, values: NDArray) -> UInt8:
        """[B, H, W] of the raster's own type → uint8 [H, W, 3]."""
        if self.palette is not None:
            return self.palette[values[0]]
        if self.stretch is not None:
            low, high = self.stretch
            with np.errstate(over="ignore", invalid="ignore"):  # wild floats end at 0 or 255
                scaled = (values.astype(np.float64) - low) * (255 / (high - low))
            values = np.clip(np.nan_to_num(np.round(scaled)), 0, 255).astype(np.uint8)
        if len(values) == 1:
            values = np.repeat(values, 3, axis=0)
        return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def choose(dataset: DatasetReader) -> Colours:
    """The declared red, green and blue; else the first three bands; else the first as grey. A band is
    alpha only where it is declared so (of NAIP's four, the last is near infrared)."""
    declared = list(dataset.colorinterp)
    if ColorInterp.palette in declared and dataset.dtypes[0] == "uint8":
        return Colours((1,), palette=_palette(dataset.colormap(1)))
    if all(colour in declared for colour in _RGB):
        bands = tuple(declared.index(colour) + 1 for colour in _RGB)
    else:
        visible = [i for i, what in enumerate(declared, 1) if what != ColorInterp.alpha]
        bands = tuple(visible[:3]) if len(visible) >= 3 else tuple(visible[:1])
    kinds = {dataset.dtypes[band - 1] for band in bands}
    if len(kinds) != 1 or "complex" in str(kinds):
        raise InputError(
            f"{dataset.name}: bands {bands} hold {', '.join(sorted(kinds)) or 'nothing'}: "
            "expected one, or three bands of one integer or float type"
        )
    return Colours(bands)


def stretch_of(values: NDArray, valid: NDArray[np.bool_] | None) -> tuple[float, float]:
    """The values of one raster that become 0 and 255, from a small copy of it.

    values: [B, H, W]; valid: bool [H, W] or None. One pair for all bands, so that colours keep their hue.
    """
    good = np.isfinite(values).all(axis=0)
    if valid is not None:
        good &= valid
    if not good.any():
        raise InputError("the raster holds no valid pixel: nothing to cut tiles from")
    low, high = (float(value) for value in np.percentile(values[:, good], PERCENTILES))
    return (low, high) if high > low else (low, low + 1)


def _palette(colormap: Mapping[int, tuple[int, ...]]) -> UInt8:
    table = np.zeros((256, 3), np.uint8)
    for value, colour in colormap.items():
        if 0 <= value < 256:
            table[value] = colour[:3]
    return table
