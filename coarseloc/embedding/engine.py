"""How a model is run on the machine at hand: which forward, in what batches, on how many threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from coarseloc.core.errors import BackboneError
from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.embedding import cuda, fused_vit, kernels, preprocess
from coarseloc.embedding.loading import load_model
from coarseloc.embedding.weights import LocatedWeights

TOKENS = 512  # of a CPU batch, about: two images of 224 px. More leave the cache, and gain nothing
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}  # of what is between linear maps


class EncoderEngine(Protocol):
    """What a LoadedBackbone runs on."""

    device: torch.device

    def pooled(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, D], pooled, not of unit norm."""
        ...

    def patch_tokens(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, P, D], after the final norm."""
        ...


def load_engine(
    found: LocatedWeights, spec: EmbeddingSpec, device: torch.device, threads: int | None = None
) -> EncoderEngine:
    """The fused forward for a DINOv3 ViT, transformers' own for anything else; `threads` on a CPU, default all."""
    model = load_model(found)
    dtype = DTYPES[spec.precision]
    if not _is_fusable(model.config):
        if spec.precision == "int8":
            raise BackboneError(f"precision int8 is there for DINOv3 only, {spec.backbone} is another model: use fp32")
        return TransformersEngine(model, spec, device, found.spec.patch, dtype)
    folded = fused_vit.fold(
        model.state_dict(), model.config, spec, kernels.choose(device, spec.precision), dtype, device
    )
    if device.type == "cuda":
        return cuda.CudaEngine(folded, spec, device)
    return CpuEngine(folded, spec, threads or torch_threads())


@cache
def torch_threads() -> int:
    """torch's own choice, asked once: setting it in one thread changes what new threads see."""
    return torch.get_num_threads()


def _is_fusable(config: Any) -> bool:
    return config.model_type == "dinov3_vit" and config.hidden_act in ("gelu", "silu")


class CpuEngine:
    """`FusedVit` on a CPU: two Python threads with one torch thread each outrun one with two, and never wait for
    each other at a barrier when the machine is busy."""

    def __init__(self, model: fused_vit.FusedVit, spec: EmbeddingSpec, threads: int) -> None:
        self.device = torch.device("cpu")
        self._model = model
        self._spec = spec
        self._pooled = model.pooled_by(spec.pooling)
        self._threads = threads
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=f"embed-{spec.backbone}")

    def pooled(self, images: UInt8) -> Float32:
        return self._run(images, self._pooled)

    def patch_tokens(self, images: UInt8) -> Float32:
        return self._run(images, self._model.patch_tokens)

    def _run(self, images: UInt8, forward: Callable[[Tensor], Tensor]) -> Float32:
        size = max(1, TOKENS // (self._spec.input_px // self._model.patch) ** 2)
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        workers = min(len(batches), self._threads)

        def one(batch: UInt8) -> Tensor:
            # Acts on the calling thread alone, so each says how many it wants before it works.
            torch.set_num_threads(max(1, self._threads // workers))
            with torch.inference_mode():
                return forward(preprocess.resized(batch, self._spec.input_px))

        parts = list(self._pool.map(one, batches))
        return torch.cat(parts).numpy()


@dataclass
class TransformersEngine:
    """Any Hugging Face vision model, through its own forward, in batches. The oracle of the fused ones."""

    model: torch.nn.Module
    spec: EmbeddingSpec
    device: torch.device
    patch: int
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device, self.dtype)

    def pooled(self, images: UInt8) -> Float32:
        return self._run(images, lambda output: pool(output, self.spec, self.patch))

    def patch_tokens(self, images: UInt8) -> Float32:
        return self._run(images, lambda output: patches(output.last_hidden_state, self.spec, self.patch))

    def _run(self, images: UInt8, take: Callable[[Any], Tensor]) -> Float32:
        size, parts = 8, []
        with torch.inference_mode():
            for i in range(0, len(images), size):
                pixels = preprocess.resized(images[i : i + size], self.spec.input_px, self.device)
                pixels = preprocess.normalised(pixels, self.spec.mean, self.spec.std)
                parts.append(take(self.model(pixels.to(self.dtype))).float())
            return torch.cat(parts).cpu().numpy()


def pool(output: Any, spec: EmbeddingSpec, patch: int) -> Tensor:
    """A transformers model's output → [B, D] by the row's pooling."""
    if spec.pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise BackboneError(f"backbone {spec.backbone} has no pooler_output: set pooling to 'cls' or 'mean'")
        vectors = output.pooler_output.flatten(1)
    elif spec.pooling == "mean":
        vectors = patches(output.last_hidden_state, spec, patch).mean(dim=1)
    else:
        vectors = output.last_hidden_state[:, 0]
    if vectors.shape[1:] != (spec.dim,):
        raise BackboneError(
            f"backbone {spec.backbone} gave vectors of shape {list(vectors.shape[1:])}, expected [{spec.dim}]: "
            "another pooling may fit this model"
        )
    return vectors


def patches(hidden: Tensor, spec: EmbeddingSpec, patch: int) -> Tensor:
    """The patch tokens [B, P, D] of the last hidden state, the class and register tokens before them cut off."""
    count = (spec.input_px // patch) ** 2
    if hidden.ndim != 3 or hidden.shape[1] < count:
        raise BackboneError(
            f"backbone {spec.backbone} gave a last hidden state of shape {list(hidden.shape)}, "
            f"expected [B, at least {count}, D]: its patch tokens cannot be told apart"
        )
    return hidden[:, -count:]
