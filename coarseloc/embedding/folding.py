"""A DINOv3 ViT with everything that is constant folded into its weights, in float32.

Folded: mean, std and 1/255 into the patch projection; each LayerNorm's scale and shift into the linear map behind it;
q, k and v into one; each LayerScale into the linear map before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coarseloc.core.types import EmbeddingSpec, Float32
from coarseloc.embedding.dinov3 import VitConfig


class FoldedLayer(NamedTuple):
    """x → weight x + bias of a linear map, or weight · x + bias of a LayerNorm."""

    weight: Float32  # [N, K], or [D]
    bias: Float32  # [N], or [D]


class FoldedBlock(NamedTuple):
    norm1: FoldedLayer | None  # None where it is folded
    qkv: FoldedLayer  # norm1 folded in; the rows of q and k in pairs, see `_pair_rope_rows`
    out: FoldedLayer  # layer scale folded in
    norm2: FoldedLayer | None
    gate: FoldedLayer | None  # SwiGLU's; the config's activation follows it, or `up` where there is none
    up: FoldedLayer  # norm2 folded in
    down: FoldedLayer  # layer scale folded in


@dataclass(frozen=True)
class Folding:
    """Folds a DINOv3 ViT's tensors, a block at a time: a large model is not held twice.

    folds_norms: False leaves each LayerNorm its scale and shift.
    """

    state: Mapping[str, Float32]
    config: VitConfig
    spec: EmbeddingSpec
    folds_norms: bool = True

    def projection(self) -> FoldedLayer:
        """W ((x/255 - mean) / std) + b as one linear map of a patch: [D, 3, p, p] → [D, 3·p·p]."""
        weight, bias = self._read("embeddings.patch_embeddings")
        mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (self.spec.mean, self.spec.std))
        weight = weight / std
        flat = weight.reshape(len(weight), -1)
        return FoldedLayer(flat / np.float32(255), bias - (weight * mean).reshape(flat.shape).sum(1))

    def prefix(self) -> Float32:
        """Class and register tokens [R, D]."""
        return np.concatenate([self.state["embeddings.cls_token"][0], self.state["embeddings.register_tokens"][0]])

    def block(self, i: int) -> FoldedBlock:
        mlp, norm2, gated = f"layer.{i}.mlp", f"layer.{i}.norm2", self.config.use_gated_mlp
        return FoldedBlock(
            norm1=self._norm(f"layer.{i}.norm1"),
            qkv=self._qkv(i),
            out=self._fold_layer_scale(f"layer.{i}.layer_scale1.lambda1", f"layer.{i}.attention.o_proj"),
            norm2=self._norm(norm2),
            gate=self._fold_norm(norm2, self._read(f"{mlp}.gate_proj")) if gated else None,
            up=self._fold_norm(norm2, self._read(f"{mlp}.up_proj")),
            down=self._fold_layer_scale(f"layer.{i}.layer_scale2.lambda1", f"{mlp}.down_proj"),
        )

    def final_norm(self) -> FoldedLayer:
        return self._read("norm")

    def _qkv(self, i: int) -> FoldedLayer:
        heads = self.config.num_attention_heads
        q, k, v = (self._read(f"layer.{i}.attention.{name}_proj") for name in "qkv")
        weight = np.concatenate([_pair_rope_rows(q.weight, heads), _pair_rope_rows(k.weight, heads), v.weight])
        bias = np.concatenate([_pair_rope_rows(q.bias, heads), _pair_rope_rows(k.bias, heads), v.bias])
        return self._fold_norm(f"layer.{i}.norm1", FoldedLayer(weight, bias))

    def _read(self, name: str) -> FoldedLayer:
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        return FoldedLayer(weight, np.zeros(len(weight), np.float32) if bias is None else bias)

    def _fold_layer_scale(self, scale: str, name: str) -> FoldedLayer:
        """λ (W x + b): a layer scale folded into the linear map before it."""
        weight, bias = self._read(name)
        return FoldedLayer(weight * self.state[scale][:, None], bias * self.state[scale])

    def _fold_norm(self, norm: str, linear: FoldedLayer) -> FoldedLayer:
        """W (γ x + β) + b: a LayerNorm's scale and shift folded into the linear map behind it."""
        if not self.folds_norms:
            return linear
        scale, shift = self._read(norm)
        # By einsum: a BLAS wakes all its threads for each of these small products.
        return FoldedLayer(linear.weight * scale, linear.bias + np.einsum("nk,k->n", linear.weight, shift))

    def _norm(self, name: str) -> FoldedLayer | None:
        return None if self.folds_norms else self._read(name)


def rope_angles(patches: int, head: int, theta: float) -> Float32:
    """Angles of RoPE on a grid of `patches` x `patches`, for heads of `head` numbers: [patches², head / 2].

    2π · coordinate / period: rows, then columns, each patch's centre in [-1, 1]; period = theta^(4j / head), for
    j < head / 4.
    """
    frequency = np.float32(1) / np.float32(theta) ** np.arange(0, 1, 4 / head, dtype=np.float32)
    centre = 2 * np.arange(0.5, patches, dtype=np.float32) / np.float32(patches) - 1
    rows_columns = np.stack(np.meshgrid(centre, centre, indexing="ij"), axis=-1).reshape(patches**2, 2, 1)
    angles: Float32 = (np.float32(2 * np.pi) * rows_columns * frequency).reshape(patches**2, head // 2)
    return angles


def _pair_rope_rows(rows: Float32, heads: int) -> Float32:
    """Reorder a head's rows (0 … C-1) to (0, C/2, 1, C/2 + 1, …): the two that RoPE turns together become
    neighbours, one complex number. Done to q and k alike, it leaves their products as they were."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
