"""FAISS on a CPU: the ways in which it proposes rows, each on threads of our own or on the library's.

What is fastest depends on the machine, the vectors and the number of queries, so `search.trials` tries it. Two facts
set the pace of one query: it costs what reading the vectors costs, and FAISS's own parallel path for one query is slow.
So there are ways that read a copy in half precision first, which is half the bytes, and that divide the rows among
threads here. Several queries may be cheaper as one matrix product.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from coarseloc.core.types import Float32
from search.faiss_vectors import SCALE, FaissVectors, library
from search.neighbors import SPARE, Pass, Rows, Selection, float32_error, spare_rows, stack_answers

_BYTES_PER_THREAD = 25_000_000  # read of a selection's rows: less does not pay for waking a thread
_LAST_SPARE = 512  # candidates beyond k of the last pass
_MANY_QUERIES = 8  # from which threads that scan have enough each
_MAX_THREADS = 8  # memory bandwidth is used up before

Search = Callable[[Any, Float32, int], tuple[Float32, Rows]]
Library = Literal["faiss", "numpy", "torch"]


class CpuWay(NamedTuple):
    """One way to search on a CPU. Each gives the same rows and scores."""

    library: Library
    method: Literal["scan", "product"]  # read all rows for each query, or multiply all queries by all rows
    precision: Literal["fp16", "fp32"]  # of the rows that are read first
    threads: int  # 0: as many as the library likes
    split: Literal["rows", "queries"] = "rows"  # what the threads divide

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.threads else "the library's threads"
        return f"{self.library} {self.method}, {self.precision}, {threads}" + (
            f", each its {self.split}" if self.threads > 1 else ""
        )


PLAIN_WAY = CpuWay("faiss", "scan", "fp32", 1)


def cpu_ways(queries: int, has_half: bool, libraries: Collection[str]) -> list[CpuWay]:
    """All ways worth a trial for so many queries at once, FAISS's plainest first."""
    counts = [1, *(n for n in (2, 4, 8) if n <= max_threads())]
    scan_counts = counts if queries < _MANY_QUERIES else counts[-1:]
    ways = [CpuWay("faiss", "scan" if queries == 1 else "product", "fp32", 0)]
    for precision in ("fp16", "fp32") if has_half else ("fp32",):
        ways += [CpuWay("faiss", "scan", precision, n, "rows" if queries < n else "queries") for n in scan_counts]
    if queries > 1:
        ways += [CpuWay("faiss", "product", "fp32", n, split) for n in counts for split in _splits(queries, n)]
    if "numpy" in libraries:
        ways.append(CpuWay("numpy", "product", "fp32", 0))
    if "torch" in libraries:
        ways.append(CpuWay("torch", "product", "fp32", 0))
    return ways


def _splits(queries: int, threads: int) -> tuple[Literal["rows", "queries"], ...]:
    return ("rows",) if threads == 1 or queries < 4 * threads else ("rows", "queries")


class FaissCpu:
    """A `CandidateEngine`: scans or multiplies by FAISS in one way, perhaps over half precision first."""

    backend = "faiss-cpu"

    def __init__(self, stored: FaissVectors, way: CpuWay) -> None:
        self._stored = stored
        self._way = way
        dim = stored.flat.d
        self._error = float32_error(dim)
        # 11 bits of each value are kept, so |q . (x - half x)| <= 2^-11 |q| |x|; what is below 2^-24 may vanish.
        self._half_error = 1.01 * (2.0**-11 + math.sqrt(dim) * 2.0**-24) + self._error

    def passes(self, k: int, selection: Selection | None) -> Iterator[Pass]:
        flat, half = self._stored.flat, self._stored.half
        search = partial(_SEARCHES[self._way.method], self._way) if selection is None else partial(_pick, selection)
        if half is not None and (self._way.precision == "fp16" or selection is not None):
            yield Pass(self._half_error, partial(_search_half, search, half), SPARE)
        yield Pass(self._error, partial(search, flat), spare_rows(flat.ntotal))
        yield Pass(self._error, partial(search, flat), _LAST_SPARE)


