"""Images as a backbone may have them: their checks, and how one that is not square becomes so. No torch here."""

from __future__ import annotations

import numpy as np

from coarseloc.core.errors import BackboneError, InputError
from coarseloc.core.types import Fit, UInt8
from coarseloc.embedding.specs import Triple


def check_side(side: int, patch: int) -> None:
    """Raise BackboneError for a side that is not a multiple of the patch: DINOv3 would crop it silently."""
    if side < patch or side % patch:
        below = max(patch, side // patch * patch)
        raise BackboneError(
            f"input size {side} px is not a multiple of the patch size {patch}: use {below} or {below + patch}"
        )


def check_images(images: UInt8) -> None:
    """Raise InputError unless `images` is uint8 [B, H, W, 3] and holds something."""
    if images.dtype != "uint8" or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise InputError(f"images are {images.dtype} {list(images.shape)}, expected uint8 [B, H, W, 3] (RGB)")


def as_squares(images: UInt8, fit: Fit, mean: Triple) -> UInt8:
    """uint8 [B, H, W, 3] → [B, S, S, 3]: the middle square ("crop"), or all of it with the backbone's mean colour
    around it ("pad"); unchanged for "squash", which `resize` does."""
    height, width = images.shape[1:3]
    if fit == "squash" or height == width:
        return images
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return images[:, top : top + side, left : left + side]
    side = max(height, width)
    squares = np.empty((len(images), side, side, 3), np.uint8)
    squares[:] = np.round(np.multiply(mean, 255)).astype(np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    squares[:, top : top + height, left : left + width] = images
    return squares
