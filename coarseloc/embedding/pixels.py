"""Images as the numbers that a backbone was trained on, by torch, in transformers' order and with its filter.

resize (bilinear, antialiased, in float) → normalise. Their rescaling to [0, 1] before the resize commutes with it and
is part of the normalisation here.
transformers' own processor needs torchvision; a test holds these lines to reference values instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from coarseloc.core.types import UInt8
from coarseloc.embedding.specs import Triple

_AT_ONCE = 48_000_000  # bytes of a picture that is made floats as a whole


def resize(images: UInt8, side: int, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, side, side] in 0…255.

    The source is moved to `device` as bytes and resized there.
    """
    source = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    if images[0].size > _AT_ONCE:  # the same numbers, in a third of the memory
        return torch.cat([_resize(source[..., channel : channel + 1], side) for channel in range(3)], dim=1)
    return _resize(source, side)


def _resize(source: Tensor, side: int) -> Tensor:
    pixels = source.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if pixels.shape[2:] == (side, side):
        return pixels
    return interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def normalise(pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
    """float32 [B, 3, H, W] in 0…255 → the backbone's own scale, (x / 255 - mean) / std; writes in place."""
    return pixels.div_(255).sub_(_column(mean, pixels)).div_(_column(std, pixels))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
