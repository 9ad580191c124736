"""The engines of exact search: the fastest ways to have FAISS propose rows, on a CPU and on a GPU, or torch on a GPU.

Two facts set the pace of one query on a CPU: it costs what reading the vectors costs, and FAISS's own parallel path
for one query is slow. So a copy in half precision, which is half the bytes, is searched first, and the rows are divided
among threads here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from coarseloc.core.errors import ConfigError
from coarseloc.core.types import Float32
from search.faiss_vectors import SCALE, FaissVectors, library
from search.neighbors import Pass, Rows, Selection, float32_error

if TYPE_CHECKING:
    from torch import Tensor

_MATRIX_FROM = 8  # queries from which one matrix product beats one pass for each
_BYTES_PER_THREAD = 25_000_000  # read, or eight queries' products: less does not pay for waking a thread
_MAX_THREADS = 8  # memory bandwidth is used up before
_GPU_MAX_K = 2048
_TORCH_SCORES = 2**28  # in memory at a time: 1 GiB
_TORCH_COPIED = 2**16  # rows copied to the device at a time

Search = Callable[[Any, Float32, int], tuple[Float32, Rows]]


class FaissCpu:
    """A `CandidateEngine`: a pass for each query, over half precision first; or one matrix product for many."""

    backend = "faiss-cpu"

    def __init__(self, stored: FaissVectors) -> None:
        self._stored = stored
        dim = stored.flat.d
        self._error = float32_error(dim)
        # 11 bits of each value are kept, so |q . (x - half x)| <= 2^-11 |q| |x|; what is below 2^-24 may vanish.
        self._half_error = 1.01 * (2.0**-11 + math.sqrt(dim) * 2.0**-24) + self._error

    def passes(self, queries: int, m: int, selection: Selection | None) -> list[Pass]:
        if selection is None and queries >= _MATRIX_FROM:
            return [Pass(self._error, partial(_multiply, self._stored.flat))]
        search = _scan if selection is None else partial(_scan_selection, selection)
        passes = [Pass(self._error, partial(search, self._stored.flat))]
        if self._stored.half is not None:
            passes.insert(0, Pass(self._half_error, partial(_search_half, search, self._stored.half)))
        return passes


def _search_half(search: Search, half: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    return search(half, queries / np.float32(SCALE), m)  # what `half` holds is larger by as much


def _scan(index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """Read all rows once for each query."""
    work = index.ntotal * index.sa_code_size()
    answers = [
        _search_ranges(index, query[None], m, work, partial(_range_parameters, index.ntotal)) for query in queries
    ]
    return np.concatenate([scores for scores, _ in answers]), np.concatenate([rows for _, rows in answers])


def _multiply(index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """Multiply all queries by all rows."""
    work = index.ntotal * index.sa_code_size() * (len(queries) // _MATRIX_FROM)
    return _search_ranges(index, queries, m, work, partial(_range_parameters, index.ntotal))


def _scan_selection(selection: Selection, index: Any, queries: Float32, m: int) -> tuple[Float32, Rows]:
    """Read the selected rows once for each query."""
    work = index.ntotal * index.sa_code_size() * len(queries)  # jumping costs as much as reading what is jumped over
    return _search_ranges(index, queries, m, work, partial(_selection_parameters, selection))


def _search_ranges(
    index: Any, queries: Float32, m: int, work: int, parameters: Callable[[int, int], Any]
) -> tuple[Float32, Rows]:
    """Search ranges of rows on threads of our own; FAISS scans a range for one query, multiplies for several.

    work: bytes to read in all. parameters: (first row, last row + 1) → FAISS's parameters for that range.

    FAISS's own parallel path for one query is slow, and its BLAS's threads spin while they wait for each other, which
    beside any other load is a hundred times slower. Ranges on one OpenMP thread each do neither.
    """
    parts = max(1, min(max_threads(), work // _BYTES_PER_THREAD, index.ntotal // 8))
    edges = [*(index.ntotal * i // parts // 8 * 8 for i in range(parts)), index.ntotal]  # of whole bytes of bits
    jobs = [partial(index.search, queries, m, params=parameters(lo, hi)) for lo, hi in pairwise(edges)]
    answers = _run_parallel(jobs)
    if parts == 1:
        ((scores, rows),) = answers
    else:
        all_scores, all_rows = (np.concatenate(arrays, axis=1) for arrays in zip(*answers, strict=True))
        best = np.argsort(-all_scores, axis=1, kind="stable")[
            :, :m
        ]  # a range of less than m rows fills up with the lowest
        scores, rows = np.take_along_axis(all_scores, best, 1), np.take_along_axis(all_rows, best, 1)
    return scores[:, -1], rows


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
    futures = [_pool().submit(job) for job in jobs[1:]]
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


# --- on a GPU, by FAISS -------------------------------------------------------------------------------------


class FaissGpu:
    """A `CandidateEngine`: the vectors copied to the first GPU. Raises ConfigError where it cannot hold them."""

    backend = "faiss-gpu"

    def __init__(self, stored: FaissVectors) -> None:
        self._stored = stored
        self._gpu = _copy_to_gpu(stored.flat)
        self._error = float32_error(stored.flat.d)

    def passes(self, queries: int, m: int, selection: Selection | None) -> list[Pass]:
        if m > _GPU_MAX_K:
            return []  # FAISS's limit on a GPU
        return [Pass(self._error, self._search if selection is None else partial(self._search_selection, selection))]

    def _search(self, queries: Float32, m: int) -> tuple[Float32, Rows]:
        scores, rows = self._gpu.search(queries, m)
        return scores[:, -1], rows

    def _search_selection(self, selection: Selection, queries: Float32, m: int) -> tuple[Float32, Rows]:
        # A flat GPU index takes no selector. For many searches of one selection, see `ExactIndex.subset`.
        subset = library().IndexFlatIP(self._stored.flat.d)
        subset.add(self._stored.vectors[selection.rows])
        scores, rows = _copy_to_gpu(subset).search(queries, m)
        return scores[:, -1], selection.rows[rows]


def _copy_to_gpu(flat: Any) -> Any:
    faiss = library()
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
    return library().StandardGpuResources()  # one for all: each takes its own scratch memory on the GPU


# --- on a GPU, by torch: one product in true float32 and a top-k, where FAISS has no GPU of its own ----


def count_torch_gpus() -> int:
    """Count the GPUs that torch can use."""
    import torch  # heavy; the program that embeds has it already

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class TorchGpu:
    """A `CandidateEngine`: the vectors copied to a device. Raises ConfigError where it cannot hold them."""

    def __init__(self, vectors: Float32, device: str = "cuda") -> None:
        """vectors: float32 [N, D], unit norm. device: any of torch's, so that it can be tried without a GPU."""
        import torch

        torch.set_float32_matmul_precision("highest")  # TensorFloat-32 keeps 10 bits of a factor
        self.backend = f"torch-{torch.device(device).type}"
        self._device = torch.device(device)
        try:
            self._vectors = torch.empty(vectors.shape, device=self._device)
            for i in range(0, len(vectors), _TORCH_COPIED):
                self._vectors[i : i + _TORCH_COPIED] = torch.from_numpy(np.array(vectors[i : i + _TORCH_COPIED]))
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"the GPU cannot hold {vectors.shape[0]} x {vectors.shape[1]} vectors: free its memory, or set "
                "CUDA_VISIBLE_DEVICES= to search on the CPU"
            ) from None
        self._error = float32_error(vectors.shape[1])

    def passes(self, queries: int, m: int, selection: Selection | None) -> list[Pass]:
        return [Pass(self._error, partial(self._candidates, selection))]

    def _candidates(self, selection: Selection | None, queries: Float32, m: int) -> tuple[Float32, Rows]:
        import torch

        with torch.inference_mode():
            excluded = None if selection is None else torch.from_numpy(~selection.mask).to(self._device)
            batch = max(1, _TORCH_SCORES // len(self._vectors))
            parts = [self._best(part, m, excluded) for part in torch.split(torch.from_numpy(queries), batch)]
            scores, rows = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        return scores[:, -1], rows

    def _best(self, queries: Tensor, m: int, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = queries.to(self._device) @ self._vectors.T
        if excluded is not None:
            scores.masked_fill_(excluded, -math.inf)
        best = scores.topk(m)
        return best.values, best.indices
