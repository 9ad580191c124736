"""The operations that decide the speed of a transformer, by the fastest kernels of the machine.

On a CPU in float32, torch's own `linear` goes through MKL, which on AMD processors uses half of an
AVX-512 unit and is slower than oneDNN on AVX2 too. The oneDNN operators that torch ships for its compiler
are called directly: 1.15–2.3 times faster a layer, equal to 1e-6. int8 is a way of its own, of a precision of
its own: weights per output channel, activations per token, both symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear as torch_linear
from torch.nn.functional import scaled_dot_product_attention

from coarseloc.core.errors import BackboneError


class Linear(NamedTuple):
    """x → act(x Wᵀ + b)."""

    weight: Any  # [N, K], as its `Kernels` packed it
    bias: Tensor  # [N]
    act: str = "none"  # "none", "gelu", "silu"


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √C) v by torch's own, of any precision: q [B, H, Q, C], k and v [B, H, T, C] → [B, Q, H·C].

    A way of our own in oneDNN, by blocks of queries, took 1.25 times as long on AVX-512 and up to 11 times beside
    other work, as its many small products wait for all threads each time.
    """
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Kernels(NamedTuple):
    """One way to compute; `pack` prepares a weight [N, K] for `linear`."""

    name: str
    pack: Callable[[Tensor], Any]
    linear: Callable[[Tensor, Linear], Tensor]  # [..., K] → [..., N]
    first: Kernels | None = None  # another for the patch projection: int8 would round the image itself
    folds_norms: bool = True  # int8 does not: a weight times a norm's scale has a range that 8 bits hold badly


def choose(device: torch.device, precision: str) -> Kernels:
    """Choose the kernels of a precision on a device: in fp32 on a CPU oneDNN where torch has it, else torch's own."""
    if precision == "int8":
        if device.type != "cpu" or not _int8_works():
            raise BackboneError(f"precision int8 needs a CPU and a torch with oneDNN, not {device}: use fp32 or bf16")
        return INT8
    return ONEDNN if device.type == "cpu" and precision == "fp32" and _onednn_works() else TORCH


# --- torch's own ------------------------------------------------------------------------------------

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": torch.ops.aten.gelu_.default,
    "silu": torch.ops.aten.silu_.default,
}
"""In place: a linear map's result is its own."""


def _linear(x: Tensor, layer: Linear) -> Tensor:
    return _ACTIVATIONS[layer.act](torch_linear(x, layer.weight, layer.bias))


# --- oneDNN -----------------------------------------------------------------------------------------

_ONEDNN_ACT = {"none": ("none", ""), "gelu": ("gelu", "none"), "silu": ("swish", "")}


def _onednn_pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return packed


def _onednn_linear(x: Tensor, layer: Linear) -> Tensor:
    act, algorithm = _ONEDNN_ACT[layer.act]
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, act, [], algorithm)
    return output


# --- int8 -------------------------------------------------------------------------------------------

_LEVELS = 63  # of activations: with 7 bits no AVX2 processor overflows, so all processors give the same numbers


class _Int8(NamedTuple):
    packed: Tensor
    scale: Tensor  # [N]
    zero: Tensor  # [N], all 0: oneDNN wants them


def _int8_pack(weight: Tensor) -> _Int8:
    scale = weight.abs().amax(dim=1).clamp_(min=1e-12) / 127
    levels = (weight / scale[:, None]).round_().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(levels, None)
    return _Int8(packed, scale, torch.zeros(len(scale), dtype=torch.int64))


def _int8_linear(x: Tensor, layer: Linear) -> Tensor:
    """Each token by a scale of its own: a DINOv3 has a few tokens with very large numbers, which would take the
    levels from all others."""
    weight: _Int8 = layer.weight
    largest = torch.maximum(x.amax(dim=-1, keepdim=True), x.amin(dim=-1, keepdim=True).neg_())  # |x|'s, without |x|
    scale = largest.clamp_(min=1e-12) / _LEVELS
    levels = (x / scale).round_().to(torch.int8).add_(_LEVELS + 1).view(torch.uint8)  # the cast that torch vectorises
    product = torch.ops.onednn.qlinear_pointwise(
        *(levels, 1.0, _LEVELS + 1), *weight, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return _ACTIVATIONS[layer.act](product.mul_(scale).add_(layer.bias))


# --- are they there? --------------------------------------------------------------------------------
# They are torch's internals: used where they exist and give the right numbers.


@cache
def _int8_works() -> bool:
    return _agrees(INT8, 0.05)


@cache
def _onednn_works() -> bool:
    return _agrees(ONEDNN, 1e-5)


def _agrees(kernels: Kernels, tolerance: float) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = torch.arange(-40.0, 40).sin().view(5, 16), torch.arange(128.0).cos().view(8, 16), torch.ones(8)
    try:
        packed = kernels.pack(weight)
        return all(
            torch.allclose(
                kernels.linear(x, Linear(packed, bias, act)), _linear(x, Linear(weight, bias, act)), atol=tolerance
            )
            for act in _ACTIVATIONS
        )
    except (AttributeError, RuntimeError):
        return False


TORCH = Kernels("torch", lambda weight: weight, _linear)
ONEDNN = Kernels("onednn", _onednn_pack, _onednn_linear)
INT8 = Kernels("int8", _int8_pack, _int8_linear, first=ONEDNN, folds_norms=False)
