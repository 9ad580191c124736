"""Honest milliseconds: medians of single calls after a warm-up, the device synchronised."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from coarseloc.core.types import Backbone, Float32, Floats, UInt8
from search.environment import WARM_UP
from search.exact_index import ExactIndex

REPEATS = 15  # of each timed call; the median is told
EMBED_TIMES = ("embed_1", "embed_8")


def embed_times(backbone: Backbone, pictures: UInt8) -> dict[str, Floats]:
    """`EMBED_TIMES`: to embed one picture, and eight at once, all of the same frame."""
    eight = np.stack([pictures[i % len(pictures)] for i in range(8)])
    return {
        "embed_1": np.array(median_ms(lambda: backbone.embed(eight[:1]))),
        "embed_8": np.array(median_ms(lambda: backbone.embed(eight))),
    }


def search_ms(vectors: Float32, queries: Float32) -> float:
    """One exact search of these queries at once, k = 10."""
    index = ExactIndex.of(np.ascontiguousarray(vectors, np.float32))
    k = min(10, len(vectors))
    return median_ms(lambda: index.search(np.ascontiguousarray(queries, np.float32), k))


def median_ms(call: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        call()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return float(np.median(taken))
