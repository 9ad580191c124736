"""Where the training starts from: an encoder that looks at places before it has learnt anything.

A ViT of random weights attends everywhere alike, so its CLS token starts as a mean over the picture and
learns of positions late; with the little training that this model gets, too late. Two things are set
beforehand, both within the plain DINOv3 architecture:

- patch projections are the principal components of generated patches, partly whitened;
- each head attends to one offset, as in ConViT (d'Ascoli et al. 2021), written into RoPE: the norm's first
  channel is made the constant 1, which the key projection turns into the same key k everywhere, and the query
  bias is k turned by the offset. A patch then attends beside itself, and CLS, which RoPE leaves unturned,
  attends beside the picture's centre. Eight heads are eight compass directions, further out in later layers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf
from transformers import DINOv3ViTModel

RADII = (0.3, 0.4, 0.55, 0.75)  # of the offsets by layer, in half pictures
SHARPNESS = (0.5, 1.0, 1.0)  # logit amplitude of the highest frequencies; the rest start at none


@torch.no_grad()
def initialise(model: DINOv3ViTModel, pictures: Tensor) -> None:
    """Set `model` up from normalised pictures, float [N, 3, H, W]."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    torch.nn.init.normal_(model.embeddings.cls_token, std=0.02)
    torch.nn.init.normal_(model.embeddings.register_tokens, std=0.5)
    _principal_components(model, pictures)
    encoder: Any = model.model if hasattr(model, "model") else model
    for number, layer in enumerate(encoder.layer):
        _look_at_offsets(layer, RADII[number % len(RADII)], turn=math.pi / 8 * (number % 2))


def _principal_components(model: DINOv3ViTModel, pictures: Tensor) -> None:
    """Each channel of a patch token is one component, of about unit variance for the strong ones."""
    projection: Any = model.embeddings.patch_embeddings
    side, channels = projection.kernel_size[0], projection.out_channels
    patches = nnf.unfold(pictures, side, stride=side).transpose(1, 2).reshape(-1, 3 * side * side)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    weight = (vectors / (values + values[channels // 4]).sqrt()).T
    # A random turn shares the components out: channel 0 has another task below.
    weight = torch.linalg.qr(torch.randn(channels, channels)).Q @ weight
    projection.weight.copy_(weight.reshape(projection.weight.shape))
    projection.bias.copy_(-(weight @ mean))


def _look_at_offsets(layer: Any, radius: float, turn: float) -> None:
    """Head h attends at `radius` in the h-th of as many directions."""
    attention, norm = layer.attention, layer.norm1
    heads, width = attention.num_heads, attention.head_dim
    frequencies = attention.config.rope_theta ** -torch.arange(0, 1, 4 / width)
    amplitude = torch.zeros(len(frequencies))
    amplitude[: len(SHARPNESS)] = torch.tensor(SHARPNESS)
    length = (amplitude / attention.scaling).sqrt().repeat(2)  # of key and of query, for y and for x
    norm.weight[0], norm.bias[0] = 0.0, 1.0
    for head in range(heads):
        angle = turn + 2 * math.pi * head / heads
        offset = torch.tensor([-math.cos(angle), math.sin(angle)]) * radius  # y, x
        phase = (2 * math.pi * offset[:, None] * frequencies).flatten()
        rows = slice(head * width, (head + 1) * width)
        attention.k_proj.weight[rows, 0] = torch.cat([length, torch.zeros(width // 2)])
        attention.k_proj.weight[rows, 1:] *= 0.5
        attention.q_proj.weight[rows] *= 0.5
        attention.q_proj.bias[rows] = torch.cat([length * phase.cos(), length * phase.sin()])
