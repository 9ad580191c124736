"""ExactIndex: the k nearest of N unit vectors by inner product, exactly, by the fastest engine of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.types import Float32
from search import engines, faiss_vectors, neighbors
from search.faiss_vectors import FaissVectors
from search.neighbors import CandidateEngine, PointIds, Rows, Selection

_ROWS_PER_PART = 65_536  # rows copied at a time into a subset


@cache
def backend() -> str:
    """Choose the engine: "faiss-gpu" where FAISS sees a GPU, "torch-cuda" where torch does, or "faiss-cpu"."""
    if faiss_vectors.count_gpus():
        return "faiss-gpu"
    return "torch-cuda" if engines.count_torch_gpus() else "faiss-cpu"


class ExactIndex:
    """N unit-norm vectors, float32 [N, D], searched exhaustively by inner product (which is the cosine).

    `backend` names its engine in every record, see `backend()`.
    """

    def __init__(self, stored: FaissVectors, point_ids: PointIds | None = None) -> None:
        """point_ids: uint64 [N, 2], the order of equal scores. Raises ConfigError where there is a GPU that cannot hold
        the vectors."""
        self._stored = stored
        self._point_ids = point_ids
        self.vectors: Float32 = stored.vectors  # a view, not to be written to; perhaps mapped, perhaps unaligned
        self.count, self.dim = self.vectors.shape
        self._engine = _engine(stored)
        self.backend = self._engine.backend

    @classmethod
    def of(cls, vectors: Float32) -> ExactIndex:
        """Build from float32 [N, D]. Raises StoreError naming the first row that is not of unit norm."""
        count, dim = vectors.shape
        return cls.from_parts(count, dim, [vectors])

    @classmethod
    def from_parts(
        cls, count: int, dim: int, parts: Iterable[Float32], point_ids: PointIds | None = None
    ) -> ExactIndex:
        """Build from parts float32 [n, dim] that come to `count` rows, holding no more than the index and one part.

        Raises StoreError naming the first row that is not of unit norm, or where more or fewer rows come.
        """
        return cls(faiss_vectors.store(count, dim, _check_norms(parts, count)), point_ids)

    @classmethod
    def open(cls, path: Path, point_ids: PointIds | None = None) -> ExactIndex:
        """Map a saved index into memory, which takes no time whatever its size. Raises StoreError if it is damaged."""
        return cls(faiss_vectors.read(path), point_ids)

    def save(self, path: Path) -> None:
        """Write `path` and, where they are many, the same vectors in half precision beside it.

        Raises OSError where one cannot be written.
        """
        faiss_vectors.write(self._stored, path)

    def subset(self, rows: Rows) -> ExactIndex:
        """An index of some rows alone, int64 [M]; its row i is `rows[i]` of this one."""
        parts = (self.vectors[rows[i : i + _ROWS_PER_PART]] for i in range(0, len(rows), _ROWS_PER_PART))
        points = None if self._point_ids is None else self._point_ids[rows]
        return ExactIndex(faiss_vectors.store(len(rows), self.dim, parts), points)

    def search(self, queries: Float32, k: int, selection: Selection | None = None) -> tuple[Float32, Rows]:
        """The k best rows of each query, best first, equal scores by ascending point id, or row without.

        queries: float32 [Q, D], unit norm. selection: which rows may answer; None for all.
        Returns scores float32 [Q, K] (inner products, correctly rounded) and rows int64 [Q, K], where K is the
        smaller of k and the number of rows that may answer. Raises InputError on another shape, NaN or k < 1.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries have the shape {queries.shape}, this index needs [Q, {self.dim}]")
        if k < 1:
            raise InputError(f"k is {k}: ask for at least one result")
        if selection is not None and selection.mask.shape != (self.count,):
            raise InputError(f"the selection is of {selection.mask.shape} rows, this index has {self.count}")
        if not np.isfinite(queries).all():
            raise InputError("a query holds NaN or infinity: expected finite unit vectors")
        return neighbors.nearest(self.vectors, self._engine, queries, k, selection, self._point_ids)


def _engine(stored: FaissVectors) -> CandidateEngine:
    match backend():
        case "faiss-gpu":
            return engines.FaissGpu(stored)
        case "torch-cuda":
            return engines.TorchGpu(stored.vectors)
        case _:
            return engines.FaissCpu(stored)


def _check_norms(parts: Iterable[Float32], count: int) -> Iterator[Float32]:
    first = 0
    for part in parts:
        norms = np.linalg.norm(part, axis=1)
        wrong = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))  # catches NaN too
        if len(wrong):
            raise StoreError(
                f"embedding {first + wrong[0]} of {count} has norm {norms[wrong[0]]:.4g}, expected 1: "
                "ingest this reference set again with this backbone"
            )
        first += len(part)
        yield part
