"""The three operations that decide the speed of a transformer, by the fastest kernels of the machine.

On a CPU in float32, torch's own `linear` and attention go through MKL, which on AMD processors uses half of an
AVX-512 unit and is slower than oneDNN on AVX2 too. The oneDNN operators that torch ships for its compiler
are called directly: 1.15–2.3 times faster a layer, equal to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention, silu
from torch.nn.functional import linear as torch_linear

LONG = 512  # tokens from which attention by blocks beats torch's own on a CPU
BLOCK = 256  # queries at a time, so that their scores stay in the cache


class Linear(NamedTuple):
    """x → act(x Wᵀ + b)."""

    weight: Tensor  # [N, K], packed by its `Kernels`
    bias: Tensor  # [N]
    act: str = "none"  # "none", "gelu", "silu"


class Kernels(NamedTuple):
    """One way to compute; `pack` prepares a weight [N, K] for `linear`."""

    name: str
    pack: Callable[[Tensor], Tensor]
    linear: Callable[[Tensor, Linear], Tensor]  # [..., K] → [..., N]
    attention: Callable[[Tensor, Tensor, Tensor], Tensor]  # q [B, H, Q, C], k and v [B, H, T, C] → [B, Q, H·C]


def choose(device: torch.device, dtype: torch.dtype) -> Kernels:
    """oneDNN for float32 on a CPU where this torch has it, else torch's own."""
    return ONEDNN if device.type == "cpu" and dtype == torch.float32 and _onednn_works() else TORCH


# --- torch's own ------------------------------------------------------------------------------------

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "gelu": gelu, "silu": silu}


def _linear(x: Tensor, layer: Linear) -> Tensor:
    return _ACTIVATIONS[layer.act](torch_linear(x, layer.weight, layer.bias))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


# --- oneDNN -----------------------------------------------------------------------------------------

_ONEDNN_ACT = {"none": ("none", ""), "gelu": ("gelu", "none"), "silu": ("swish", "")}


def _onednn_pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)


def _onednn_linear(x: Tensor, layer: Linear) -> Tensor:
    act, algorithm = _ONEDNN_ACT[layer.act]
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, act, [], algorithm)


def _onednn_matmul(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _onednn_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √C) v, a head and a block of queries at a time."""
    batch, heads, queries, width = q.shape
    if k.shape[2] < LONG or queries < BLOCK:
        return _attention(q, k, v)
    out = q.new_empty(batch, queries, heads, width)
    for b in range(batch):
        for h in range(heads):
            query, key, value = q[b, h] * width**-0.5, k[b, h].contiguous(), v[b, h].t().contiguous()
            for i in range(0, queries, BLOCK):
                scores = _onednn_matmul(query[i : i + BLOCK], key)
                out[b, i : i + BLOCK, h] = _onednn_matmul(torch.softmax(scores, -1, out=scores), value)
    return out.flatten(2)


@cache
def _onednn_works() -> bool:
    """The operators are torch's internals: used where they are there and give the right numbers."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = torch.arange(-40.0, 40).sin().view(5, 16), torch.arange(128.0).cos().view(8, 16), torch.ones(8)
    try:
        packed = _onednn_pack(weight)
        return all(
            torch.allclose(
                _onednn_linear(x, Linear(packed, bias, act)), _linear(x, Linear(weight, bias, act)), atol=1e-5
            )
            for act in _ACTIVATIONS
        ) and torch.allclose(_onednn_matmul(x, weight), x @ weight.t(), atol=1e-5)
    except (AttributeError, RuntimeError):
        return False


TORCH = Kernels("torch", lambda weight: weight, _linear, _attention)
ONEDNN = Kernels("onednn", _onednn_pack, _onednn_linear, _onednn_attention)
