"""Images as the numbers that a backbone was trained on, by torch, in transformers' order and with its filter.

resize (bilinear, antialiased, in float) → normalise. Their rescaling to [0, 1] before the resize commutes with it and
is part of the normalisation here.
transformers' own processor needs torchvision; a test holds these lines to reference values instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from coarseloc.core.types import UInt8
from coarseloc.embedding.specs import Triple

_BAND = 16  # pixels of the result that are one product: fewer waste calls, more waste zeros


def resize(images: UInt8, side: int, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, side, side] in 0…255.

    On a CPU by products of matrices, 2.5–4 times as fast as `interpolate`, whose numbers they are to 1e-6. On another
    device by that: the images move there as bytes.
    """
    if images.shape[1:3] != (side, side) and torch.device(device).type == "cpu":
        return torch.stack([_resample(image, side) for image in images])
    source = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    pixels = source.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if pixels.shape[2:] == (side, side):
        return pixels
    return interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def normalise(pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
    """float32 [B, 3, H, W] in 0…255 → the backbone's own scale, (x / 255 - mean) / std; writes in place."""
    return pixels.div_(255).sub_(_column(mean, pixels)).div_(_column(std, pixels))


class _Band(NamedTuple):
    """Neighbouring pixels of a resized line, and those of the source that they are mixed of."""

    result: slice
    source: slice
    weights: Tensor  # float32 [result, source]


@lru_cache(maxsize=16)
def _bands(source: int, side: int) -> tuple[_Band, ...]:
    """The antialiased bilinear filter from `source` pixels to `side`: a triangle as wide as a pixel of the result, or
    of the source where that is coarser. In float32 and in the order of `interpolate`, to round as it does."""
    step = np.float32(source / side)
    reach = max(step, np.float32(1))
    centres = step * (np.arange(side, dtype=np.float32) + np.float32(0.5))
    distance = np.abs(np.arange(source, dtype=np.float32) - centres[:, None] + np.float32(0.5)) * (1 / reach)
    weights = np.clip(1 - distance, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    bands = []
    for first in range(0, side, _BAND):
        result = slice(first, min(first + _BAND, side))
        used = np.flatnonzero(weights[result].any(axis=0))
        inputs = slice(int(used[0]), int(used[-1]) + 1)
        bands.append(_Band(result, inputs, torch.from_numpy(weights[result, inputs].copy())))
    return tuple(bands)


def _resample(image: UInt8, side: int) -> Tensor:
    """uint8 [H, W, 3] → float32 [3, side, side]: the rows, then the columns of these."""
    height, width, _ = image.shape
    rows = torch.empty(side, width * 3)
    for band in _bands(height, side):  # made floats by bands, which stay in the cache
        source = np.ascontiguousarray(image[band.source]).reshape(-1, width * 3)
        torch.mm(band.weights, torch.from_numpy(source).float(), out=rows[band.result])
    lines = rows.view(side, width, 3).permute(2, 0, 1).reshape(3 * side, width)
    resized = torch.empty(3 * side, side)
    for band in _bands(width, side):
        resized[:, band.result] = lines[:, band.source] @ band.weights.T
    return resized.view(3, side, side)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
