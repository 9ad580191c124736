"""A loaded backbone: the function through which frames and tiles become embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coarseloc.core.errors import BackboneError
from coarseloc.core.types import FITS, EmbeddingSpec, Fit, Float32, UInt8
from coarseloc.embedding import preprocess
from coarseloc.embedding.engine import EncoderEngine, load_engine
from coarseloc.embedding.weights import LocatedWeights, weights_digest

PRECISIONS = ("fp32", "bf16", "int8")


def embedding_spec(
    weights: LocatedWeights,
    *,
    input_px: int = 224,
    precision: str = "fp32",
    fit: Fit = "squash",
    cache_dir: Path | None = None,
) -> EmbeddingSpec:
    """Everything that decides the numbers, without loading the model: what is missing is known before.

    `cache_dir` remembers the digests of weight files. Raises BackboneError for a size, precision or fit that
    the backbone cannot have.
    """
    spec = weights.spec
    preprocess.check_side(input_px, spec.patch)
    if precision not in PRECISIONS:
        raise BackboneError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if fit not in FITS:
        raise BackboneError(f"fit {fit!r} is not one of {', '.join(FITS)}")
    digest = weights_digest(weights, cache_dir)
    return EmbeddingSpec(spec.name, spec.dim, digest, input_px, spec.mean, spec.std, spec.pooling, precision, fit)


def load_backbone(
    weights: LocatedWeights,
    *,
    input_px: int = 224,
    precision: str = "fp32",
    fit: Fit = "squash",
    device: str = "auto",
    cache_dir: Path | None = None,
    threads: int | None = None,
    pictures: int | None = None,
) -> LoadedBackbone:
    """Load a backbone's weights onto `device` ("auto", "cpu", "cuda", "cuda:0", …).

    bf16 is meant for GPUs (processors without such units take several times as long as in fp32), int8 for CPUs.
    `threads` is for a CPU: as many images are embedded side by side; by default one a core. `pictures`, where few
    will be embedded, spares a process that has not imported torch to do so: numpy embeds them, equal to 1e-6.

    Raises WeightsError where the files do not hold the backbone, BackboneError for an impossible request.
    """
    spec = embedding_spec(weights, input_px=input_px, precision=precision, fit=fit, cache_dir=cache_dir)
    engine = load_engine(weights, spec, device, threads, pictures)
    return LoadedBackbone(spec, engine.device, engine, weights.spec.patch)


@dataclass
class LoadedBackbone:
    """A `coarseloc.core.types.Backbone`, made by `load_backbone`. Threads may share it."""

    spec: EmbeddingSpec
    device: str
    engine: EncoderEngine
    patch: int

    @property
    def for_few(self) -> bool:
        """Whether it was loaded for a few pictures: many are embedded faster by one that is loaded for them."""
        return self.engine.for_few

    def embed(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] RGB of any size → float32 [B, D], each row of unit L2 norm.

        Computed when it returns (a GPU is synchronised). Raises BackboneError where a row is zero or not finite.
        """
        preprocess.check_images(images)
        return normalise_rows(self.engine.pooled(self._squares(images)), self.spec.backbone)

    def embed_many(self, images: Sequence[UInt8]) -> Float32:
        """Images uint8 [H, W, 3] of differing sizes → float32 [N, D] in their order.

        Each is resized by itself; those of one size pass through the encoder together.
        """
        vectors = np.empty((len(images), self.spec.dim), dtype=np.float32)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        for indices in by_size.values():
            vectors[indices] = self.embed(np.stack([images[i] for i in indices]))
        return vectors

    def patch_tokens(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, S/patch, S/patch, D]: the patch tokens after the final norm, row by row
        from the image's upper left; not normalised."""
        preprocess.check_images(images)
        side = self.spec.input_px // self.patch
        return self.engine.patch_tokens(self._squares(images)).reshape(len(images), side, side, self.spec.dim)

    def _squares(self, images: UInt8) -> UInt8:
        return preprocess.as_squares(images, self.spec.fit, self.spec.mean)


def normalise_rows(vectors: Float32, name: str) -> Float32:
    """float32 [B, D] → each row divided by its L2 norm; BackboneError names the rows that have none."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unusable = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] < 1e-12))
    if len(unusable):
        description = "zero" if norms[unusable[0], 0] == 0 else f"of norm {norms[unusable[0], 0]}"
        raise BackboneError(
            f"backbone {name} gave an embedding {description} for image {unusable[0]} of {len(vectors)}: expected a "
            "finite vector; its weights are damaged, or its precision is too low for it"
        )
    unit: Float32 = vectors / norms
    return unit
