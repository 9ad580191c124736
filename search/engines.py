"""The engines of exact search beside FAISS on a CPU: FAISS on a GPU, and the plain products of torch and numpy."""

from __future__ import annotations

import math
import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coarseloc.core.errors import ConfigError
from coarseloc.core.types import Float32
from search.faiss_vectors import FaissVectors, library
from search.neighbors import SPARE, Pass, Rows, Selection, float32_error, spare_rows, stack_answers

if TYPE_CHECKING:
    from torch import Tensor

_GPU_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")  # NVIDIA's, a Jetson's, WSL's, AMD's
_GPU_MAX_K = 2048
_PRODUCT_SCORES = 2**28  # in memory at a time: 1 GiB
_TORCH_COPIED = 2**16  # rows copied to the device at a time

# --- on a GPU, by FAISS -------------------------------------------------------------------------------------


class FaissGpu:
    """A `CandidateEngine`: the vectors copied to the first GPU. Raises ConfigError where it cannot hold them."""

    backend = "faiss-gpu"

    def __init__(self, stored: FaissVectors) -> None:
        self._stored = stored
        self._gpu = _copy_to_gpu(stored.flat)
        self._error = float32_error(stored.flat.d)

    def passes(self, k: int, selection: Selection | None) -> list[Pass]:
        if k + SPARE > _GPU_MAX_K:
            return []  # FAISS's limit on a GPU
        search = self._search if selection is None else partial(self._search_selection, selection)
        return [Pass(self._error, search, SPARE)]

    def _search(self, queries: Float32, m: int) -> tuple[Float32, Rows]:
        answer: tuple[Float32, Rows] = self._gpu.search(queries, m)  # a flat GPU index takes no parameters
        return answer

    def _search_selection(self, selection: Selection, queries: Float32, m: int) -> tuple[Float32, Rows]:
        # A flat GPU index takes no selector. For many searches of one selection, see `ExactIndex.subset`.
        subset = library().IndexFlatIP(self._stored.flat.d)
        subset.add(self._stored.vectors[selection.rows])
        scores, rows = _copy_to_gpu(subset).search(queries, m)
        return scores, selection.rows[rows]


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


# --- one product in true float32 and a top-k: by torch, on a GPU or not, and by numpy ---------------------------


def count_torch_gpus() -> int:
    """Count the GPUs that torch can use; where Linux shows no such device, without the seconds of torch's import."""
    if sys.platform == "linux" and not _has_gpu_devices():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_gpu_devices() -> bool:
    return any(True for name in _GPU_DEVICES for _ in Path("/dev").glob(name))


class Torch:
    """A `CandidateEngine`: the vectors copied to a device. Raises ConfigError where a GPU cannot hold them."""

    def __init__(self, vectors: Float32, device: str) -> None:
        """vectors: float32 [N, D], unit norm. device: any of torch's."""
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

    def passes(self, k: int, selection: Selection | None) -> list[Pass]:
        return [Pass(self._error, partial(self._candidates, selection), SPARE)]

    def _candidates(self, selection: Selection | None, queries: Float32, m: int) -> tuple[Float32, Rows]:
        import torch

        with torch.inference_mode():
            excluded = None if selection is None else torch.from_numpy(~selection.mask).to(self._device)
            batch = max(1, _PRODUCT_SCORES // len(self._vectors))
            parts = [self._best(part, m, excluded) for part in torch.split(torch.from_numpy(queries), batch)]
            scores, rows = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        return scores, rows

    def _best(self, queries: Tensor, m: int, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = queries.to(self._device) @ self._vectors.T
        if excluded is not None:
            scores.masked_fill_(excluded, -math.inf)
        best = scores.topk(m)
        return best.values, best.indices


class Numpy:
    """A `CandidateEngine`: numpy's own matrix product, with the threads of its BLAS."""

    backend = "numpy"

    def __init__(self, vectors: Float32) -> None:
        """vectors: float32 [N, D], unit norm, copied where they are not aligned: numpy would copy them each time."""
        self._vectors = np.require(vectors, requirements=["A", "C"])
        self._error = float32_error(vectors.shape[1])

    def passes(self, k: int, selection: Selection | None) -> list[Pass]:
        return [Pass(self._error, partial(self._candidates, selection), spare_rows(len(self._vectors)))]

    def _candidates(self, selection: Selection | None, queries: Float32, m: int) -> tuple[Float32, Rows]:
        batch = max(1, _PRODUCT_SCORES // len(self._vectors))
        parts = (queries[i : i + batch] for i in range(0, len(queries), batch))
        return stack_answers([self._best(part, m, selection) for part in parts])

    def _best(self, queries: Float32, m: int, selection: Selection | None) -> tuple[Float32, Rows]:
        scores = queries @ self._vectors.T
        if selection is not None:
            scores[:, ~selection.mask] = -np.inf
        rows = np.argpartition(scores, scores.shape[1] - m, axis=1)[:, -m:]
        proposed = np.take_along_axis(scores, rows, 1)
        order = np.argsort(-proposed, axis=1)
        return np.take_along_axis(proposed, order, 1), np.take_along_axis(rows, order, 1)
