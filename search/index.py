"""ExactIndex: the k nearest of N unit vectors by inner product, exactly. The only home of FAISS.

FAISS adds up an inner product in another order on each of its paths (one query, many, GPU), so the last bit of a
score, and with it the order of equals, depends on the path. Here FAISS only proposes: a few rows more than k come
back, are scored once more in float64, and sorted by (score, row). If rounding could hide a row that FAISS did not
propose, all rows are looked at. So every path and every machine gives the same rows in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.errors import ConfigError, InputError, StoreError
from coarseloc.types import Float32

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_OWNERS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss")
_SPARE = 32  # rows asked for beyond k: nearly free, and neighbours closer than rounding are rare
_MANY = 8  # queries from which one matrix product beats one pass for each
# FAISS multiplies matrices when queries x dim reaches this, and its own 128,000 is far too high. It is global, so it
# is set once: above the dim of one query (a pass is faster there), below eight queries of the narrowest backbone.
_BLAS_FROM = 2048
_BYTES_PER_THREAD = 25_000_000  # read, or eight queries' worth of products: less does not pay for waking a thread
_MAX_THREADS = 8  # memory bandwidth is used up before
_CHUNK = 4096  # rows turned into an aligned copy at a time
_GPU_MAX_K = 2048


def faiss_owner() -> str:
    """The installed distribution that owns the module `faiss`, with its version, e.g. "faiss-cpu 1.11.0".

    Raises ConfigError unless there is exactly one: faiss-cpu and faiss-gpu overwrite each other's files, and pip
    cannot keep them apart.
    """
    found = []
    for name in _OWNERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError("no FAISS is installed: expected exactly one, run `pip install 'coarseloc[cpu]'` or `[gpu]`")
    raise ConfigError(
        f"{' and '.join(found)} are both installed and overwrite each other: uninstall them all, "
        "then install exactly one, with `pip install 'coarseloc[cpu]'` or `[gpu]`"
    )


@cache
def _faiss() -> Any:
    """The module, checked and set up on first use, so that nothing happens at import."""
    faiss_owner()
    import faiss

    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    return faiss


def backend() -> str:
    """What answers here: "faiss-gpu" where FAISS sees a GPU, else "faiss-cpu"."""
    return "faiss-gpu" if _faiss().get_num_gpus() > 0 else "faiss-cpu"


class ExactIndex:
    """N unit-norm vectors, float32 [N, D], searched exhaustively by inner product (which is the cosine).

    `backend` is "faiss-gpu" or "faiss-cpu": what answers, for every record.
    """

    def __init__(self, flat: Any) -> None:
        """Take a CPU `faiss.IndexFlatIP`; it is copied to the first GPU where there is one."""
        self._flat = flat
        self.count: int = flat.ntotal
        self.dim: int = flat.d
        self.backend = backend()
        self._gpu = _on_gpu(flat) if self.backend == "faiss-gpu" else None
        # |computed - true| of any summation order, for unit vectors: Higham's gamma, and one rounding of our own.
        self._error = 1.01 * (self.dim + 2) * float(np.finfo(np.float32).eps) / 2

    @classmethod
    def of(cls, vectors: Float32) -> ExactIndex:
        """Build from float32 [N, D]. Raises StoreError naming the first row that is not of unit norm."""
        norms = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))  # catches NaN too
        if len(wrong):
            raise StoreError(
                f"embedding {wrong[0]} of {len(vectors)} has norm {norms[wrong[0]]:.4g}, expected 1: "
                "ingest this reference set again with this backbone"
            )
        flat = _faiss().IndexFlatIP(vectors.shape[1])
        flat.add(np.ascontiguousarray(vectors, np.float32))  # at once: growing in pieces copies each time
        return cls(flat)

    @classmethod
    def open(cls, path: Path) -> ExactIndex:
        """Map a saved index into memory, which takes no time whatever its size. Raises StoreError if it is damaged."""
        faiss = _faiss()
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            raise StoreError(f"{path} is not a complete FAISS index: {str(error).splitlines()[0]}") from None

    def save(self, path: Path) -> None:
        """Raises OSError where it cannot be written."""
        try:
            _faiss().write_index(self._flat, str(path))
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[0]) from None

    @property
    def vectors(self) -> Float32:
        """float32 [N, D]: a view of what is searched, not to be written to; perhaps mapped, perhaps unaligned."""
        if self.count == 0:
            return np.empty((0, self.dim), np.float32)
        flat: Float32 = _faiss().rev_swig_ptr(self._flat.get_xb(), self.count * self.dim)
        return flat.reshape(self.count, self.dim)

    def subset(self, rows: Rows) -> ExactIndex:
        """An index of some rows alone, int64 [M]; its row i is `rows[i]` of this one."""
        flat = _faiss().IndexFlatIP(self.dim)
        flat.add(self.vectors[rows])
        return ExactIndex(flat)

    def search(self, queries: Float32, k: int, rows: Mask | None = None) -> tuple[Float32, Rows]:
        """The k best rows of each query, best first, equal scores by ascending row.

        queries: float32 [Q, D], unit norm. rows: bool [N], which rows may answer; None for all.
        Returns scores float32 [Q, K] (inner products, correctly rounded) and rows int64 [Q, K], where K is the
        smaller of k and the number of rows that may answer. Raises InputError on another shape, NaN or k < 1.
        """
        queries = self._checked(queries, k, rows)
        matching = self.count if rows is None else int(np.count_nonzero(rows))
        k = min(k, matching)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        asked = min(matching, k + _SPARE)
        worst, proposed = self._propose(queries, asked, rows)
        scores, found = self._ranked(queries, proposed, k)
        if asked == matching and np.isfinite(worst).all():
            return scores, found
        for q in np.flatnonzero(scores[:, -1] <= worst + self._error):
            scores[q], found[q] = self._search_all(queries[q], k, rows)
        return scores, found

    def _checked(self, queries: Float32, k: int, rows: Mask | None) -> Float32:
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries have the shape {queries.shape}, this index needs [Q, {self.dim}]")
        if k < 1:
            raise InputError(f"k is {k}: ask for at least one result")
        if rows is not None and (rows.shape != (self.count,) or rows.dtype != np.bool_):
            raise InputError(f"the mask is {rows.dtype} {rows.shape}, this index needs bool ({self.count},)")
        if not np.isfinite(queries).all():
            raise InputError("a query holds NaN or infinity: expected finite unit vectors")
        return queries

    # --- proposing: FAISS, by the best path for the kind of query ------------------------------------

    def _propose(self, queries: Float32, k: int, mask: Mask | None) -> tuple[Float32, Rows]:
        """(score of the k-th [Q], rows [Q, k] in any order), with FAISS's own rounding."""
        if self._gpu is not None:
            return self._propose_on_gpu(queries, k, mask)
        if mask is not None:
            return self._propose_masked(queries, k, mask)
        if len(queries) >= _MANY:
            return self._propose_in_ranges(queries, k)
        each = [self._propose_in_ranges(query[None], k) for query in queries]
        return np.concatenate([w for w, _ in each]), np.concatenate([r for _, r in each])

    def _propose_in_ranges(self, queries: Float32, k: int) -> tuple[Float32, Rows]:
        """All vectors, cut among threads by us; FAISS passes over a range for one query, multiplies for many.

        FAISS's own parallel path for one query is slow, and its BLAS's threads spin while they wait for each other,
        which beside any other load is a hundred times slower. Ranges on one OpenMP thread each do neither.
        """
        work = self.count * self.dim * 4 * max(1, len(queries) // _MANY)
        parts = max(1, min(_threads(), work // _BYTES_PER_THREAD, self.count))
        edges = [self.count * i // parts for i in range(parts + 1)]
        answers = _together([partial(self._range, queries, k, lo, hi) for lo, hi in pairwise(edges)])
        scores = np.concatenate([s for s, _ in answers], axis=1)
        rows = np.concatenate([r for _, r in answers], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return _worst((np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)))

    def _range(self, queries: Float32, k: int, lo: int, hi: int) -> tuple[Float32, Rows]:
        within = _faiss().SearchParameters(sel=_faiss().IDSelectorRange(lo, hi))
        scores, rows = self._flat.search(queries, min(k, hi - lo), params=within)
        return scores, rows

    def _propose_masked(self, queries: Float32, k: int, mask: Mask) -> tuple[Float32, Rows]:
        # One bit a row, tested before its vector is read: what does not match costs nothing.
        bits = np.packbits(mask, bitorder="little")
        allowed = _faiss().SearchParameters(sel=_faiss().IDSelectorBitmap(bits))
        shares = np.array_split(queries, min(len(queries), _threads()))
        answers = _together([partial(self._flat.search, share, k, params=allowed) for share in shares])
        return _worst((np.concatenate([s for s, _ in answers]), np.concatenate([r for _, r in answers])))

    def _propose_on_gpu(self, queries: Float32, k: int, mask: Mask | None) -> tuple[Float32, Rows]:
        if k > _GPU_MAX_K:  # FAISS's limit on a GPU: nothing proposed, so all rows are looked at
            return np.full(len(queries), np.inf, np.float32), np.zeros((len(queries), k), np.int64)
        if mask is None:
            return _worst(self._gpu.search(queries, k))  # type: ignore[union-attr]
        # A flat GPU index takes no selector. Who asks the same filter many times uses `subset` once.
        allowed = np.flatnonzero(mask)
        worst, rows = self.subset(allowed)._propose(queries, k, None)
        return worst, allowed[rows]

    # --- deciding: our own scores, the same everywhere ------------------------------------------------

    def _ranked(self, queries: Float32, proposed: Rows, k: int) -> tuple[Float32, Rows]:
        """The k best of the proposed rows [Q, M] by (score, row)."""
        scores = np.stack([self._scores(q, rows) for q, rows in zip(queries, proposed, strict=True)])
        best = np.lexsort((proposed, -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(proposed, best, 1)

    def _scores(self, query: Float32, rows: Rows) -> Float32:
        """float32 [M]: the true inner products, rounded once; equal vectors have equal scores."""
        wide = query.astype(np.float64)
        vectors = self.vectors
        parts = [np.vecdot(vectors[rows[i : i + _CHUNK]].astype(np.float64), wide) for i in range(0, len(rows), _CHUNK)]
        return np.concatenate(parts).astype(np.float32)

    def _search_all(self, query: Float32, k: int, mask: Mask | None) -> tuple[Float32, Rows]:
        """The k best when more rows tie, or nearly tie, than were proposed."""
        vectors = self.vectors
        rough = np.concatenate([vectors[i : i + _CHUNK].copy() @ query for i in range(0, self.count, _CHUNK)])
        if mask is not None:
            rough[~mask] = -np.inf
        kth = np.partition(rough, self.count - k)[self.count - k]
        close = np.flatnonzero(rough >= kth - 2 * self._error)
        scores, rows = self._ranked(query[None], close[None], k)
        return scores[0], rows[0]


def _worst(answer: tuple[Float32, Rows]) -> tuple[Float32, Rows]:
    scores, rows = answer
    return scores[:, -1], rows


def _on_gpu(flat: Any) -> Any:
    faiss = _faiss()
    config = faiss.GpuIndexFlatConfig()  # float32 throughout: half precision would not be exact
    try:
        return faiss.GpuIndexFlatIP(_gpu_resources(), flat, config)
    except RuntimeError as error:
        raise ConfigError(
            f"the GPU cannot hold {flat.ntotal} x {flat.d} vectors: {str(error).splitlines()[0]}. "
            "Free its memory, or set CUDA_VISIBLE_DEVICES= to search on the CPU."
        ) from None


@cache
def _gpu_resources() -> Any:
    return _faiss().StandardGpuResources()  # one for all: each takes its own scratch memory on the GPU


@cache
def _threads() -> int:
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_THREADS, ours)


@cache
def _pool() -> ThreadPoolExecutor:
    # omp_set_num_threads acts on the calling thread only, so each worker says it for itself.
    return ThreadPoolExecutor(_threads(), "exact-search", initializer=lambda: _faiss().omp_set_num_threads(1))


def _together(jobs: Sequence[Callable[[], tuple[Float32, Rows]]]) -> list[tuple[Float32, Rows]]:
    """Run the jobs at once, the first in this thread, each on one OpenMP thread."""
    others = [_pool().submit(job) for job in jobs[1:]]
    with _one_openmp_thread():
        first = jobs[0]()
    return [first, *(other.result() for other in others)]


@contextmanager
def _one_openmp_thread() -> Iterator[None]:
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
