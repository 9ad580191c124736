"""A DINOv3 ViT with everything that is constant folded into its weights; equal to transformers' forward to 1e-5.

Folded once, in float32: mean, std and 1/255 into the patch projection; each LayerNorm's scale and shift into
the linear map behind it; q, k and v into one; each LayerScale into the linear map before it. RoPE is cached
for a grid. Where only the class token is wanted, the last block computes only that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from coarseloc.core.types import EmbeddingSpec
from coarseloc.embedding.kernels import Kernels, Linear

Affine = tuple[Tensor | None, Tensor | None]  # a LayerNorm's scale and shift; None where they are folded
_FOLDED: Affine = (None, None)


@dataclass(frozen=True)
class Block:
    norm1: Affine
    qkv: Linear  # norm1 folded in; the rows of q and k in pairs, see `_paired`
    out: Linear  # layer scale folded in
    norm2: Affine
    gate: Linear | None  # SwiGLU's
    up: Linear  # norm2 folded in
    down: Linear  # layer scale folded in


@dataclass(frozen=True)
class FusedVit:
    """The folded weights and how to run them. `float32 [B, 3, S, S]` in 0…255 goes in."""

    kernels: Kernels
    patch: int
    heads: int
    eps: float
    rope_theta: float
    projection: Linear  # a patch [3·p·p] → [D]
    prefix: Tensor  # class and register tokens [R, D]
    blocks: tuple[Block, ...]
    last_q: Linear  # the last block's q, and its k and v, apart
    last_kv: Linear
    norm: Affine  # the final one, float32
    rotations: dict[int, Tensor] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return self.prefix.dtype

    def tokens(self, pixels: Tensor) -> Tensor:
        """→ float32 [B, R + P, D]: class, register and patch tokens after the final norm."""
        x, turn = self._start(pixels)
        for block in self.blocks:
            x = self._block(x, block, turn)
        return self._final(x)

    def class_token(self, pixels: Tensor) -> Tensor:
        """→ float32 [B, D]: the class token after the final norm."""
        x, turn = self._start(pixels)
        for block in self.blocks[:-1]:
            x = self._block(x, block, turn)
        return self._final(self._last_block(x, self.blocks[-1], turn))[:, 0]

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """→ float32 [B, P, D]: the patch tokens after the final norm, row by row."""
        return self.tokens(pixels)[:, len(self.prefix) :]

    def pooled_by(self, pooling: str) -> Callable[[Tensor], Tensor]:
        """The forward to [B, D] of a row's pooling; a DINOv3's pooler_output is its class token."""
        if pooling == "mean":
            return lambda pixels: self.patch_tokens(pixels).mean(dim=1)
        return self.class_token

    def _start(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        b, c, side, _ = pixels.shape
        n, p = side // self.patch, self.patch
        cut = pixels.view(b, c, n, p, n, p).permute(0, 2, 4, 1, 3, 5).reshape(b, n * n, c * p * p)
        patches = (self.kernels.first or self.kernels).linear(cut.to(self.dtype), self.projection)
        return torch.cat([self.prefix.expand(b, -1, -1), patches], dim=1), self._rotation(n)

    def _block(self, x: Tensor, block: Block, turn: Tensor) -> Tensor:
        qkv = self.kernels.linear(self._normed(x, block.norm1), block.qkv)
        q, k, v = self._heads(self._rotated(qkv, turn), 3)
        x = x.add_(self.kernels.linear(self.kernels.attention(q, k, v), block.out))
        return self._mlp(x, block)

    def _last_block(self, x: Tensor, block: Block, turn: Tensor) -> Tensor:
        """`_block` for the class token alone: keys and values of all tokens, one query. x [B, T, D] → [B, 1, D]."""
        y = self._normed(x, block.norm1)
        (q,) = self._heads(self.kernels.linear(y[:, :1], self.last_q), 1)  # RoPE does not turn the class token
        k, v = self._heads(self._rotated(self.kernels.linear(y, self.last_kv), turn), 2)
        x = x[:, :1] + self.kernels.linear(self.kernels.attention(q, k, v), block.out)
        return self._mlp(x, block)

    def _mlp(self, x: Tensor, block: Block) -> Tensor:
        y = self._normed(x, block.norm2)
        hidden = self.kernels.linear(y, block.up)
        if block.gate is not None:
            hidden = self.kernels.linear(y, block.gate).mul_(hidden)
        return x.add_(self.kernels.linear(hidden, block.down))

    def _normed(self, x: Tensor, affine: Affine) -> Tensor:
        return layer_norm(x, x.shape[-1:], *affine, eps=self.eps)

    def _final(self, x: Tensor) -> Tensor:
        return layer_norm(x.float(), x.shape[-1:], *self.norm, eps=self.eps)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, T, parts·D] → `parts` times [B, H, T, C]."""
        b, t, _ = x.shape
        return x.view(b, t, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _rotated(self, x: Tensor, turn: Tensor) -> Tensor:
        """Turn q and k (all of `x` but its last D columns, the values) of the patch tokens by RoPE, in place."""
        b, t, columns = x.shape
        prefix, d = len(self.prefix), self.prefix.shape[1]
        head = d // self.heads
        pairs = x[:, prefix:, : columns - d].view(b, t - prefix, (columns - d) // head, head // 2, 2)
        if x.dtype == torch.float32:
            torch.view_as_complex(pairs).mul_(turn)
        else:  # there are no bfloat16 complex numbers
            cos, sin = turn
            even, odd = pairs.unbind(-1)
            pairs.copy_(torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1))
        return x

    def _rotation(self, n: int) -> Tensor:
        """RoPE of an n x n grid: complex64 [n·n, 1, C/2], e^(i·angle), or its real and imaginary parts [2, …].

        angle = 2π · coordinate / period: rows, then columns, each patch centre in [-1, 1];
        period = theta^(4j / C) for j < C/4.
        """
        if n not in self.rotations:
            device = self.prefix.device
            head = self.prefix.shape[1] // self.heads
            frequency = 1 / self.rope_theta ** torch.arange(0, 1, 4 / head, dtype=torch.float32)
            centre = 2 * torch.arange(0.5, n, dtype=torch.float32) / n - 1
            rows_columns = torch.stack(torch.meshgrid(centre, centre, indexing="ij"), dim=-1).view(n * n, 2, 1)
            angle = (2 * math.pi * rows_columns * frequency).view(n * n, 1, head // 2)
            turn = torch.polar(torch.ones_like(angle), angle)
            if self.dtype != torch.float32:
                turn = torch.stack([turn.real, turn.imag]).to(self.dtype)
            self.rotations[n] = turn.to(device)
        return self.rotations[n]


def fold(
    state: Mapping[str, Tensor],
    config: Any,
    spec: EmbeddingSpec,
    kernels: Kernels,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> FusedVit:
    """A DINOv3ViTModel's float32 state dict and config → FusedVit in `dtype` on `device`."""
    source = _Source(
        {key.removeprefix("model."): value for key, value in state.items()}, config, kernels, dtype, device
    )
    d, last = config.hidden_size, config.num_hidden_layers - 1
    weight, bias = source.qkv(last)
    prefix = torch.cat([source.state["embeddings.cls_token"], source.state["embeddings.register_tokens"]], dim=1)[0]
    projection = _projection(*source.read("embeddings.patch_embeddings"), spec)
    return FusedVit(
        kernels=kernels,
        patch=config.patch_size,
        heads=config.num_attention_heads,
        eps=config.layer_norm_eps,
        rope_theta=config.rope_theta,
        projection=source.ready(*projection, kernels=kernels.first),
        prefix=prefix.to(device, dtype),
        blocks=tuple(source.block(i) for i in range(last + 1)),
        last_q=source.ready(weight[:d], bias[:d]),
        last_kv=source.ready(weight[d:], bias[d:]),
        norm=(source.state["norm.weight"].to(device), source.state["norm.bias"].to(device)),
    )


@dataclass(frozen=True)
class _Source:
    """Reads transformers' tensors, folds what is constant, and packs the result."""

    state: Mapping[str, Tensor]
    config: Any
    kernels: Kernels
    dtype: torch.dtype
    device: torch.device | str

    def block(self, i: int) -> Block:
        mlp, gated, act = f"layer.{i}.mlp", self.config.use_gated_mlp, self.config.hidden_act
        norm2 = f"layer.{i}.norm2"
        return Block(
            norm1=self.affine(f"layer.{i}.norm1"),
            qkv=self.ready(*self.qkv(i)),
            out=self.ready(*self.scaled(f"layer.{i}.layer_scale1.lambda1", f"layer.{i}.attention.o_proj")),
            norm2=self.affine(norm2),
            gate=self.ready(*self.after(norm2, *self.read(f"{mlp}.gate_proj")), act) if gated else None,
            up=self.ready(*self.after(norm2, *self.read(f"{mlp}.up_proj")), "none" if gated else act),
            down=self.ready(*self.scaled(f"layer.{i}.layer_scale2.lambda1", f"{mlp}.down_proj")),
        )

    def qkv(self, i: int) -> tuple[Tensor, Tensor]:
        heads = self.config.num_attention_heads
        (q, qb), (k, kb), (v, vb) = (self.read(f"layer.{i}.attention.{name}_proj") for name in "qkv")
        weight = torch.cat([_paired(q, heads), _paired(k, heads), v])
        bias = torch.cat([_paired(qb, heads), _paired(kb, heads), vb])
        return self.after(f"layer.{i}.norm1", weight, bias)

    def read(self, name: str) -> tuple[Tensor, Tensor]:
        weight = self.state[f"{name}.weight"]
        return weight, self.state.get(f"{name}.bias", weight.new_zeros(len(weight)))

    def scaled(self, scale: str, name: str) -> tuple[Tensor, Tensor]:
        """λ (W x + b): a layer scale folded into the linear map before it."""
        weight, bias = self.read(name)
        return weight * self.state[scale][:, None], bias * self.state[scale]

    def after(self, norm: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """W (γ x + β) + b: a LayerNorm's scale and shift folded into the linear map behind it."""
        if not self.kernels.folds_norms:
            return weight, bias
        scale, shift = self.read(norm)
        return weight * scale, bias + weight @ shift

    def affine(self, norm: str) -> Affine:
        """What remains for the LayerNorm itself to do."""
        if self.kernels.folds_norms:
            return _FOLDED
        scale, shift = self.read(norm)
        return scale.to(self.device, self.dtype), shift.to(self.device, self.dtype)

    def ready(self, weight: Tensor, bias: Tensor, act: str = "none", kernels: Kernels | None = None) -> Linear:
        packed = (kernels or self.kernels).pack(weight.to(self.device, self.dtype))
        return Linear(packed, bias.to(self.device, self.dtype), act)


def _projection(weight: Tensor, bias: Tensor, spec: EmbeddingSpec) -> tuple[Tensor, Tensor]:
    """W ((x/255 - mean) / std) + b as one linear map of x: [D, 3, p, p] → [D, 3·p·p]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    weight = weight / std
    return (weight / 255).flatten(1), bias - (weight * mean).flatten(1).sum(1)


def _paired(rows: Tensor, heads: int) -> Tensor:
    """Reorder a head's rows (0 … C-1) to (0, C/2, 1, C/2 + 1, …): the two that RoPE turns together become
    neighbours, one complex number. Done to q and k alike, it leaves their products as they were."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
