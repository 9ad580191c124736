"""What a raster's bands hold: its colours, whether a band is alpha, and which values are nodata or stretched."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from coarseloc.core.errors import InputError
from coarseloc.core.types import Bools, UInt8

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_RGB_NAMES = {  # Sentinel-2's numbers and Korean, too
    "red": {"red", "r", "b04", "적", "적색", "빨강"},
    "green": {"green", "g", "b03", "녹", "녹색", "초록"},
    "blue": {"blue", "b", "b02", "청", "청색", "파랑"},
}
_OFF_RGB = {"edge", "coastal", "nir", "near", "infrared", "swir", "index"}  # red edge, coastal blue, near infrared
_INFRARED = {"nir", "infrared", "ir", "swir"}
_STRETCH_PERCENTILES = (0.5, 99.5)  # of the valid values, mapped to 0 and 255
_ODD_SHARE = 0.0005  # of the pixels: fewer of one value move no percentile
_ODD_VALUES = 3  # at either end
_REST_SHARE = 0.02  # of the pixels, which the values that are not odd hold at least
_HALF_TONES = 0.5  # share of values between none and all that no alpha has: its are 0 or full but at edges
_ALPHA_FULL = (1, 255, 1023, 4095, 16383)  # of types that reach further
_ALPHA_SHARE = 0.95  # of 0 and full values that a band that is not called alpha has where it is one
_BLANK_LEVELS = 3  # that the colour under no ground differs by


@dataclass(frozen=True, slots=True)
class ColourMapping:
    """How a raster's bands become RGB: the same for every tile of it."""

    bands: tuple[int, ...]  # one (grey or palette) or three, counted from 1
    palette: UInt8 | None = None  # [256 or 65536, 3]
    stretch: tuple[float, float] | None = None  # the values that become 0 and 255; None for uint8
    is_min_white: bool = False  # the lowest value is white

    def rgb(self, values: NDArray[Any]) -> UInt8:
        """[B, H, W] of the raster's own type → uint8 [H, W, 3]."""
        if self.palette is not None:
            colours: UInt8 = self.palette[values[0]]
            return colours
        if self.stretch is not None:
            low, high = self.stretch
            with np.errstate(over="ignore", invalid="ignore"):  # wild floats end at 0 or 255
                scaled = (values.astype(np.float64) - low) * (255 / (high - low))
            values = np.clip(np.nan_to_num(np.round(scaled)), 0, 255).astype(np.uint8)
        if len(values) == 1:
            values = np.repeat(values, 3, axis=0)
        return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def choose_bands(dataset: DatasetReader, name: str) -> tuple[ColourMapping, list[str]]:
    """(the colours, notices). Bands described as red, green and blue; else those declared so; else the first three
    that are not called alpha; else the first as grey."""
    declared = list(dataset.colorinterp)
    if ColorInterp.palette in declared and dataset.dtypes[0] in ("uint8", "uint16"):
        return ColourMapping((1,), palette=_palette(dataset.colormap(1), dataset.dtypes[0])), []
    notices = []
    described = _described_rgb(dataset.descriptions)
    stated = tuple(declared.index(colour) + 1 for colour in _RGB) if set(_RGB) <= set(declared) else None
    visible = [i for i, meaning in enumerate(declared, 1) if meaning != ColorInterp.alpha]
    bands = described or stated or (tuple(visible[:3]) if len(visible) >= 3 else tuple(visible[:1]))
    if described and described != (stated or (1, 2, 3)):
        notices.append(f"{name}: bands {bands} are taken as red, green and blue, as their descriptions say")
    elif not described and len(bands) == 3 and any(chosen := [dataset.descriptions[band - 1] for band in bands]):
        notices.append(
            f"{name}: bands {bands}, described as {', '.join(map(str, chosen))}, are taken as red, green and blue"
        )
    elif not described and not stated and len(visible) > 3:
        notices.append(
            f"{name} does not say which of its {dataset.count} bands are red, green and blue: bands {bands} are taken"
        )
    elif not described and not stated and len(visible) == 2:
        notices.append(f"{name}: band 1 is taken as grey, band 2 is left unused")
    kinds = {dataset.dtypes[band - 1] for band in bands}
    if len(kinds) != 1 or "complex" in str(kinds):
        raise InputError(
            f"{dataset.name}: bands {bands} hold {', '.join(sorted(kinds)) or 'nothing'}: "
            "expected one, or three bands of one integer or float type"
        )
    (kind,) = kinds
    if len(bands) == 1 and kind.startswith(("int", "float")):
        notices.append(
            f"{name} has one band of {kind}: taken as a grey picture. If it holds heights (DEM, DSM), give the "
            "orthophoto instead"
        )
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE", "").upper() != "YES":
        return ColourMapping(bands), notices
    notices.append(f"{name}: its lowest value is white (photometric min-is-white): its tones are turned over")
    return ColourMapping(bands, stretch=(255.0, 0.0) if kinds == {"uint8"} else None, is_min_white=True), notices


