"""Small maps that no two places of look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import write_rgb

CENTER = LonLat(129.0, 37.5)


def textured_map(path: Path, seed: int, center: LonLat = CENTER) -> Path:
    """A map of 1 x 1 km at 2.5 m a pixel: blotches of many sizes, no two places alike."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((400, 400, 3))
    for side in (10, 25, 80, 200):
        coarse = Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8))
        pixels += np.asarray(coarse.resize((400, 400), Image.Resampling.BICUBIC), float) / 4
    image = Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    return write_rgb(path, np.asarray(image), center=center, gsd_m=2.5)
