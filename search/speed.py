"""How fast backbones are on this device: one table row for each backbone and input size."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coarseloc.core.config import Settings
from coarseloc.core.errors import WeightsError
from coarseloc.core.types import Backbone, Float32, RankedTile
from coarseloc.embedding import specs
from coarseloc.embedding.device import peak_memory, resolve_device
from coarseloc.embedding.encoders import Encoders
from coarseloc.embedding.random_weights import write_random_weights
from coarseloc.localize.localizer import decode, localize
from search.environment import WARM_UP
from search.exact_index import ExactIndex

INPUT_SIZES = (224, 336, 512, 768, 1024)
IMAGE_PX = 1024  # of the users' own frames
_SEED = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over single frames after a warm-up, in milliseconds; total = embed + search, as in every run."""

    backbone: str
    input_px: int
    precision: str
    device: str
    backend: str
    decode_ms: float
    embed_ms: float
    search_ms: float
    total_ms: float
    images_per_s: float  # embedded and searched in batches, without decoding
    memory_mib: float | None  # the peak, of the GPU or of the process; None where unknown


@dataclass(frozen=True, slots=True)
class RandomTiles:
    """A `TileIndex` of random unit vectors: a search costs the same whatever the vectors are."""

    index: ExactIndex
    headings: int = 8

    @classmethod
    def of_size(cls, count: int, dim: int) -> RandomTiles:
        return cls(ExactIndex.of(unit_vectors(count, dim, _SEED)))

    def search(self, queries: Float32, k: int) -> tuple[Float32, NDArray[Any]]:
        """See `TileIndex`."""
        return self.index.search(queries, k)

    def tiles(self, scores: Float32, keys: NDArray[Any]) -> list[RankedTile]:
        """Return no tiles: random vectors stand for none."""
        return []


def unit_vectors(count: int, dim: int, seed: int = 0) -> Float32:
    """Random float32 [count, dim] of unit norm."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim), np.float32)
    for rows in np.array_split(vectors, max(1, count // 10_000)):  # in pieces: a million rows have large temporaries
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def measure_backbones(
    settings: Settings,
    names: Sequence[str],
    *,
    input_sizes: Sequence[int],
    images: Sequence[Path],
    frames: int,
    random_weights: bool,
    device: str,
    precision: str | None,
    measure: Callable[[Backbone, Sequence[Path]], dict[str, Any]],
) -> Iterator[Speed]:
    """Yield a row for each backbone and input size as soon as it is measured.

    A backbone's sizes are checked before it is measured. Raises WeightsError (no weights, without `random_weights`) and
    BackboneError (unknown name, device or precision, a size that is no multiple of the patch).
    """
    device = str(resolve_device(device))
    with TemporaryDirectory(prefix="coarseloc-bench-") as scratch:
        images = images[:frames] or write_images(Path(scratch), frames, IMAGE_PX)
        if random_weights:
            settings = settings.model_copy(update={"weights_dir": Path(scratch)})
            rows = [specs.row(name) for name in names] or [row for row in specs.BACKBONES.values() if row.is_dinov3]
            names = [row.name for row in rows]
        else:
            try:
                names = [spec.backbone for spec in Encoders(settings, device, precision).specs(names)]
            except WeightsError as error:
                raise WeightsError(f"{error}; `--random-weights` measures the six without theirs") from None
        for name in names:
            folder = Path(scratch) / name
            if random_weights:
                write_random_weights(specs.row(name), folder)
            encoders = Encoders(settings, device, precision)
            for spec in [encoders.spec(name, input_px) for input_px in input_sizes]:
                with peak_memory(device) as peak:
                    encoder = encoders.load(spec)
                    figures = measure(encoder, images)
                yield Speed(name, spec.input_px, spec.precision, device, memory_mib=peak.mib, **figures)
                del encoder
            shutil.rmtree(folder, ignore_errors=True)


def measure_encoder(
    encoder: Backbone, images: Sequence[Path], *, references: int, k: int, batch: int
) -> dict[str, Any]:
    """Run the recipe of a flight's search over image files: the fields of `Speed` that are times, rates and backend.

    Single frames give the medians; then batches of up to `batch` frames of equal size give the rate.
    references: rotated tiles that are searched, random vectors of the encoder's dimension.
    """
    tiles = RandomTiles.of_size(references, encoder.spec.dim)
    frames = [decode(path) for path in images]
    for _ in range(WARM_UP):
        localize(frames[:1], encoder, [tiles], k)
    timings = [localize([frame], encoder, [tiles], k)[0][0].timing for frame in frames]
    repeated = [frames[i % len(frames)] for i in range(batch)]
    same_size = [frame for frame in repeated if frame.pixels.shape == frames[0].pixels.shape]
    localize(same_size, encoder, [tiles], k)
    started, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - started < 1.0:
        localize(same_size, encoder, [tiles], k)
        rounds += 1
    seconds = time.perf_counter() - started
    medians = {
        f"{stage}_ms": float(np.median([getattr(timing, f"{stage}_ms") for timing in timings]))
        for stage in ("decode", "embed", "search", "total")
    }
    return {"backend": tiles.index.backend(), "images_per_s": rounds * len(same_size) / seconds, **medians}


def write_images(folder: Path, count: int, side_px: int) -> list[Path]:
    """JPEG files of smooth noise, which decode as slowly as photographs of their size."""
    generator = np.random.default_rng(_SEED)
    paths = [folder / f"{i:05d}.jpg" for i in range(count)]
    for path in paths:
        coarse = Image.fromarray(generator.integers(0, 256, (side_px // 4, side_px // 4, 3), np.uint8))
        coarse.resize((side_px, side_px), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths
