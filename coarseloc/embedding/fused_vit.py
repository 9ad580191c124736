"""A DINOv3 ViT with everything that is constant folded into its weights; equal to transformers' forward to 1e-5.

Folded once, in float32: mean, std and 1/255 into the patch projection; each LayerNorm's scale and shift into
the linear map behind it; q, k and v into one; each LayerScale into the linear map before it. RoPE is cached
for a grid. Where only the class token is wanted, the last block computes only that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from coarseloc.core.types import EmbeddingSpec
from coarseloc.embedding.dinov3 import VitConfig
from coarseloc.embedding.kernels import Kernels, Linear, attention

NormAffine = tuple[Tensor | None, Tensor | None]  # a LayerNorm's scale and shift; None where they are folded
_FOLDED: NormAffine = (None, None)


@dataclass(frozen=True)
class Block:
    norm1: NormAffine
    qkv: Linear  # norm1 folded in; the rows of q and k in pairs, see `_pair_rope_rows`
    out: Linear  # layer scale folded in
    norm2: NormAffine
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
    norm: NormAffine  # the final one, float32
    rope_by_grid: dict[int, Tensor] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return self.prefix.dtype

    def tokens(self, pixels: Tensor) -> Tensor:
        """→ float32 [B, R + P, D]: class, register and patch tokens after the final norm."""
        x, rope = self._embed_patches(pixels)
        for block in self.blocks:
            x = self._block(x, block, rope)
        return self._final_norm(x)

    def class_token(self, pixels: Tensor) -> Tensor:
        """→ float32 [B, D]: the class token after the final norm."""
        x, rope = self._embed_patches(pixels)
        for block in self.blocks[:-1]:
            x = self._block(x, block, rope)
        return self._final_norm(self._last_block(x, self.blocks[-1], rope))[:, 0]

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """→ float32 [B, P, D]: the patch tokens after the final norm, row by row."""
        return self.tokens(pixels)[:, len(self.prefix) :]

    def pooled_forward(self, pooling: str) -> Callable[[Tensor], Tensor]:
        """Return the forward to [B, D] for a row's pooling; a DINOv3's pooler_output is its class token."""
        if pooling == "mean":
            return lambda pixels: self.patch_tokens(pixels).mean(dim=1)
        return self.class_token

    def _embed_patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """→ (class, register and patch tokens [B, R + P, D], the grid's RoPE)."""
        b, c, side, _ = pixels.shape
        n, p = side // self.patch, self.patch
        flat = pixels.view(b, c, n, p, n, p).permute(0, 2, 4, 1, 3, 5).reshape(b, n * n, c * p * p)
        patches = (self.kernels.first or self.kernels).linear(flat.to(self.dtype), self.projection)
        return torch.cat([self.prefix.expand(b, -1, -1), patches], dim=1), self._rope(n)

    def _block(self, x: Tensor, block: Block, rope: Tensor) -> Tensor:
        qkv = self.kernels.linear(self._layer_norm(x, block.norm1), block.qkv)
        q, k, v = self._split_heads(self._apply_rope(qkv, rope), 3)
        x = x.add_(self.kernels.linear(attention(q, k, v), block.out))
        return self._mlp(x, block)

    def _last_block(self, x: Tensor, block: Block, rope: Tensor) -> Tensor:
        """`_block` for the class token alone: keys and values of all tokens, one query. x [B, T, D] → [B, 1, D]."""
        y = self._layer_norm(x, block.norm1)
        (q,) = self._split_heads(self.kernels.linear(y[:, :1], self.last_q), 1)  # RoPE does not turn the class token
        k, v = self._split_heads(self._apply_rope(self.kernels.linear(y, self.last_kv), rope), 2)
        x = x[:, :1] + self.kernels.linear(attention(q, k, v), block.out)
        return self._mlp(x, block)

    def _mlp(self, x: Tensor, block: Block) -> Tensor:
        y = self._layer_norm(x, block.norm2)
        hidden = self.kernels.linear(y, block.up)
        if block.gate is not None:
            hidden = self.kernels.linear(y, block.gate).mul_(hidden)
        return x.add_(self.kernels.linear(hidden, block.down))

    def _layer_norm(self, x: Tensor, affine: NormAffine) -> Tensor:
        return layer_norm(x, x.shape[-1:], *affine, eps=self.eps)

    def _final_norm(self, x: Tensor) -> Tensor:
        return layer_norm(x.float(), x.shape[-1:], *self.norm, eps=self.eps)

    def _split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, T, parts·D] → `parts` times [B, H, T, C]."""
        b, t, _ = x.shape
        return x.view(b, t, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _apply_rope(self, x: Tensor, rope: Tensor) -> Tensor:
        """Turn q and k (all of `x` but its last D columns, the values) of the patch tokens by RoPE, in place."""
        b, t, columns = x.shape
        prefix, d = len(self.prefix), self.prefix.shape[1]
        head = d // self.heads
        pairs = x[:, prefix:, : columns - d].view(b, t - prefix, (columns - d) // head, head // 2, 2)
        if x.dtype == torch.float32:
            torch.view_as_complex(pairs).mul_(rope)
        else:  # there are no bfloat16 complex numbers
            cos, sin = rope
            even, odd = pairs.unbind(-1)
            pairs.copy_(torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1))
        return x

    def _rope(self, n: int) -> Tensor:
        """RoPE of an n x n grid: complex64 [n·n, 1, C/2], e^(i·angle), or its real and imaginary parts [2, …].

        angle = 2π · coordinate / period: rows, then columns, each patch centre in [-1, 1];
        period = theta^(4j / C) for j < C/4.
        """
        if n not in self.rope_by_grid:
            device = self.prefix.device
            head = self.prefix.shape[1] // self.heads
            frequency = 1 / self.rope_theta ** torch.arange(0, 1, 4 / head, dtype=torch.float32)
            centre = 2 * torch.arange(0.5, n, dtype=torch.float32) / n - 1
            rows_columns = torch.stack(torch.meshgrid(centre, centre, indexing="ij"), dim=-1).view(n * n, 2, 1)
            angle = (2 * math.pi * rows_columns * frequency).view(n * n, 1, head // 2)
            rope = torch.polar(torch.ones_like(angle), angle)
            if self.dtype != torch.float32:
                rope = torch.stack([rope.real, rope.imag]).to(self.dtype)
            self.rope_by_grid[n] = rope.to(device)
        return self.rope_by_grid[n]


def fold(
    state: Mapping[str, Tensor],
    config: VitConfig,
    spec: EmbeddingSpec,
    kernels: Kernels,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> FusedVit:
    """A DINOv3 ViT's float32 tensors and config → FusedVit in `dtype` on `device`."""
    reader = _FoldingReader(state, config, kernels, dtype, device)
    d, last = config.hidden_size, config.num_hidden_layers - 1
    weight, bias = reader.qkv(last)
    prefix = torch.cat([reader.state["embeddings.cls_token"], reader.state["embeddings.register_tokens"]], dim=1)[0]
    projection = _projection(*reader.read("embeddings.patch_embeddings"), spec)
    return FusedVit(
        kernels=kernels,
        patch=config.patch_size,
        heads=config.num_attention_heads,
        eps=config.layer_norm_eps,
        rope_theta=config.rope_theta,
        projection=reader.pack(*projection, kernels=kernels.first),
        prefix=prefix.to(device, dtype),
        blocks=tuple(reader.block(i) for i in range(last + 1)),
        last_q=reader.pack(weight[:d], bias[:d]),
        last_kv=reader.pack(weight[d:], bias[d:]),
        norm=(reader.state["norm.weight"].to(device), reader.state["norm.bias"].to(device)),
    )


