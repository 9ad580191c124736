"""`FusedVit` on a CUDA device: fixed batches, each recorded once as a CUDA graph and replayed.

Small models are bound by the launching of kernels; a graph launches them all at once. Images travel as bytes
and are resized on the device. Two different sizes of input are two recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.embedding import fused_vit, preprocess

BATCHES = (1, 8, 64)  # a frame, a tile's headings, throughput
TOKENS = 64 * 1029  # at most, in one batch: 64 images of 512 px, 16 of 1024 px


class CudaEngine:
    """See the module. Threads take turns: a graph has one set of buffers."""

    def __init__(self, model: fused_vit.FusedVit, spec: EmbeddingSpec, device: torch.device) -> None:
        torch.set_float32_matmul_precision("highest")  # "fp32" is float32: TensorFloat-32 keeps 10 bits of a factor
        self.device = device
        self._model = model
        self._spec = spec
        self._graphs: dict[int, _Graph] = {}
        self._turn = Lock()

    def pooled(self, images: UInt8) -> Float32:
        out = torch.empty(len(images), self._spec.dim, device=self.device)
        with self._turn, torch.inference_mode(), torch.cuda.device(self.device):
            start = 0
            for size in batch_sizes(len(images), self._limit):
                batch = images[start : start + size]  # the last one may be short; its graph is padded
                pixels = preprocess.resized(batch, self._spec.input_px, self.device)
                out[start : start + len(batch)] = self._graph(size)(pixels)
                start += size
            return out.cpu().numpy()  # waits for the device

    def patch_tokens(self, images: UInt8) -> Float32:
        parts = []
        with torch.inference_mode():
            for i in range(0, len(images), self._limit):
                pixels = preprocess.resized(images[i : i + self._limit], self._spec.input_px, self.device)
                parts.append(self._model.patch_tokens(pixels).cpu())
            return torch.cat(parts).numpy()

    @property
    def _limit(self) -> int:
        tokens = (self._spec.input_px // self._model.patch) ** 2
        return max(size for size in BATCHES if size == 1 or size * tokens <= TOKENS)

    def _graph(self, size: int) -> _Graph:
        if size not in self._graphs:
            side = self._spec.input_px
            forward = self._model.pooled_by(self._spec.pooling)
            self._graphs[size] = _Graph(forward, torch.zeros(size, 3, side, side, device=self.device))
        return self._graphs[size]


def batch_sizes(n: int, limit: int) -> list[int]:
    """Recorded sizes up to `limit` that hold `n` images, each at least half full; only the last may be short."""
    sizes = []
    while n > 0:
        sizes.append(max(size for size in BATCHES if size == 1 or (size <= limit and size < 2 * n)))
        n -= sizes[-1]
    return sizes


class _Graph:
    """A forward recorded at one batch size."""

    def __init__(self, forward: Callable[[Tensor], Tensor], example: Tensor) -> None:
        self._input = example
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # a recording needs libraries initialised and buffers allocated
            for _ in range(3):
                forward(self._input)
        torch.cuda.current_stream().wait_stream(stream)
        self._recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._recording):
            self._output = forward(self._input)

    def __call__(self, pixels: Tensor) -> Tensor:
        """[b, 3, S, S] with b up to the recorded size → float32 [b, D], valid until the next call."""
        self._input[: len(pixels)].copy_(pixels)
        self._recording.replay()
        return self._output[: len(pixels)]
