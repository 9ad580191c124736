"""True architectures with random weights, and how much they compute. torch, transformers, coarseloc.embedding."""

from __future__ import annotations

from pathlib import Path

from coarseloc.embedding.random_weights import write_random_model, write_random_weights
from coarseloc.embedding.specs import IMAGENET_MEAN, IMAGENET_STD, REGISTER_TOKENS, BackboneSpec
from coarseloc.embedding.weights import LocatedWeights

SMALL = {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 5}


def random_backbone(row: BackboneSpec, folder: Path, seed: int = 0, layers: int | None = None) -> LocatedWeights:
    """Write one of the six, whole or with its first `layers` only, as a Hugging Face folder of random weights."""
    write_random_weights(row, folder, seed, layers)
    if layers is None:
        return LocatedWeights(row, "folder", folder)
    return LocatedWeights(_laboratory(f"{row.name}-{layers}-layers", folder, row.dim), "folder", folder)


def small_backbone(name: str, folder: Path, seed: int = 0) -> LocatedWeights:
    """A laboratory's own small DINOv3, as large as the demonstration's: reading costs more than embedding."""
    write_random_model({"num_register_tokens": REGISTER_TOKENS, **SMALL}, folder, seed)
    return LocatedWeights(_laboratory(name, folder, SMALL["hidden_size"]), "folder", folder)


def flops(row: BackboneSpec, side: int, class_token_only: bool = False) -> float:
    """Floating-point operations of one image (a multiply-add is two), matrix products alone.

    With `class_token_only` the last block computes the class token's query, attention and MLP only, as coarseloc does.
    """
    patches = (side // row.patch) ** 2
    tokens, d = 1 + REGISTER_TOKENS + patches, row.dim
    token = 2 * (4 * d * d + (3 if row.gated else 2) * d * row.mlp)  # q, k, v, out and the MLP
    attention = 4 * tokens * d  # of one query
    blocks = row.layers * tokens * (token + attention)
    if class_token_only:
        blocks -= (tokens - 1) * (token - 2 * 2 * d * d + attention)  # keys and values are of all tokens
    return blocks + 2 * patches * 3 * row.patch**2 * d


def _laboratory(name: str, folder: Path, dim: int) -> BackboneSpec:
    return BackboneSpec(name, name, 0, dim, 0, 0, 0, False, "random", IMAGENET_MEAN, IMAGENET_STD, folder=folder)
