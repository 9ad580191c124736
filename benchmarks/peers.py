"""How the same work is done elsewhere: loops that users write, in the form in which they write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset

from benchmarks import machine
from benchmarks.notebook import Forward, Processor
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Float32, UInt8

BATCH_TILES = 2  # 16 views: the same as coarseloc's pipeline hands over at once


# --- pictures -----------------------------------------------------------------------------------


def eight_rotations(picture: Image.Image) -> list[Image.Image]:
    """Pillow turns counter-clockwise, so that the upper edge then faces the heading."""
    return [picture.rotate(angle, Image.Resampling.BICUBIC) for angle in HEADINGS]


def eight_rotations_cut(picture: Image.Image, side: int) -> list[UInt8]:
    """The same of a larger window, cut to its middle, so that corners hold ground."""
    margin = (picture.width - side) // 2
    box = (margin, margin, margin + side, margin + side)
    return [np.array(turned.crop(box)) for turned in eight_rotations(picture)]


# --- embedding tiles ----------------------------------------------------------------------------


def naive_loop(tiles: Sequence[Sequence[Path]], process: Processor, forward: Forward) -> Float32:
    """A notebook's loop: one image at a time. tiles: each one's files, already turned. → float32 [8 · tiles, D]."""
    with _inference():
        vectors = [normalize(forward(_read(path, process)[None])).numpy() for paths in tiles for path in paths]
    return np.concatenate(vectors)


def batched_loop(tiles: Sequence[Sequence[Path]], process: Processor, forward: Forward) -> Float32:
    """The same with a tile's headings as one batch."""
    with _inference():
        batches = (torch.stack([_read(path, process) for path in paths]) for paths in tiles)
        return np.concatenate([normalize(forward(batch)).numpy() for batch in batches])


def _read(path: Path, process: Processor) -> Tensor:
    return process(Image.open(path).convert("RGB"))


class Tiles(Dataset[Tensor]):
    """A tile's eight pictures, ready for the model: what a DataLoader's workers make."""

    def __init__(self, tiles: Sequence[Sequence[Path]], process: Processor) -> None:
        self._tiles, self._process = tiles, process

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, i: int) -> Tensor:
        return torch.stack([_read(path, self._process) for path in self._tiles[i]])


def dataloader(tiles: Sequence[Sequence[Path]], process: Processor) -> DataLoader[Tensor]:
    """In the manner of clip-retrieval: processes read and prepare, batches are embedded as they come.

    The workers are started at its first use and then kept, which is kind to it: clip-retrieval starts them for
    every run.
    """
    workers = machine.cores()
    return DataLoader(Tiles(tiles, process), batch_size=BATCH_TILES, num_workers=workers, persistent_workers=True)


def dataloader_loop(loader: DataLoader[Tensor], forward: Forward) -> Float32:
    with _inference():
        return np.concatenate([normalize(forward(batch.flatten(0, 1))).numpy() for batch in loader])


# --- one frame ----------------------------------------------------------------------------------


def notebook_frame(path: Path, process: Processor, forward: Forward, search: Callable[[Float32], Any]) -> Any:
    """Open, processor, model, normalise, search."""
    with _inference():
        vector = normalize(forward(process(Image.open(path).convert("RGB"))[None])).numpy()
    return search(vector)


@contextmanager
def _inference() -> Iterator[None]:
    """No gradients, and all cores: torch's number of threads belongs to the calling thread."""
    torch.set_num_threads(machine.cores())
    with torch.inference_mode():
        yield
