"""FAISS: the vectors in a flat index, on disk and in memory, and the fastest ways to have it propose rows.

Two facts set the pace of one query on a CPU: it costs what reading the vectors costs, and FAISS's own parallel path
for one query is slow. So a copy in half precision, which is half the bytes, is asked first, and the work is cut among
threads here. Both files are FAISS's own format: `faiss.read_index` opens them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from coarseloc.errors import ConfigError, StoreError
from coarseloc.types import Float32
from search.exact import Level, Rows, Selection, float32_error

_OWNERS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss")
_MANY = 8  # queries from which one matrix product beats one pass for each
# FAISS multiplies matrices when queries x dim reaches this, and its own 128,000 is far too high. It is global, so it
# is set once: above the dim of one query (a pass is faster there), below eight queries of the narrowest backbone.
_BLAS_FROM = 2048
_HALF_FROM = 4_000_000  # bytes of float32: less lies in a core's cache, where half of it is no faster
_BYTES_PER_THREAD = 25_000_000  # read, or eight queries' worth of products: less does not pay for waking a thread
_MAX_THREADS = 8  # memory bandwidth is used up before
_GPU_MAX_K = 2048

# Half precision keeps 11 bits of a value between 2^-14 and 2^16. Unit vectors have many values below 2^-14, which
# would lose more; scaled by a power of two, which is exact, those that do are below 2^-24.
_SCALE = 2.0**10


def owner() -> str:
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
        raise ConfigError("no FAISS is installed: expected exactly one, run `pip install faiss-cpu` or `faiss-gpu`")
    raise ConfigError(
        f"{' and '.join(found)} are both installed and overwrite each other: uninstall them all, "
        "then install exactly one, with `pip install faiss-cpu` or `faiss-gpu`"
    )


@cache
def _faiss() -> Any:
    """The module, checked and set up on first use, so that nothing happens at import."""
    owner()
    import faiss

    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    return faiss


def gpus() -> int:
    """How many this FAISS can use."""
    return int(_faiss().get_num_gpus())


# --- the vectors --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """N vectors [N, D] as FAISS keeps them: all that is needed is `flat`; `half` makes single queries faster."""

    flat: Any  # IndexFlatIP
    half: Any  # IndexScalarQuantizer in half precision, of the vectors times _SCALE; None where they are few

    @property
    def vectors(self) -> Float32:
        """float32 [N, D]: a view, not to be written to; perhaps mapped, perhaps unaligned."""
        return _view(self.flat)


def store(count: int, dim: int, parts: Iterable[Float32]) -> Stored:
    """Fill an index of exactly `count` vectors from parts float32 [n, dim]: in memory once, never copied to grow."""
    faiss = _faiss()
    flat = faiss.IndexFlatIP(dim)
    flat.codes.resize(count * dim * 4)
    flat.ntotal = count
    half = None
    if count * dim * 4 >= _HALF_FROM:
        half = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        half.codes.resize(count * dim * 2)
        half.codes.clear()  # keeps the room
    held, done = _view(flat), 0
    for part in parts:
        if done + len(part) > count:
            raise StoreError(f"more than the {count} vectors that were announced came: try again")
        held[done : done + len(part)] = part
        if half is not None:
            half.add(held[done : done + len(part)] * np.float32(_SCALE))
        done += len(part)
    if done != count:
        raise StoreError(f"{done} of {count} vectors came: try again")
    return Stored(flat, half)


def read(path: Path) -> Stored:
    """Map saved vectors into memory, which takes no time whatever their size. Raises StoreError if they are damaged."""
    flat = _read(path)
    half = _read(half_path(path)) if flat.ntotal * flat.d * 4 >= _HALF_FROM else None
    if half is not None and (half.ntotal, half.d) != (flat.ntotal, flat.d):
        raise StoreError(f"{half_path(path)} holds {half.ntotal} x {half.d} vectors, expected {flat.ntotal} x {flat.d}")
    return Stored(flat, half)


def write(stored: Stored, path: Path) -> None:
    """`path`, and beside it the copy in half precision. Raises OSError where one cannot be written."""
    try:
        _faiss().write_index(stored.flat, str(path))
        if stored.half is not None:
            _faiss().write_index(stored.half, str(half_path(path)))
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from None


def half_path(path: Path) -> Path:
    """index.faiss → index.half.faiss."""
    return path.with_suffix(f".half{path.suffix}")


def _read(path: Path) -> Any:
    faiss = _faiss()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise StoreError(f"{path} is not a complete FAISS index: {str(error).splitlines()[0]}") from None


def _view(flat: Any) -> Float32:
    if flat.ntotal == 0:
        return np.empty((0, flat.d), np.float32)
    values: Float32 = _faiss().rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
    return values.reshape(flat.ntotal, flat.d)


# --- proposing on a CPU -------------------------------------------------------------------------

Search = Callable[[Any, Float32, int], tuple[Float32, Rows]]


class FaissCpu:
    """An `Engine`: a pass for each query, over half precision first; or one matrix product for many."""

    backend = "faiss-cpu"

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        dim = stored.flat.d
        self._error = float32_error(dim)
        # 11 bits of each value are kept, so |q . (x - half x)| <= 2^-11 |q| |x|; what is below 2^-24 may vanish.
        self._half_error = 1.01 * (2.0**-11 + math.sqrt(dim) * 2.0**-24) + self._error

    def levels(self, queries: int, m: int, selection: Selection | None) -> list[Level]:
        if selection is None and queries >= _MANY:
            return [Level(self._error, partial(_multiplied, self._stored.flat))]
        search = _one_by_one if selection is None else partial(_selected, selection)
        levels = [Level(self._error, partial(search, self._stored.flat))]
        if self._stored.half is not None:
            levels.insert(0, Level(self._half_error, partial(_by_half, search, self._stored.half)))
        return levels


def _by_half(search: Search, half: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    return search(half, queries / np.float32(_SCALE), m)  # what `half` holds is larger by as much


def _one_by_one(index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """A pass over all rows for each query."""
    work = index.ntotal * index.sa_code_size()
    each = [_in_ranges(index, query[None], m, work, partial(_all, index.ntotal)) for query in queries]
    return np.concatenate([worst for worst, _ in each]), np.concatenate([rows for _, rows in each])


def _multiplied(index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """All queries times all rows."""
    work = index.ntotal * index.sa_code_size() * (len(queries) // _MANY)
    return _in_ranges(index, queries, m, work, partial(_all, index.ntotal))


def _selected(selection: Selection, index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """A pass over the selected rows for each query."""
    work = index.ntotal * index.sa_code_size() * len(queries)  # jumping costs as much as reading what is jumped over
    return _in_ranges(index, queries, m, work, partial(_some, selection))


def _in_ranges(
    index: Any, queries: Float32, m: int, work: int, within: Callable[[int, int], Any]
) -> tuple[Float32, Rows]:
    """All rows, cut among threads by us; FAISS passes over a range for one query, multiplies for many.

    FAISS's own parallel path for one query is slow, and its BLAS's threads spin while they wait for each other, which
    beside any other load is a hundred times slower. Ranges on one OpenMP thread each do neither.
    """
    parts = max(1, min(_threads(), work // _BYTES_PER_THREAD, index.ntotal // 8))
    edges = [*(index.ntotal * i // parts // 8 * 8 for i in range(parts)), index.ntotal]  # of whole bytes of bits
    jobs = [partial(index.search, queries, m, params=within(lo, hi)) for lo, hi in pairwise(edges)]
    answers = _together(jobs)
    if parts == 1:
        return _worst(*answers[0])
    scores = np.concatenate([s for s, _ in answers], axis=1)
    rows = np.concatenate([r for _, r in answers], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :m]  # where a range has less than m, the rest scores lowest
    return _worst(np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1))


def _all(count: int, lo: int, hi: int) -> Any:
    faiss = _faiss()
    return None if (lo, hi) == (0, count) else faiss.SearchParameters(sel=faiss.IDSelectorRange(lo, hi))


def _some(selection: Selection, lo: int, hi: int) -> Any:
    """One bit a row, tested before its vector is read: what may not answer costs nothing."""
    bits = selection.bits[: (hi + 7) // 8]
    if lo:
        bits = bits.copy()
        bits[: lo // 8] = 0
    return _faiss().SearchParameters(sel=_faiss().IDSelectorBitmap(bits))


def _worst(scores: Float32, rows: Rows) -> tuple[Float32, Rows]:
    return scores[:, -1], rows


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


# --- proposing on a GPU -------------------------------------------------------------------------


class FaissGpu:
    """An `Engine`: the vectors copied to the first GPU. Raises ConfigError where it cannot hold them."""

    backend = "faiss-gpu"

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._gpu = _on_gpu(stored.flat)
        self._error = float32_error(stored.flat.d)

    def levels(self, queries: int, m: int, selection: Selection | None) -> list[Level]:
        if m > _GPU_MAX_K:
            return []  # FAISS's limit on a GPU
        return [Level(self._error, self._search if selection is None else partial(self._gathered, selection))]

    def _search(self, queries: Float32, m: int) -> tuple[Float32, Rows]:
        return _worst(*self._gpu.search(queries, m))

    def _gathered(self, selection: Selection, queries: Float32, m: int) -> tuple[Float32, Rows]:
        # A flat GPU index takes no selector. Who asks one selection many times makes it an index of its own.
        some = _faiss().IndexFlatIP(self._stored.flat.d)
        some.add(self._stored.vectors[selection.rows])
        worst, rows = _worst(*_on_gpu(some).search(queries, m))
        return worst, selection.rows[rows]


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