@dataclass(frozen=True)
class _FoldingReader:
    """Reads transformers' tensors, folds what is constant, and packs the result."""

    state: Mapping[str, Tensor]
    config: VitConfig
    kernels: Kernels
    dtype: torch.dtype
    device: torch.device | str

    def block(self, i: int) -> Block:
        mlp, gated, act = f"layer.{i}.mlp", self.config.use_gated_mlp, self.config.hidden_act
        norm2 = f"layer.{i}.norm2"
        return Block(
            norm1=self.affine(f"layer.{i}.norm1"),
            qkv=self.pack(*self.qkv(i)),
            out=self.pack(*self.fold_layer_scale(f"layer.{i}.layer_scale1.lambda1", f"layer.{i}.attention.o_proj")),
            norm2=self.affine(norm2),
            gate=self.pack(*self.fold_norm(norm2, *self.read(f"{mlp}.gate_proj")), act) if gated else None,
            up=self.pack(*self.fold_norm(norm2, *self.read(f"{mlp}.up_proj")), "none" if gated else act),
            down=self.pack(*self.fold_layer_scale(f"layer.{i}.layer_scale2.lambda1", f"{mlp}.down_proj")),
        )

    def qkv(self, i: int) -> tuple[Tensor, Tensor]:
        heads = self.config.num_attention_heads
        (q, qb), (k, kb), (v, vb) = (self.read(f"layer.{i}.attention.{name}_proj") for name in "qkv")
        weight = torch.cat([_pair_rope_rows(q, heads), _pair_rope_rows(k, heads), v])
        bias = torch.cat([_pair_rope_rows(qb, heads), _pair_rope_rows(kb, heads), vb])
        return self.fold_norm(f"layer.{i}.norm1", weight, bias)

    def read(self, name: str) -> tuple[Tensor, Tensor]:
        weight = self.state[f"{name}.weight"]
        return weight, self.state.get(f"{name}.bias", weight.new_zeros(len(weight)))

    def fold_layer_scale(self, scale: str, name: str) -> tuple[Tensor, Tensor]:
        """λ (W x + b): a layer scale folded into the linear map before it."""
        weight, bias = self.read(name)
        return weight * self.state[scale][:, None], bias * self.state[scale]

    def fold_norm(self, norm: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """W (γ x + β) + b: a LayerNorm's scale and shift folded into the linear map behind it."""
        if not self.kernels.folds_norms:
            return weight, bias
        scale, shift = self.read(norm)
        return weight * scale, bias + weight @ shift

    def affine(self, norm: str) -> NormAffine:
        """Return what the LayerNorm itself still applies: nothing where it is folded."""
        if self.kernels.folds_norms:
            return _FOLDED
        scale, shift = self.read(norm)
        return scale.to(self.device, self.dtype), shift.to(self.device, self.dtype)

    def pack(self, weight: Tensor, bias: Tensor, act: str = "none", kernels: Kernels | None = None) -> Linear:
        packed = (kernels or self.kernels).pack(weight.to(self.device, self.dtype))
        return Linear(packed, bias.to(self.device, self.dtype), act)


def _projection(weight: Tensor, bias: Tensor, spec: EmbeddingSpec) -> tuple[Tensor, Tensor]:
    """W ((x/255 - mean) / std) + b as one linear map of x: [D, 3, p, p] → [D, 3·p·p]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    weight = weight / std
    return (weight / 255).flatten(1), bias - (weight * mean).flatten(1).sum(1)


def _pair_rope_rows(rows: Tensor, heads: int) -> Tensor:
    """Reorder a head's rows (0 … C-1) to (0, C/2, 1, C/2 + 1, …): the two that RoPE turns together become
    neighbours, one complex number. Done to q and k alike, it leaves their products as they were."""
    halves: Tensor = rows.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2)
