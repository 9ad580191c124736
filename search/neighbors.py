"""The k nearest of N unit vectors by inner product, exactly, whichever engine proposes the candidates.

An inner product is added up in another order by each library and each path (one query, many, GPU), so the last bit of
a score, and with it the order of equals, depends on the path. Here an engine only proposes: it returns a few
candidate rows more than k, which are scored once more in float64 and sorted by (score, point id), or by row where rows
have none. If its rounding could hide a row that is not among the candidates, the engine's next, more exact pass runs,
and in the end all rows are scored. So every path and every machine gives the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Float32

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
PointIds = NDArray[np.uint64]
"""uint64 [N, 2]: the high and the low half of each row's point id."""

SPARE = 32  # candidates beyond k: nearly free, and neighbours closer than rounding are rare
_MANY_ROWS = 20_000  # from which more rows are that close
SMALL = 512  # rows: scoring this many takes less time than an engine's call
_CHUNK = 256  # rows scored at a time: wide enough for NumPy, small enough for a core's cache


class Selection:
    """Which of N rows may answer, in the forms that engines use, each computed once."""

    def __init__(self, mask: Mask) -> None:
        """mask: bool [N], not to be changed afterwards."""
        self.mask = mask

    @cached_property
    def rows(self) -> Rows:
        """int64 [M], ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """uint8 [ceil(N / 8)]: one bit a row, the first row lowest."""
        return np.packbits(self.mask, bitorder="little")

    def __len__(self) -> int:
        return len(self.rows)


class Pass(NamedTuple):
    """One pass of an engine over its vectors.

    error: bounds |the score that it ranks by - the true inner product, rounded| for unit vectors.
    candidates: (queries float32 [Q, D], m) → (scores float32 [Q, m], best first; their rows int64 [Q, m]).
    spare: candidates to ask for beyond k. Where more rows than these are too close to call, the next pass decides.
    """

    error: float
    candidates: Callable[[Float32, int], tuple[Float32, Rows]]
    spare: int


class CandidateEngine(Protocol):
    """Something that proposes the best rows of one set of vectors fast, up to its rounding."""

    @property
    def backend(self) -> str:
        """Its name in every record: "faiss-cpu", "faiss-gpu", "numpy", "torch-cpu", "torch-cuda"."""
        ...

    def passes(self, k: int, selection: Selection | None) -> Iterable[Pass]:
        """The passes that propose k rows and some to spare, the fastest first."""
        ...


def spare_rows(count: int) -> int:
    """Candidates to ask for beyond k where scores are in float32: fewer where a search of so few rows feels them."""
    return 8 if count < _MANY_ROWS else SPARE


def stack_answers(answers: Sequence[tuple[Float32, Rows]]) -> tuple[Float32, Rows]:
    """Put the answers to parts of the queries one after the other."""
    if len(answers) == 1:
        return answers[0]
    return np.concatenate([scores for scores, _ in answers]), np.concatenate([rows for _, rows in answers])


def float32_error(dim: int) -> float:
    """|computed - true| of an inner product of unit vectors [dim] in float32, added up in any order: gamma of Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1, and one rounding of our own."""
    return 1.01 * (dim + 2) * float(np.finfo(np.float32).eps) / 2


def nearest(
    vectors: Float32,
    engine: CandidateEngine,
    queries: Float32,
    k: int,
    selection: Selection | None = None,
    point_ids: PointIds | None = None,
) -> tuple[Float32, Rows]:
    """The k best rows of each query, best first, equal scores by ascending point id, or row without.

    vectors: float32 [N, D], what the engine searches. queries: float32 [Q, D]. All of unit norm.
    Returns scores float32 [Q, K] (inner products, correctly rounded) and rows int64 [Q, K], where K is the smaller of
    k and the number of rows that may answer.
    """
    matching = len(vectors) if selection is None else len(selection)
    k = min(k, matching)
    if k == 0 or len(queries) == 0:
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    if matching <= SMALL:
        rows = np.arange(matching) if selection is None else selection.rows
        return best_rows(vectors, queries, np.broadcast_to(rows, (len(queries), matching)), k, point_ids)
    scores, rows = np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    undecided, remaining = np.arange(len(queries)), queries
    for engine_pass in engine.passes(k, selection):
        m = min(matching, k + engine_pass.spare)
        proposed, candidates = engine_pass.candidates(remaining, m)
        # The k best are at least as good as the k-th proposed less its error; what may reach that is scored exactly.
        is_close = proposed >= proposed[:, k - 1 : k] - np.float64(2 * engine_pass.error)
        width = np.count_nonzero(is_close.any(axis=0))
        best = best_rows(vectors, remaining, candidates[:, :width], k, point_ids)
        if len(remaining) == len(queries):
            scores, rows = best
        else:
            scores[undecided], rows[undecided] = best
        is_open = is_close[:, -1]  # a row that was not proposed may be as close
        if m == matching or not is_open.any():
            return scores, rows
        undecided, remaining = undecided[is_open], remaining[is_open]
    if not len(scores):  # an engine without a pass for so many rows
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for query in undecided:
        scores[query], rows[query] = _best_of_all_rows(vectors, queries[query], k, selection, point_ids)
    return scores, rows


def best_rows(
    vectors: Float32, queries: Float32, candidates: Rows, k: int, point_ids: PointIds | None = None
) -> tuple[Float32, Rows]:
    """The k best of each query's candidate rows [Q, M], scored in float64 and rounded once: by score, then point id,
    or row without. Returns scores float32 and rows int64, both [Q, min(k, M)]."""
    scores = _exact_scores(vectors, queries, candidates)
    query = np.arange(len(candidates))[:, None]
    best = np.argsort(-scores, axis=-1, kind="stable")
    ordered = scores[query, best]
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        ties = (candidates,) if point_ids is None else (point_ids[candidates, 1], point_ids[candidates, 0])
        best = np.lexsort((*ties, -scores), axis=-1)
    best = best[:, :k]
    return ordered[:, :k], candidates[query, best]


def _exact_scores(vectors: Float32, queries: Float32, candidates: Rows) -> Float32:
    """Inner products [Q, M] in float64, rounded once."""
    if candidates.size <= _CHUNK:
        exact: Float32 = np.vecdot(vectors[candidates].astype(np.float64), queries[:, None].astype(np.float64))
        return exact.astype(np.float32)
    scores = np.empty(candidates.shape, np.float32)
    chunk_queries = max(1, _CHUNK // max(1, candidates.shape[1]))
    for q in range(0, len(queries), chunk_queries):
        wide = queries[q : q + chunk_queries, None].astype(np.float64)
        for i in range(0, candidates.shape[1], _CHUNK):
            rows = candidates[q : q + chunk_queries, i : i + _CHUNK]
            scores[q : q + chunk_queries, i : i + _CHUNK] = np.vecdot(vectors[rows].astype(np.float64), wide)
    return scores


def _best_of_all_rows(
    vectors: Float32, query: Float32, k: int, selection: Selection | None, point_ids: PointIds | None
) -> tuple[Float32, Rows]:
    """The k best of one query where more rows tie, or nearly tie, than an engine proposes."""
    parts = np.array_split(vectors, max(1, len(vectors) // 4096))
    rough = np.concatenate([part.copy() @ query for part in parts])  # a copy is aligned, a mapped file is not
    if selection is not None:
        rough[~selection.mask] = -np.inf
    kth = np.partition(rough, len(rough) - k)[len(rough) - k]
    close = np.flatnonzero(rough >= kth - 2 * float32_error(vectors.shape[1]))
    scores, rows = best_rows(vectors, query[None], close[None], k, point_ids)
    return scores[0], rows[0]
