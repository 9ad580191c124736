"""What a user's notebook is made of: transformers' processor and model. torch, transformers and numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from coarseloc.embedding import loading
from coarseloc.embedding.weights import LocatedWeights

Forward = Callable[[Tensor], Tensor]  # [B, 3, S, S] → [B, D], not normalised


@dataclass(frozen=True)
class Processor:
    """What transformers' image processor of DINOv3 computes: rescale, resize with antialias in float, normalise.

    The processor itself needs torchvision; these are its operations in its order.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, picture: Any) -> Tensor:
        """A PIL picture, or uint8 [H, W, 3] → float32 [3, S, S]."""
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        size = (self.side, self.side)
        pixels = interpolate(pixels[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]


def transformers_forward(weights: LocatedWeights, device: str = "cpu") -> Forward:
    """The model as `AutoModel.from_pretrained` gives it, in float32, and its pooler's output."""
    model: Any = loading.load_model(weights)
    model.to(device)
    return lambda pixels: model(pixel_values=pixels).pooler_output


def processor_of(weights: LocatedWeights, side: int) -> Processor:
    return Processor(side, weights.spec.mean, weights.spec.std)
