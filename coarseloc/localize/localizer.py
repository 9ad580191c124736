"""The recipe: decode → embed → exact top-k → places → refine → answer.

Every entry point comes through here: a flight's search, one picture on the command line, on a page or in a notebook.
Encoder, index and refinement are given, so that nothing here knows where vectors or pictures are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Backbone, Estimate, Float32, RankedTile, Timing, UInt8
from coarseloc.imagery.decode import read_image
from coarseloc.localize.places import best_place, hits_of_first_places

DEEPEST = 2000  # rotated tiles asked for at most, unless more results are: FAISS on a GPU gives no more than 2,048
MOST_HEADINGS = 8  # rotated tiles looked through for each place that is wanted

Refine = Callable[[UInt8, Estimate, Sequence[RankedTile]], Estimate | None]
"""(a frame's pixels, its best place, its hits) → a better estimate, or None where the best place is no answer."""


class TileIndex(Protocol):
    """Rotated tiles ranked by their cosine with a query, exactly; equal scores by ascending point id."""

    @property
    def headings(self) -> int:
        """How many of its rotated tiles may share one place."""
        ...

    def search(self, queries: Float32, k: int) -> tuple[Float32, NDArray[Any]]:
        """Queries float32 [Q, D] of unit norm → scores float32 [Q, K] and keys [Q, K], best first."""
        ...

    def tiles(self, scores: Float32, keys: NDArray[Any]) -> list[RankedTile]:
        """One query's scores and keys, both [K], with what is known of each tile; those deleted since are left out."""
        ...


@dataclass(frozen=True, slots=True)
class TimedImage:
    """A decoded image, RGB uint8 [H, W, 3], and the milliseconds its decoding took."""

    pixels: UInt8
    decode_ms: float


@dataclass(frozen=True, slots=True)
class LocalizedImage:
    """Where a picture was taken: ranked tiles until k places are reached, and the estimate; None without hits."""

    hits: list[RankedTile]
    estimate: Estimate | None
    timing: Timing


def decode(path: Path) -> TimedImage:
    """Decode an image file, timed. Raises ImageryError where it cannot be read."""
    started = time.perf_counter()
    pixels = read_image(path)
    return TimedImage(pixels, ms_since(started))


def localize(
    pictures: Sequence[TimedImage],
    encoder: Backbone,
    indexes: Sequence[TileIndex],
    k: int,
    refine: Refine | None = None,
) -> list[list[LocalizedImage]]:
    """Localize P images of equal size in I indexes, answers [P][I]; each timer encloses one call only.

    Times are each picture's share of the batch. `search` is the index call alone, for k places, not their facts.
    """
    started = time.perf_counter()
    vectors = encoder.embed(np.stack([picture.pixels for picture in pictures]))
    embed_ms = ms_since(started) / len(pictures)
    answers: list[list[LocalizedImage]] = [[] for _ in pictures]
    for index in indexes:
        ranked, search_ms = rank(vectors, index, k)
        for picture, hits, of_picture in zip(pictures, ranked, answers, strict=True):
            estimate = best_place(hits)
            if refine is not None and estimate is not None:
                estimate = refine(picture.pixels, estimate, hits)
            of_picture.append(LocalizedImage(hits, estimate, Timing(picture.decode_ms, embed_ms, search_ms)))
    return answers


def rank(vectors: Float32, index: TileIndex, k: int) -> tuple[list[list[RankedTile]], float]:
    """(hits of each query, until k places are reached; milliseconds a query). vectors: float32 [Q, D], unit norm."""
    started = time.perf_counter()
    scores, keys = index.search(vectors, depth(k, index.headings))
    search_ms = ms_since(started) / len(vectors)
    return [hits_of_first_places(index.tiles(*ranking), k) for ranking in zip(scores, keys, strict=True)], search_ms


def depth(k: int, headings: int) -> int:
    """Compute how many rotated tiles to ask for so that k places are among them, each at all its headings."""
    return max(k, min(k * min(headings, MOST_HEADINGS), DEEPEST))


def ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
