"""ExactIndex: the k nearest of N unit vectors by inner product, exactly, by the fastest engine of this machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np

from coarseloc.core.config import SearchEngine
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.types import Float32
from search import engines, faiss_vectors, neighbors
from search.faiss_cpu import PLAIN_WAY, CpuWay
from search.faiss_vectors import FaissVectors
from search.neighbors import CandidateEngine, PointIds, Rows, Selection
from search.trials import SearchTrials, make_engine, query_class

_OWN_TRIALS = SearchTrials()  # of indexes that are kept nowhere
_ROWS_PER_PART = 65_536  # rows copied at a time into a subset


@cache
def backend() -> str:
    """Choose the engine: "faiss-gpu" where FAISS sees a GPU, "torch-cuda" where torch does, or "faiss-cpu"."""
    if faiss_vectors.count_gpus():
        return "faiss-gpu"
    return "torch-cuda" if engines.count_torch_gpus() else "faiss-cpu"


class ExactIndex:
    """N unit-norm vectors, float32 [N, D], searched exhaustively by inner product (which is the cosine).

    On a CPU it answers in the way that a trial found fastest for so many queries. All ways give the same answers.
    """

    def __init__(
        self, stored: FaissVectors, point_ids: PointIds | None = None, trials: SearchTrials | None = None
    ) -> None:
        """point_ids: uint64 [N, 2], the order of equal scores. trials: which way is fastest on a CPU; by default those
        of this process. Raises ConfigError where there is a GPU that cannot hold the vectors."""
        self._stored = stored
        self._trials = trials or _OWN_TRIALS
        self._point_ids = point_ids
        self.vectors: Float32 = stored.vectors  # a view, not to be written to; perhaps mapped, perhaps unaligned
        self.count, self.dim = self.vectors.shape
        self._gpu_engine = _gpu_engine(stored)
        self._cpu_engines: dict[CpuWay, CandidateEngine] = {}
        self._engines: dict[tuple[int, bool], CandidateEngine] = {}  # of (class of queries, among selected rows)
        self._twins: dict[SearchEngine, ExactIndex] = {}

    @classmethod
    def of(cls, vectors: Float32) -> ExactIndex:
        """Build from float32 [N, D]. Raises StoreError naming the first row that is not of unit norm."""
        count, dim = vectors.shape
        return cls.from_parts(count, dim, [vectors])

    @classmethod
    def from_parts(
        cls,
        count: int,
        dim: int,
        parts: Iterable[Float32],
        point_ids: PointIds | None = None,
        trials: SearchTrials | None = None,
    ) -> ExactIndex:
        """Build from parts float32 [n, dim] that come to `count` rows, holding no more than the index and one part.

        Raises StoreError naming the first row that is not of unit norm, or where more or fewer rows come.
        """
        return cls(faiss_vectors.store(count, dim, _check_norms(parts, count)), point_ids, trials)

    @classmethod
    def open(cls, path: Path, point_ids: PointIds | None = None, trials: SearchTrials | None = None) -> ExactIndex:
        """Map a saved index into memory, which takes no time whatever its size. Raises StoreError if it is damaged."""
        return cls(faiss_vectors.read(path), point_ids, trials)

    def save(self, path: Path) -> None:
        """Write `path` and, where they are many, the same vectors in half precision beside it.

        Raises OSError where one cannot be written.
        """
        faiss_vectors.write(self._stored, path)

    def subset(self, rows: Rows) -> ExactIndex:
        """An index of some rows alone, int64 [M]; its row i is `rows[i]` of this one."""
        parts = (self.vectors[rows[i : i + _ROWS_PER_PART]] for i in range(0, len(rows), _ROWS_PER_PART))
        points = None if self._point_ids is None else self._point_ids[rows]
        return ExactIndex(faiss_vectors.store(len(rows), self.dim, parts), points, self._trials)

    def admitting(self, engine: SearchEngine) -> ExactIndex:
        """The same vectors, searched on a CPU by whom `engine` admits."""
        if engine == self._trials.engine:
            return self
        if engine not in self._twins:
            self._twins[engine] = ExactIndex(self._stored, self._point_ids, self._trials.admitting(engine))
        return self._twins[engine]

    def backend(self, queries: int = 1, k: int = 10, selected: bool = False) -> str:
        """Name what answers so many queries at once, for every record. selected: among some rows of a selection."""
        return self._engine(queries, k, selected).backend

    def way(self, queries: int = 1, k: int = 10, selected: bool = False) -> CpuWay | None:
        """How so many queries at once are searched on a CPU; None on a GPU. A selection is read by FAISS alone."""
        if self._gpu_engine is not None:
            return None
        return PLAIN_WAY if selected else self._trials.way(self._stored, queries, k)

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
        if not math.isfinite(np.vdot(queries, queries)):
            raise InputError("a query holds NaN or infinity: expected finite unit vectors")
        if not len(queries):
            return np.empty((0, min(k, self.count)), np.float32), np.empty((0, min(k, self.count)), np.int64)
        engine = self._engine(len(queries), k, selection is not None)
        return neighbors.nearest(self.vectors, engine, queries, k, selection, self._point_ids)

    def _engine(self, queries: int, k: int, selected: bool) -> CandidateEngine:
        key = (query_class(queries), selected)
        if key not in self._engines:
            way = self.way(queries, k, selected)
            if way is not None and way not in self._cpu_engines:
                self._cpu_engines[way] = make_engine(self._stored, way)
            engine = self._gpu_engine if way is None else self._cpu_engines[way]
            self._engines[key] = cast(CandidateEngine, engine)
        return self._engines[key]


def _gpu_engine(stored: FaissVectors) -> CandidateEngine | None:
    match backend():
        case "faiss-gpu":
            return engines.FaissGpu(stored)
        case "torch-cuda":
            return engines.Torch(stored.vectors, "cuda")
        case _:
            return None


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