def false_alpha(dataset: DatasetReader, values: NDArray[Any], band: int) -> str | None:
    """Why a band that is called alpha is none; values: [h, w] of it."""
    words = _words(dataset.descriptions[band - 1])
    if words & _INFRARED:
        return f"its description is {dataset.descriptions[band - 1]!r}"
    full = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1.0
    between = float(((values > 0) & (values < full)).mean())
    if between > _HALF_TONES and len(np.unique(values)) > 16:
        return f"{between:.0%} of its values lie between none and all, as a picture's do (near infrared?)"
    return None


def alpha_full(values: NDArray[Any]) -> int | None:
    """The value of a declared alpha, [h, w] of it, that means full where it is not the type's highest: 1, 255 or 4095,
    as programs write it; None where it is the highest, or none."""
    if not np.issubdtype(values.dtype, np.integer):
        return None
    highest = int(values.max())
    return highest if highest in _ALPHA_FULL and highest < np.iinfo(values.dtype).max // 2 else None


def undeclared_alpha(dataset: DatasetReader, bands: Sequence[int], values: NDArray[Any]) -> int | None:
    """The last band where it is alpha and not called so: 0 where the colours hold nothing, full elsewhere.

    values: [B, h, w] of all bands.
    """
    last = dataset.count
    if last not in (2, 4) or last in bands or dataset.colorinterp[last - 1] == ColorInterp.alpha:
        return None
    if not np.issubdtype(values.dtype, np.unsignedinteger) or _words(dataset.descriptions[last - 1]) & _INFRARED:
        return None
    alpha, full = values[last - 1], np.iinfo(values.dtype).max
    empty = alpha == 0
    if not empty.any() or (empty | (alpha == full)).mean() < _ALPHA_SHARE or not (alpha == full).any():
        return None
    beneath = values[np.asarray(bands) - 1][:, empty].astype(np.int64)
    return last if (np.ptp(beneath, axis=1) <= _BLANK_LEVELS).all() else None


def odd_value_limits(values: NDArray[Any], valid: Bools | None) -> tuple[float, float] | None:
    """The range outside of which values are nodata that the file does not declare, or None.

    Odd are up to three values at an end that many pixels hold and that lie farther off all others than these reach,
    such as -9999 and -10000. values: [B, h, w].
    """
    levels, counts = np.unique(values[:, _usable(values, valid)].astype(np.float64), return_counts=True)
    often = counts >= max(4, _ODD_SHARE * counts.sum())
    best, limits = 0, None
    for low, high in itertools.product(range(_ODD_VALUES + 1), repeat=2):
        rest = levels[low : len(levels) - high]
        if low + high <= best or len(rest) < 2 or not (often[:low].all() and often[len(levels) - high :].all()):
            continue
        spread = rest[-1] - rest[0]
        gaps = np.diff(levels)[[*([low - 1] if low else []), *([len(levels) - high - 1] if high else [])]]
        if gaps.min() > spread and counts[low : len(levels) - high].sum() > _REST_SHARE * counts.sum():
            best = low + high
            limits = (
                float(rest[0] - spread / 2) if low else -np.inf,
                float(rest[-1] + spread / 2) if high else np.inf,
            )
    return limits


def value_range(values: NDArray[Any], valid: Bools | None) -> tuple[float, float]:
    """Compute the values of one raster that become 0 and 255, from a small copy of it.

    values: [B, H, W]; valid: bool [H, W] or None. One pair for all bands, so that colours keep their hue.
    """
    usable = _usable(values, valid)
    if not usable.any():
        raise InputError("the raster holds no valid pixel: nothing to cut tiles from")
    low, high = (float(value) for value in np.percentile(values[:, usable], _STRETCH_PERCENTILES))
    return (low, high) if high > low else (low, low + 1)


def _usable(values: NDArray[Any], valid: Bools | None) -> Bools:
    usable: Bools = np.isfinite(values).all(axis=0)
    return usable if valid is None else usable & valid


def _described_rgb(descriptions: Sequence[str | None]) -> tuple[int, ...] | None:
    bands: dict[str, int] = {}
    for band, text in enumerate(descriptions, 1):
        words = _words(text)
        for colour, names in _RGB_NAMES.items():
            if words & names and not words & _OFF_RGB:
                bands.setdefault(colour, band)
    return tuple(bands[colour] for colour in _RGB_NAMES) if len(set(bands.values())) == len(_RGB_NAMES) else None


def _words(text: str | None) -> set[str]:
    return set(re.findall(r"b0[234]|[a-z]+|[가-힣]+", re.sub(r"rededge", "red edge", (text or "").lower())))


def _palette(colormap: Mapping[int, tuple[int, ...]], dtype: str) -> UInt8:
    table = np.zeros((256 if dtype == "uint8" else 65536, 3), np.uint8)
    for value, colour in colormap.items():
        if 0 <= value < len(table):
            table[value] = colour[:3]
    return table
