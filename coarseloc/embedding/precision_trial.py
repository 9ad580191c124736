"""Which precision is the fastest on this machine that finds the same places, tried on a sample of a user's own views.

What is fast depends on the CPU (avx512_bf16, amx, vnni) and on the model, and how far embeddings drift depends on the
model and the imagery: so neither is looked up in a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core.errors import BackboneError
from coarseloc.core.types import Backbone, EmbeddingSpec, Float32, UInt8

PICTURES = 200  # that are embedded in each precision: one that differs is half a percent
LEAST_AGREEMENT = 0.995
_BATCH = 8
_PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class PrecisionTrial:
    """One precision on the sample."""

    precision: str
    ms: float  # of one picture in a batch, median
    agreement: float  # share of pictures whose nearest other picture is fp32's
    drift: float  # 1 - cosine to fp32's embedding, the largest


def try_precisions(
    spec_in: Callable[[str], EmbeddingSpec], load: Callable[[EmbeddingSpec], Backbone], pictures: Sequence[UInt8]
) -> list[PrecisionTrial]:
    """Embed the pictures, uint8 [H, W, 3] of one size, in each precision that the device has, fp32 first.

    spec_in: the encoder's spec in a precision.
    """
    trials: list[PrecisionTrial] = []
    reference: Float32 | None = None
    for precision in _PRECISIONS:
        try:
            encoder = load(spec_in(precision))
        except BackboneError:  # this device or model has not got it
            continue
        vectors, ms = _embed(encoder, pictures)
        reference = vectors if reference is None else reference
        agrees = _nearest_other(vectors) == _nearest_other(reference)
        drift = float(1.0 - np.sum(vectors.astype(np.float64) * reference, axis=1).min())
        trials.append(PrecisionTrial(precision, ms, float(agrees.mean()), max(0.0, drift)))
    return trials


def fastest(trials: Sequence[PrecisionTrial]) -> PrecisionTrial:
    """The fastest of those that find the same places as fp32, which is one of them."""
    return min((trial for trial in trials if trial.agreement >= LEAST_AGREEMENT), key=lambda trial: trial.ms)


def _embed(encoder: Backbone, pictures: Sequence[UInt8]) -> tuple[Float32, float]:
    encoder.embed(np.stack(pictures[:_BATCH]))  # the first call allocates and compiles
    vectors, times_ms = [], []
    for i in range(0, len(pictures), _BATCH):
        batch = np.stack(pictures[i : i + _BATCH])
        started = time.perf_counter()
        vectors.append(encoder.embed(batch))
        times_ms.append((time.perf_counter() - started) * 1e3 / len(batch))
    return np.concatenate(vectors), float(np.median(times_ms))


def _nearest_other(vectors: Float32) -> np.ndarray:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.asarray(scores.argmax(axis=1))
