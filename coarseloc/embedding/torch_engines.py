"""Encoders run by torch: which forward, in what batches, on how many threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import torch
from torch import Tensor

from coarseloc.core.errors import BackboneError
from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.embedding import dinov3, fused_vit, kernels
from coarseloc.embedding.device import torch_threads
from coarseloc.embedding.folding import Folding
from coarseloc.embedding.loading import load_model
from coarseloc.embedding.pixels import normalise, resize
from coarseloc.embedding.weights import LocatedWeights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}  # of what is between linear maps
CPU_BATCH_TOKENS = 512  # about: two images of 224 px. More leave the cache, and gain nothing
CUDA_BATCH_TOKENS = 64 * 1029  # at most: 64 images of 512 px, 16 of 1024 px
CUDA_BATCHES = (1, 8, 64)  # a frame, a tile's headings, throughput
TRANSFORMERS_BATCH = 8


def load(
    weights: LocatedWeights, spec: EmbeddingSpec, device: torch.device, threads: int | None = None
) -> CpuEngine | CudaEngine | TransformersEngine:
    """Load the fused forward of a DINOv3 ViT, transformers' own of any other model; `threads` on a CPU, default all."""
    dtype = DTYPES[spec.precision]
    if not dinov3.is_readable(weights):
        if spec.precision == "int8":
            raise BackboneError(f"precision int8 is there for DINOv3 only, {spec.backbone} is another model: use fp32")
        return TransformersEngine(load_model(weights), spec, str(device), weights.spec.patch, dtype)
    vit = dinov3.load(weights)
    chosen = kernels.choose(device, spec.precision)
    fused = fused_vit.pack(Folding(vit.state, vit.config, spec, chosen.folds_norms), chosen, dtype, device)
    if device.type == "cuda":
        return CudaEngine(fused, spec, device)
    return CpuEngine(fused, spec, threads or torch_threads())


# --- CPU --------------------------------------------------------------------------------------------


