"""A DINOv3 ViT's forward by torch, over folded weights; equal to transformers' forward to 1e-5.

RoPE is cached for a grid. Where only the class token is wanted, the last block computes only that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from coarseloc.core.types import Float32
from coarseloc.embedding.folding import FoldedBlock, FoldedLayer, Folding, rope_angles
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
        """RoPE of an n x n grid: complex64 [n·n, 1, C/2], e^(i·angle), or its real and imaginary parts [2, …]."""
        if n not in self.rope_by_grid:
            head = self.prefix.shape[1] // self.heads
            angle = torch.from_numpy(rope_angles(n, head, self.rope_theta))[:, None]
            rope = torch.polar(torch.ones_like(angle), angle)
            if self.dtype != torch.float32:
                rope = torch.stack([rope.real, rope.imag]).to(self.dtype)
            self.rope_by_grid[n] = rope.to(self.prefix.device)
        return self.rope_by_grid[n]


def pack(
    folding: Folding, kernels: Kernels, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> FusedVit:
    """Folded float32 weights → FusedVit in `dtype` on `device`."""
    return _Packer(folding, kernels, dtype, device).vit()


@dataclass(frozen=True)
class _Packer:
    folding: Folding
    kernels: Kernels
    dtype: torch.dtype
    device: torch.device | str

    def vit(self) -> FusedVit:
        config, norm = self.folding.config, self.folding.final_norm()
        blocks = []
        for i in range(config.num_hidden_layers):
            folded = self.folding.block(i)
            blocks.append(self.block(folded))
        weight, bias = folded.qkv  # the last block's
        d = config.hidden_size
        return FusedVit(
            kernels=self.kernels,
            patch=config.patch_size,
            heads=config.num_attention_heads,
            eps=config.layer_norm_eps,
            rope_theta=config.rope_theta,
            projection=self.linear(self.folding.projection(), kernels=self.kernels.first),
            prefix=self.tensor(self.folding.prefix(), self.dtype),
            blocks=tuple(blocks),
            last_q=self.linear(FoldedLayer(weight[:d], bias[:d])),
            last_kv=self.linear(FoldedLayer(weight[d:], bias[d:])),
            norm=(self.tensor(norm.weight), self.tensor(norm.bias)),
        )

    def block(self, block: FoldedBlock) -> Block:
        act = self.folding.config.hidden_act
        return Block(
            norm1=self.norm(block.norm1),
            qkv=self.linear(block.qkv),
            out=self.linear(block.out),
            norm2=self.norm(block.norm2),
            gate=None if block.gate is None else self.linear(block.gate, act),
            up=self.linear(block.up, act if block.gate is None else "none"),
            down=self.linear(block.down),
        )

    def linear(self, layer: FoldedLayer, act: str = "none", kernels: Kernels | None = None) -> Linear:
        packed = (kernels or self.kernels).pack(self.tensor(layer.weight, self.dtype))
        return Linear(packed, self.tensor(layer.bias, self.dtype), act)

    def norm(self, affine: FoldedLayer | None) -> NormAffine:
        """Return what the LayerNorm itself still applies: nothing where it is folded."""
        if affine is None:
            return _FOLDED
        return self.tensor(affine.weight, self.dtype), self.tensor(affine.bias, self.dtype)

    def tensor(self, values: Float32, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(values).to(self.device, dtype)
