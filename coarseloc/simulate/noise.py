"""Smooth random fields. Pure numpy and Pillow; lengths in metres, so that a finer raster shows the same land."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Float = NDArray[np.float32]


def value_noise(rng: Generator, shape: tuple[int, int], gsd_m: float, wavelength_m: float) -> Float:
    """Bicubic noise float32 [H, W], zero mean and unit variance, with features of about `wavelength_m`."""
    height, width = shape
    cells = [math.ceil(side * gsd_m / wavelength_m) + 4 for side in (width, height)]
    grid = Image.fromarray(rng.standard_normal((cells[1], cells[0])).astype(np.float32))
    # One cell of margin on each side keeps the resampling filter away from the grid's border.
    box = (1.0, 1.0, 1.0 + width * gsd_m / wavelength_m, 1.0 + height * gsd_m / wavelength_m)
    field: Float = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC, box=box), np.float32)
    return field / np.float32(0.7)  # bicubic interpolation keeps about half of the variance


def fbm(
    rng: Generator, shape: tuple[int, int], gsd_m: float, wavelength_m: float, octaves: int, gain: float = 0.5
) -> Float:
    """Fractal sum of `octaves` noises, each of half the wavelength and `gain` times the height of the one
    before; float32 [H, W], about zero mean and unit variance. Octaves finer than two pixels add nothing
    but are drawn, so that one seed gives one land at every `gsd_m`."""
    total = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        amplitude = gain**octave
        field = value_noise(rng, shape, gsd_m, wavelength_m / 2**octave)
        total += np.float32(amplitude) * field
        power += amplitude**2
    return total / np.float32(math.sqrt(power))
