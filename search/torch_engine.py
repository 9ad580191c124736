"""torch on a GPU: one product in true float32 and a top-k, where FAISS has no GPU of its own."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from coarseloc.core.errors import ConfigError
from coarseloc.core.types import Float32
from search.neighbors import Level, Rows, Selection, float32_error

_SCORES = 2**28  # held at once: 1 GiB
_COPIED = 2**16  # rows copied to the device at a time


def gpus() -> int:
    """How many torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class TorchGpu:
    """An `Engine`: the vectors copied to a device. Raises ConfigError where it cannot hold them."""

    def __init__(self, vectors: Float32, device: str = "cuda") -> None:
        """vectors: float32 [N, D], unit norm. device: any of torch's, so that it can be tried without a GPU."""
        torch.set_float32_matmul_precision("highest")  # TensorFloat-32 keeps 10 bits of a factor
        self.backend = f"torch-{torch.device(device).type}"
        self._device = torch.device(device)
        try:
            self._vectors = torch.empty(vectors.shape, device=self._device)
            for i in range(0, len(vectors), _COPIED):
                self._vectors[i : i + _COPIED] = torch.from_numpy(np.array(vectors[i : i + _COPIED]))
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"the GPU cannot hold {vectors.shape[0]} x {vectors.shape[1]} vectors: free its memory, or set "
                "CUDA_VISIBLE_DEVICES= to search on the CPU"
            ) from None
        self._error = float32_error(vectors.shape[1])

    def levels(self, queries: int, m: int, selection: Selection | None) -> list[Level]:
        return [Level(self._error, partial(self._propose, selection))]

    def _propose(self, selection: Selection | None, queries: Float32, m: int) -> tuple[Float32, Rows]:
        with torch.inference_mode():
            barred = None if selection is None else torch.from_numpy(~selection.mask).to(self._device)
            together = max(1, _SCORES // len(self._vectors))
            parts = [self._best(part, m, barred) for part in torch.split(torch.from_numpy(queries), together)]
            scores, rows = (torch.cat(some).cpu().numpy() for some in zip(*parts, strict=True))
        return scores[:, -1], rows

    def _best(self, queries: Tensor, m: int, barred: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = queries.to(self._device) @ self._vectors.T
        if barred is not None:
            scores.masked_fill_(barred, -torch.inf)
        found = scores.topk(m)
        return found.values, found.indices
