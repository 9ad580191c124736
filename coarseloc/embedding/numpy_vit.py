"""A DINOv3 ViT's forward by numpy alone: for a picture or two, in a process that would import torch for nothing else.

The numbers of `fused_vit` to 1e-6. Of one picture it takes as long as torch, whose import takes seconds more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.embedding import dinov3
from coarseloc.embedding.dinov3 import VitConfig
from coarseloc.embedding.folding import FoldedBlock, FoldedLayer, Folding, rope_angles
from coarseloc.embedding.weights import LocatedWeights

# erf(x) = x P(x²) / Q(x²) for |x| < 4, beyond which it is 1 in float32: the coefficients of Eigen's `generic_fast_erf`,
# highest power first, right to 4e-7.
_ERF_P = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
          -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
_ERF_Q = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
          -1.42647390514189e-02)  # fmt: skip


def load(weights: LocatedWeights, spec: EmbeddingSpec) -> NumpyEngine:
    """Read and fold a DINOv3 that `dinov3.needs_torch` does not name; raises WeightsError as `dinov3.load` does."""
    vit = dinov3.load(weights)
    folding = Folding(vit.state, vit.config, spec)
    blocks = tuple(folding.block(i) for i in range(vit.config.num_hidden_layers))
    return NumpyEngine(spec, vit.config, folding.projection(), folding.prefix(), blocks, folding.final_norm())


@dataclass(frozen=True)
class NumpyEngine:
    """An `EncoderEngine`: the folded weights, one picture at a time, on one thread.

    Two threads of a BLAS wait for each other after each product: on a busy machine up to ten times as long as one.
    """

    for_few: ClassVar[bool] = True
    spec: EmbeddingSpec
    config: VitConfig
    projection: FoldedLayer
    prefix: Float32
    blocks: tuple[FoldedBlock, ...]
    final_norm: FoldedLayer
    device: str = "cpu"

    def pooled(self, images: UInt8) -> Float32:
        if self.spec.pooling == "mean":
            pooled: Float32 = self.patch_tokens(images).mean(axis=1)
            return pooled
        return np.stack([self._forward(image, class_token_only=True)[0] for image in images])

    def patch_tokens(self, images: UInt8) -> Float32:
        return np.stack([self._forward(image)[len(self.prefix) :] for image in images])

    def _forward(self, image: UInt8, class_token_only: bool = False) -> Float32:
        """uint8 [H, W, 3] → float32 [R + P, D] (or [1, D]): class, register and patch tokens after the final norm."""
        with threadpool_limits(1, user_api="blas"):
            return self._tokens(image, class_token_only)

    def _tokens(self, image: UInt8, class_token_only: bool) -> Float32:
        patches = self.spec.input_px // self.config.patch_size
        flat = _patches(resize(image, self.spec.input_px), patches)
        x = np.concatenate([self.prefix, _linear(flat, self.projection)])
        head = x.shape[1] // self.config.num_attention_heads
        rope = np.exp(1j * rope_angles(patches, head, self.config.rope_theta)).astype(np.complex64)
        for i, block in enumerate(self.blocks):
            wanted = 1 if class_token_only and i == len(self.blocks) - 1 else len(x)
            x = self._block(x, block, rope, wanted)
        tokens: Float32 = self._norm(x) * self.final_norm.weight + self.final_norm.bias
        return tokens

    def _block(self, x: Float32, block: FoldedBlock, rope: Float32, wanted: int) -> Float32:
        """One block's first `wanted` tokens: keys and values are of all."""
        d, heads = x.shape[1], self.config.num_attention_heads
        qkv = _linear(self._norm(x), block.qkv).reshape(len(x), 3, heads, d // heads)
        turned = qkv[len(self.prefix) :, :2].view(np.complex64)
        turned *= rope[:, None, None]
        q, k, v = qkv.transpose(1, 2, 0, 3)
        x = x[:wanted] + _linear(_attention(q[:, :wanted], k, v), block.out)
        y = self._norm(x)
        up = _linear(y, block.up)
        hidden = _ACTIVATIONS[self.config.hidden_act](up if block.gate is None else _linear(y, block.gate))
        if block.gate is not None:
            hidden *= up
        x += _linear(hidden, block.down)
        return x

    def _norm(self, x: Float32) -> Float32:
        """LayerNorm without its scale and shift."""
        y: Float32 = x - x.mean(axis=1, keepdims=True)
        y /= np.sqrt(np.einsum("td,td->t", y, y)[:, None] / x.shape[1] + self.config.layer_norm_eps)
        return y


def resize(image: UInt8, side: int) -> Float32:
    """uint8 [H, W, 3] → float32 [side, side, 3] in 0…255: bilinear, antialiased, as torch's `interpolate`."""
    pixels: Float32 = image.astype(np.float32)
    if image.shape[:2] == (side, side):
        return pixels
    resized = np.empty((side, side, 3), np.float32)
    for channel in range(3):
        picture = Image.fromarray(pixels[..., channel]).resize((side, side), Image.Resampling.BILINEAR)
        resized[..., channel] = np.asarray(picture)
    return resized


def _patches(pixels: Float32, n: int) -> Float32:
    """[S, S, 3] → [n·n, 3·p·p], each patch's channels one after the other."""
    p = len(pixels) // n
    return pixels.reshape(n, p, n, p, 3).transpose(0, 2, 4, 1, 3).reshape(n * n, -1)


def _linear(x: Float32, layer: FoldedLayer) -> Float32:
    y: Float32 = x @ layer.weight.T
    y += layer.bias
    return y


def _attention(q: Float32, k: Float32, v: Float32) -> Float32:
    """softmax(q kᵀ / √C) v: q [H, Q, C], k and v [H, T, C] → [Q, H·C]."""
    scores: Float32 = np.matmul(q * np.float32(q.shape[-1] ** -0.5), k.swapaxes(1, 2))
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed = scores @ v
    return mixed.swapaxes(0, 1).reshape(q.shape[1], -1)


def _gelu(x: Float32) -> Float32:
    """x Φ(x), right to 1e-6."""
    y = x * np.float32(0.5**0.5)
    np.clip(y, -4, 4, out=y)
    square = y * y
    y *= _polynomial(_ERF_P, square)
    y /= _polynomial(_ERF_Q, square)
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


def _polynomial(coefficients: tuple[float, ...], x: Float32) -> Float32:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += np.float32(coefficient)
    return value


def _silu(x: Float32) -> Float32:
    with np.errstate(over="ignore"):  # exp(-x) beyond float32 is infinite, and x divided by it 0
        y: Float32 = x / (1 + np.exp(-x))
    return y


_ACTIVATIONS = {"gelu": _gelu, "silu": _silu}
