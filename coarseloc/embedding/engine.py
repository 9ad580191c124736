"""What runs an encoder on the machine at hand: torch, or numpy where torch would be imported for a picture or two."""

from __future__ import annotations

import sys
from typing import ClassVar, Protocol

from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.embedding import dinov3
from coarseloc.embedding.specs import REGISTER_TOKENS, BackboneSpec
from coarseloc.embedding.weights import LocatedWeights, check_normalisation

LITTLE_WORK = 130.0  # 1e9 multiplications and additions: what numpy does while torch is imported, a ViT-L at 224 px


class EncoderEngine(Protocol):
    """What a LoadedBackbone runs on. for_few: it is loaded sooner than others, and slower for many pictures."""

    for_few: ClassVar[bool]

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0"."""
        ...

    def pooled(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, D], pooled, not of unit norm."""
        ...

    def patch_tokens(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, P, D], after the final norm."""
        ...


def load_engine(
    weights: LocatedWeights,
    spec: EmbeddingSpec,
    device: str,
    threads: int | None = None,
    pictures: int | None = None,
) -> EncoderEngine:
    """Load the weights for `device`: "auto", "cpu", "cuda:0". `threads` are of a CPU, all by default.

    pictures: how many will be embedded, where that is known to be few. Raises WeightsError, BackboneError.
    """
    check_normalisation(weights)
    if pictures is not None and _needs_no_torch(weights, spec, device, pictures):
        from coarseloc.embedding import numpy_vit  # Pillow, which a machine that measures its GPU need not have

        return numpy_vit.load(weights, spec)
    from coarseloc.embedding import torch_engines
    from coarseloc.embedding.device import resolve_device

    return torch_engines.load(weights, spec, resolve_device(device), threads)


def _needs_no_torch(weights: LocatedWeights, spec: EmbeddingSpec, device: str, pictures: int) -> bool:
    """Whether these few pictures are sooner embedded by numpy than torch is imported, which nothing has done yet."""
    return (
        "torch" not in sys.modules
        and device in ("auto", "cpu")
        and spec.precision == "fp32"
        and dinov3.is_readable(weights)
        and not dinov3.needs_torch(weights)
        and pictures * _work(weights.spec, spec.input_px) <= LITTLE_WORK
    )


def _work(row: BackboneSpec, side: int) -> float:
    """Multiplications and additions of one picture of `side` pixels, in units of 1e9."""
    tokens, d = (side // row.patch) ** 2 + 1 + REGISTER_TOKENS, row.dim
    linear = 4 * d * d + (3 if row.gated else 2) * d * row.mlp
    return 2 * row.layers * (tokens * linear + 2 * tokens**2 * d) / 1e9
