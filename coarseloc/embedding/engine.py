"""How a model is run: batches of resized images through the encoder, as fast as stays plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from coarseloc.embedding import preprocess
from coarseloc.embedding.loading import load_model
from coarseloc.embedding.weights import Found
from coarseloc.errors import BackboneError
from coarseloc.types import EmbeddingSpec, Float32, UInt8

CPU_BATCH = 8  # a tile's headings; larger batches leave the cache


class Engine(Protocol):
    """What a LoadedBackbone runs on."""

    device: torch.device

    def pooled(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, D], pooled, not yet normalised."""
        ...

    def patch_tokens(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, P, D]."""
        ...


def load_engine(found: Found, spec: EmbeddingSpec, device: torch.device) -> Engine:
    model: torch.nn.Module = load_model(found)
    return PlainEngine(model.to(device), spec, device, found.spec.patch)


@dataclass
class PlainEngine:
    """Any Hugging Face vision model, through its own forward, in batches. The oracle of the faster ones."""

    model: torch.nn.Module
    spec: EmbeddingSpec
    device: torch.device
    patch: int

    def pooled(self, images: UInt8) -> Float32:
        return _batched(images, lambda batch: pool(self._forward(batch), self.spec, self.patch))

    def patch_tokens(self, images: UInt8) -> Float32:
        return _batched(images, lambda batch: patches(self._forward(batch).last_hidden_state, self.spec, self.patch))

    def _forward(self, images: UInt8) -> Any:
        pixels = preprocess.resized(images, self.spec.input_px, self.device)
        return self.model(preprocess.normalised(pixels, self.spec.mean, self.spec.std))


def _batched(images: UInt8, forward: Any) -> Float32:
    with torch.inference_mode():
        parts = [forward(images[i : i + CPU_BATCH]) for i in range(0, len(images), CPU_BATCH)]
        return torch.cat(parts).float().cpu().numpy()


def pool(output: Any, spec: EmbeddingSpec, patch: int) -> Tensor:
    """A model's output → [B, D] by the row's pooling."""
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
