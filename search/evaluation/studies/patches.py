"""Patch tokens under rotation: laid back by the known turn, compared where both views show the same ground. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.errors import BackboneError
from coarseloc.core.rotation import Affine, rotate_affine
from coarseloc.core.types import Backbone, Float32, Floats, UInt8
from coarseloc.store.studies import Arrays, CurvePoint
from search.evaluation.studies.study import curve_point

RADII = 5  # rings from the centre to the corner
RING_ANGLES = (45, 90, 180)  # whose patches are grouped by their distance from the centre
PATCH_ARRAYS = ("aligned", "unaligned", "other", "pooled", "rings")


def patch_tokens(backbone: Backbone, images: UInt8) -> Float32:
    """float32 [B, G, G, D] of uint8 [B, H, W, 3]; BackboneError for an encoder that has none."""
    embed = getattr(backbone, "patch_tokens", None)
    if embed is None:
        raise BackboneError(
            f"backbone {backbone.spec.backbone} has no patch tokens: leave them out with --patches 0 --positions 0"
        )
    tokens: Float32 = embed(images)
    return tokens


def patch_cosines(tokens: Float32, other_tokens: Float32, step: int) -> Arrays:
    """The cosines of a frame's patch tokens [H, G, G, D], and of another frame's [G, G, D], with the frame at
    heading 0, [H] each, and [H, RADII] by distance from the centre.

    aligned: patches laid back by the known turn; unaligned: patches at the same row and column; other: aligned patches
    of the other place; pooled: of the mean of all patches.
    """
    unit = _unit(tokens)
    grid = tokens.shape[1]
    unit_north, other_unit = unit[0], _unit(other_tokens)
    arrays: dict[str, list[Any]] = {name: [] for name in PATCH_ARRAYS}
    for i in range(len(tokens)):
        patches, positions, radius = realigned(unit[i], grid, i * step)
        cosine = np.sum(patches * sampled(unit_north, positions), axis=1)
        arrays["aligned"].append(_mean(cosine))
        arrays["unaligned"].append(np.sum(unit[i] * unit_north, axis=2).mean())
        arrays["other"].append(_mean(np.sum(patches * sampled(other_unit, positions), axis=1)))
        arrays["pooled"].append(float(_unit(tokens[i].mean(axis=(0, 1))) @ _unit(tokens[0].mean(axis=(0, 1)))))
        ring = np.minimum((radius * RADII).astype(int), RADII - 1)
        arrays["rings"].append([_mean(cosine[ring == r]) for r in range(RADII)])
    return {name: np.array(values, float) for name, values in arrays.items()}


def realigned(view: Float32, grid: int, heading_deg: float) -> tuple[Float32, Floats, Floats]:
    """The patches of a turned view that the view at heading 0 shows as well: (tokens [N, D], where each lies in the
    view at heading 0 [N, 2] as x and y in patches, distance from the centre [N] in half diagonals)."""
    to_north = rotate_affine(Affine(1, 0, 0, 0, 1, 0), heading_deg, grid)
    y, x = (part.ravel() + 0.5 for part in np.mgrid[:grid, :grid].astype(float))
    positions = np.stack(to_north(x, y), axis=1)
    inside = ((positions >= 0.5 - 1e-9) & (positions <= grid - 0.5 + 1e-9)).all(axis=1)
    radius = np.hypot(x - grid / 2, y - grid / 2) / (grid / math.sqrt(2))
    return view.reshape(grid * grid, -1)[inside], positions[inside], radius[inside]


def sampled(tokens: Float32, positions: Floats) -> Float32:
    """Unit tokens between the grid's: bilinear at x, y in patches [N, 2], of unit norm again."""
    grid = tokens.shape[0]
    x, y = np.clip(positions.T - 0.5, 0, grid - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, below = np.minimum(left + 1, grid - 1), np.minimum(top + 1, grid - 1)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = tokens[top, left] * (1 - fx) + tokens[top, right] * fx
    lower = tokens[below, left] * (1 - fx) + tokens[below, right] * fx
    return _unit(upper * (1 - fy) + lower * fy)


def patch_curves(backbone: str, step: int, arrays: Mapping[str, NDArray[Any]]) -> list[CurvePoint]:
    """arrays: [frames, H] each, `rings` [frames, H, RADII]."""
    points = []
    for name in ("aligned", "unaligned", "other", "pooled"):
        for i in range(arrays[name].shape[1]):
            points.append(curve_point(backbone, f"patch_{name}", i * step, arrays[name][:, i]))
    for angle in RING_ANGLES:
        for ring in range(RADII):
            values = arrays["rings"][:, angle // step, ring]
            points.append(curve_point(backbone, f"patch_ring@{angle}", (ring + 0.5) / RADII, values))
    return points


def _mean(values: NDArray[Any]) -> float:
    """nan where two views share no whole patch: a grid of two by two has none at 45 degrees."""
    return float(values.mean()) if len(values) else math.nan


def _unit(vectors: NDArray[Any]) -> Float32:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)
