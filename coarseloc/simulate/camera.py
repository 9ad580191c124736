"""A camera fixed under an aircraft: which ground it sees, and how its pictures differ from the map's. Pure.

`pitch` is nose up, `roll` right wing down, both 0 in level flight, when the camera looks straight down with
the heading at its upper edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from coarseloc.core.types import UInt8

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Changes:
    """How much frames differ from the map: standard deviations over a flight, except `season` and `blur_px`."""

    tilt_deg: float = 1.5
    altitude: float = 0.04  # relative
    light: float = 0.10  # of brightness and contrast, relative
    season: float = 0.5  # 0 is the map's own; 1 is fully another season, the same over the flight
    blur_px: float = 0.8  # at most; at a side of 512 pixels, in proportion at others
    noise: float = 3.0  # grey levels

    @classmethod
    def none(cls) -> Changes:
        """Frames exactly as a reference would be cut."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def ground_homography(pitch_deg: float, roll_deg: float, half_fov_tan: float, altitude_m: float) -> Float64:
    """[3, 3], from homogeneous image coordinates (u right, v down, each -1 at one edge and 1 at the other)
    to metres on flat ground (right, forward) of the point under the aircraft.

    A pixel's ray (u t, -v t, 1), as right, forward, down, is turned by roll about forward, then by pitch
    about right, and meets the ground where its downward part has come to `altitude_m`.
    """
    p, r = math.radians(pitch_deg), math.radians(roll_deg)
    rays = np.diag([half_fov_tan, -half_fov_tan, 1.0])
    roll = np.array([[math.cos(r), 0, -math.sin(r)], [0, 1, 0], [math.sin(r), 0, math.cos(r)]])
    pitch = np.array([[1, 0, 0], [0, math.cos(p), math.sin(p)], [0, -math.sin(p), math.cos(p)]])
    meet: Float64 = np.diag([altitude_m, altitude_m, 1.0]) @ pitch @ roll @ rays
    return meet


def reach(to_ground: Float64) -> float:
    """Return half the side, in metres, of the square about the aircraft that holds all the camera sees."""
    corners = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]], float)
    x, y, w = to_ground @ corners
    return float(np.abs([x / w, y / w]).max())


def photograph(ground: UInt8, ground_half_m: float, to_ground: Float64, side_px: int) -> UInt8:
    """Take the picture uint8 [side, side, 3] of `ground`: a square of 2 `ground_half_m`
    metres about the aircraft, its upper edge forward."""
    scale = ground.shape[0] / 2
    to_pixels = np.array([[scale / ground_half_m, 0, scale], [0, -scale / ground_half_m, scale], [0, 0, 1]])
    from_frame = np.array([[2 / side_px, 0, -1], [0, 2 / side_px, -1], [0, 0, 1]])
    h = to_pixels @ to_ground @ from_frame
    data = (h / h[2, 2]).ravel()[:8].tolist()
    size = (side_px, side_px)
    picture = Image.fromarray(ground).transform(size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def season_matrix(rng: Generator, strength: float) -> Float64:
    """Draw a flight's affine change of colour, [3, 4]: greens to straw, a cast of light."""
    straw = np.array([[0.85, 0.35, -0.05], [0.25, 0.75, 0.0], [0.10, 0.15, 0.65]])
    turned = straw if rng.random() < 0.5 else np.array([[0.75, 0.1, 0.0], [0.0, 1.1, 0.0], [0.05, 0.15, 0.85]])
    mixing = np.eye(3) + strength * (turned - np.eye(3) + 0.05 * rng.standard_normal((3, 3)))
    return np.hstack([mixing, strength * 12 * rng.standard_normal((3, 1))])


def develop(picture: UInt8, rng: Generator, changes: Changes, season: Float64) -> UInt8:
    """Apply season, uneven light, blur and noise to a picture, as its camera would write it."""
    values = picture @ season[:, :3].T + season[:, 3]
    contrast, light = np.exp(changes.light * rng.standard_normal(2))
    slope = changes.light * rng.normal(0, 0.5, 2)
    side = picture.shape[0]
    across, down = np.linspace(-1, 1, side), np.linspace(-1, 1, side)[:, None]
    values = (values - 110) * contrast + 110 * light * (1 + slope[0] * across + slope[1] * down)[..., None]
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1) * changes.blur_px * side / 512))
    noisy = np.asarray(image, np.float64) + changes.noise * rng.standard_normal(picture.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)