class CpuEngine:
    """A `FusedVit` on a CPU: two Python threads with one torch thread each outrun one with two, and never wait
    for each other at a barrier when the machine is busy."""

    for_few: ClassVar[bool] = False

    def __init__(self, model: fused_vit.FusedVit, spec: EmbeddingSpec, threads: int) -> None:
        self.device = "cpu"
        self._model = model
        self._spec = spec
        self._pooled = model.pooled_forward(spec.pooling)
        self._threads = threads
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=f"embed-{spec.backbone}")

    def pooled(self, images: UInt8) -> Float32:
        return self._run(images, self._pooled)

    def patch_tokens(self, images: UInt8) -> Float32:
        return self._run(images, self._model.patch_tokens)

    def _run(self, images: UInt8, forward: Callable[[Tensor], Tensor]) -> Float32:
        size = max(1, CPU_BATCH_TOKENS // (self._spec.input_px // self._model.patch) ** 2)
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        workers = min(len(batches), self._threads)

        def run_batch(batch: UInt8) -> Tensor:
            # Acts on the calling thread alone, so each says how many it wants before it works.
            torch.set_num_threads(max(1, self._threads // workers))
            with torch.inference_mode():
                return forward(resize(batch, self._spec.input_px))

        return torch.cat(list(self._pool.map(run_batch, batches))).numpy()


# --- CUDA -------------------------------------------------------------------------------------------


class CudaEngine:
    """A `FusedVit` on a CUDA device: fixed batches, each recorded once as a CUDA graph and replayed.

    Small models are bound by the launching of kernels; a graph launches them all at once. Images travel as bytes
    and are resized on the device. Two different sizes of input are two recordings. Threads take turns: a graph has
    one set of buffers.
    """

    for_few: ClassVar[bool] = False

    def __init__(self, model: fused_vit.FusedVit, spec: EmbeddingSpec, device: torch.device) -> None:
        torch.set_float32_matmul_precision("highest")  # "fp32" is float32: TensorFloat-32 keeps 10 bits of a factor
        self.device = str(device)
        self._model = model
        self._spec = spec
        self._graphs: dict[int, _Graph] = {}
        self._turn = Lock()

    def pooled(self, images: UInt8) -> Float32:
        vectors = torch.empty(len(images), self._spec.dim, device=self.device)
        with self._turn, torch.inference_mode(), torch.cuda.device(self.device):
            start = 0
            for size in cuda_batch_sizes(len(images), self._limit):
                batch = images[start : start + size]  # the last one may be short; its graph is padded
                pixels = resize(batch, self._spec.input_px, self.device)
                vectors[start : start + len(batch)] = self._graph(size)(pixels)
                start += size
            return vectors.cpu().numpy()  # waits for the device

    def patch_tokens(self, images: UInt8) -> Float32:
        tokens = []
        with torch.inference_mode():
            for i in range(0, len(images), self._limit):
                pixels = resize(images[i : i + self._limit], self._spec.input_px, self.device)
                tokens.append(self._model.patch_tokens(pixels).cpu())
            return torch.cat(tokens).numpy()

    @property
    def _limit(self) -> int:
        """The largest batch, in images."""
        tokens = (self._spec.input_px // self._model.patch) ** 2
        return max(size for size in CUDA_BATCHES if size == 1 or size * tokens <= CUDA_BATCH_TOKENS)

    def _graph(self, size: int) -> _Graph:
        if size not in self._graphs:
            side = self._spec.input_px
            forward = self._model.pooled_forward(self._spec.pooling)
            self._graphs[size] = _Graph(forward, torch.zeros(size, 3, side, side, device=self.device))
        return self._graphs[size]


def cuda_batch_sizes(count: int, limit: int) -> list[int]:
    """Choose recorded sizes up to `limit` for `count` images, each at least half full; only the last may be short."""
    sizes = []
    while count > 0:
        sizes.append(max(size for size in CUDA_BATCHES if size == 1 or (size <= limit and size < 2 * count)))
        count -= sizes[-1]
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


# --- any other model --------------------------------------------------------------------------------


@dataclass
class TransformersEngine:
    """Any Hugging Face vision model, through its own forward, in batches. The tests' oracle of the fused forward."""

    for_few: ClassVar[bool] = False
    model: torch.nn.Module
    spec: EmbeddingSpec
    device: str
    patch: int
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device, self.dtype)

    def pooled(self, images: UInt8) -> Float32:
        return self._run(images, lambda output: _pool(output, self.spec, self.patch))

    def patch_tokens(self, images: UInt8) -> Float32:
        return self._run(images, lambda output: _patches(output.last_hidden_state, self.spec, self.patch))

    def _run(self, images: UInt8, select: Callable[[Any], Tensor]) -> Float32:
        """`select` takes the wanted tensor out of the model's output."""
        outputs = []
        with torch.inference_mode():
            for i in range(0, len(images), TRANSFORMERS_BATCH):
                pixels = resize(images[i : i + TRANSFORMERS_BATCH], self.spec.input_px, self.device)
                pixels = normalise(pixels, self.spec.mean, self.spec.std)
                outputs.append(select(self.model(pixels.to(self.dtype))).float())
            return torch.cat(outputs).cpu().numpy()


def _pool(output: Any, spec: EmbeddingSpec, patch: int) -> Tensor:
    """Pool a transformers model's output to [B, D], by the row's pooling."""
    if spec.pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise BackboneError(f"backbone {spec.backbone} has no pooler_output: set pooling to 'cls' or 'mean'")
        vectors: Tensor = output.pooler_output.flatten(1)
    elif spec.pooling == "mean":
        vectors = _patches(output.last_hidden_state, spec, patch).mean(dim=1)
    else:
        vectors = output.last_hidden_state[:, 0]
    if vectors.shape[1:] != (spec.dim,):
        raise BackboneError(
            f"backbone {spec.backbone} gave vectors of shape {list(vectors.shape[1:])}, expected [{spec.dim}]: "
            "another pooling may fit this model"
        )
    return vectors


def _patches(hidden: Tensor, spec: EmbeddingSpec, patch: int) -> Tensor:
    """Select the patch tokens [B, P, D] of the last hidden state, the class and register tokens before them cut off."""
    count = (spec.input_px // patch) ** 2
    if hidden.ndim != 3 or hidden.shape[1] < count:
        raise BackboneError(
            f"backbone {spec.backbone} gave a last hidden state of shape {list(hidden.shape)}, "
            f"expected [B, at least {count}, D]: its patch tokens cannot be told apart"
        )
    return hidden[:, -count:]