def _search_half(search: Search, half: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    return search(half, queries / np.float32(SCALE), m)  # what `half` holds is larger by as much


def _scan(way: CpuWay, index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """Read all rows once for each query."""
    if way.threads == 0:
        return _search_index(index, queries, m)
    if way.threads == 1:
        with _one_openmp_thread():
            return _each_query(index, queries, m)
    if way.split == "queries" and len(queries) > 1:
        parts = np.array_split(queries, min(way.threads, len(queries)))
        return stack_answers(_run_parallel([partial(_each_query, index, part, m) for part in parts]))
    return stack_answers([_search_ranges(index, query, m, way.threads) for query in np.split(queries, len(queries))])


def _each_query(index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    return stack_answers([_search_index(index, queries[i : i + 1], m) for i in range(len(queries))])


def _multiply(way: CpuWay, index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """Multiply all queries by all rows."""
    if way.threads == 0:
        return _search_index(index, queries, m)
    if way.split == "rows":
        return _search_ranges(index, queries, m, way.threads)
    parts = np.array_split(queries, min(way.threads, len(queries)))
    return stack_answers(_run_parallel([partial(_search_index, index, part, m) for part in parts]))


_SEARCHES = {"scan": _scan, "product": _multiply}


def _pick(selection: Selection, index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """Read the selected rows once for each query."""
    work = index.ntotal * index.sa_code_size() * len(queries)  # jumping costs as much as reading what is jumped over
    threads = max(1, min(max_threads(), work // _BYTES_PER_THREAD))
    return _search_ranges(index, queries, m, threads, partial(_selection_parameters, selection))


def _search_ranges(
    index: Any, queries: Float32, m: int, threads: int, parameters: Callable[[int, int], Any] | None = None
) -> tuple[Float32, Rows]:
    """Search ranges of rows on threads of our own; FAISS scans a range for one query, multiplies for several.

    parameters: (first row, last row + 1) → FAISS's parameters for that range.

    FAISS's own parallel path for one query is slow, and its BLAS's threads spin while they wait for each other, which
    beside any other load is a hundred times slower. Ranges on one OpenMP thread each do neither.
    """
    parts = max(1, min(threads, index.ntotal // 8))
    edges = [*(index.ntotal * i // parts // 8 * 8 for i in range(parts)), index.ntotal]  # of whole bytes of bits
    of_range = parameters or partial(_range_parameters, index.ntotal)
    jobs = [partial(_search_index, index, queries, m, of_range(lo, hi)) for lo, hi in pairwise(edges)]
    answers = _run_parallel(jobs)
    if parts == 1:
        return answers[0]
    scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*answers, strict=True))
    best = np.argsort(-scores, axis=1, kind="stable")[:, :m]  # a range of less than m rows fills up with the lowest
    return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


def _search_index(index: Any, queries: Float32, m: int, parameters: Any = None) -> tuple[Float32, Rows]:
    """FAISS's own call, best first: scores and rows, both [Q, m]."""
    answer: tuple[Float32, Rows] = index.search(queries, m, params=parameters)
    return answer


def _range_parameters(count: int, lo: int, hi: int) -> Any:
    faiss = library()
    return None if (lo, hi) == (0, count) else faiss.SearchParameters(sel=faiss.IDSelectorRange(lo, hi))


def _selection_parameters(selection: Selection, lo: int, hi: int) -> Any:
    """Pass FAISS one bit a row, which it tests before it reads the row's vector: rows outside cost nothing."""
    bits = selection.bits[: (hi + 7) // 8]
    if lo:
        bits = bits.copy()
        bits[: lo // 8] = 0
    return library().SearchParameters(sel=library().IDSelectorBitmap(bits))


def cpu_name() -> str:
    """The processor's model, as the kernel names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def max_threads() -> int:
    """The most threads that one search on a CPU uses."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_THREADS, cores)


@cache
def _pool() -> ThreadPoolExecutor:
    # omp_set_num_threads acts on the calling thread only, so each worker sets it for itself.
    return ThreadPoolExecutor(max_threads(), "exact-search", initializer=lambda: library().omp_set_num_threads(1))


def _run_parallel(jobs: Sequence[Callable[[], tuple[Float32, Rows]]]) -> list[tuple[Float32, Rows]]:
    """Run the jobs at once, the first in this thread, each on one OpenMP thread."""
    futures = [_pool().submit(job) for job in jobs[1:]] if len(jobs) > 1 else []
    with _one_openmp_thread():
        first = jobs[0]()
    return [first, *(future.result() for future in futures)]


@contextmanager
def _one_openmp_thread() -> Iterator[None]:
    faiss = library()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
