"""JPEG tiles that cost what aerial pictures cost to decode: noise at every scale, fine detail weakest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from coarseloc.core.types import UInt8

QUALITY = 92  # a megabyte for about 1500 x 1500 px, as cameras write


def picture(side: int, seed: int) -> UInt8:
    """uint8 [side, side, 3]."""
    rng = np.random.default_rng(seed)
    total = np.full((side, side, 3), 128.0, np.float32)
    cells = 4
    while cells <= side // 2:
        rough = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += (np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC), np.float32) - 128) * cells**-0.4
        cells *= 2
    return total.clip(0, 255).astype(np.uint8)


def write_tiles(folder: Path, count: int, side: int) -> list[Path]:
    """`count` pictures as JPEG files."""
    folder.mkdir(parents=True)
    paths = [folder / f"{i:04d}.jpg" for i in range(count)]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(side, seed)).save(path, quality=QUALITY)
    return paths
