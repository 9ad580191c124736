"""Training pictures of the demo backbone: generated areas, poses on them, and how pictures of one place differ.

Every draw comes from a generator given by the caller, so that step n of a run is the same pictures always.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as nnf

from coarseloc.simulate.terrain import render_area

AREA_M, GSD_M, SEASONS = 2400.0, 2.5, 2
AREA_STYLES = ("mixed", "farmland", "city", "farmland", "suburb", "forest", "coast", "mixed")


@dataclass(frozen=True, slots=True)
class Area:
    """One generated land in several seasons; each season a list of ever coarser float [1, 3, H, W] in 0..1."""

    number: int
    seasons: tuple[tuple[Tensor, ...], ...]


def render_pyramids(number: int, seed: int) -> Area:
    """Area `number` of the endless row that `seed` names."""
    style = AREA_STYLES[number % len(AREA_STYLES)]
    seasons = []
    for season in range(SEASONS):
        pixels = render_area(seed + number, AREA_M, AREA_M, GSD_M, style, season)
        fine = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        seasons.append((fine, nnf.avg_pool2d(fine, 2), nnf.avg_pool2d(fine, 4)))
    return Area(number, tuple(seasons))


class Pool:
    """A window on the row of areas: `size` at a time, the oldest replaced each `refresh_steps`."""

    def __init__(self, seed: int, size: int, refresh_steps: int) -> None:
        self.seed, self.size, self.refresh_steps = seed, size, refresh_steps
        self.areas: deque[Area] = deque(maxlen=size)

    def at(self, step: int) -> deque[Area]:
        first = step // self.refresh_steps
        following = self.areas[-1].number + 1 if self.areas else first
        for number in range(max(following, first), first + self.size):
            self.areas.append(render_pyramids(number, self.seed))
        return self.areas


@dataclass(frozen=True, slots=True)
class Poses:
    """Where N square pictures lie on one area: all float64 [N], metres from its north-west corner, radians."""

    east: np.ndarray
    south: np.ndarray
    heading: np.ndarray
    footprint_m: float


def draw_poses(rng: Generator, clusters: int, footprint_m: float) -> tuple[Poses, Poses]:
    """References and a query for each, [4 x clusters].

    A cluster is what retrieval has to tell apart: a place and its neighbour half a footprint away, each at
    two neighbouring headings. A query lies where its reference is the nearest: within a quarter of a
    footprint along each axis, and 22.5 degrees.
    """
    margin = 0.5 * footprint_m
    east, south = rng.uniform(margin, AREA_M - margin, (2, clusters))
    side = rng.integers(4, size=clusters) * (math.pi / 2)
    heading, turn = rng.uniform(0, 2 * math.pi, clusters), rng.choice([-1, 1], clusters) * (math.pi / 4)
    neighbour = np.array([0, 0, 1, 1])[:, None] * 0.5 * footprint_m
    reference = Poses(
        (east + neighbour * np.cos(side)).ravel(),
        (south + neighbour * np.sin(side)).ravel(),
        (heading + np.array([0, 1, 0, 1])[:, None] * turn).ravel(),
        footprint_m,
    )
    shift = rng.uniform(-0.25, 0.25, (2, 4 * clusters)) * footprint_m
    yaw = rng.uniform(-math.pi / 8, math.pi / 8, 4 * clusters)
    query = Poses(reference.east + shift[0], reference.south + shift[1], reference.heading + yaw, footprint_m)
    return reference, query


def pose_distance(query: Poses, reference: Poses) -> np.ndarray:
    """float64 [Q, R]: 1 at the border between two tiles of a grid, or between two headings."""
    east = query.east[:, None] - reference.east
    south = query.south[:, None] - reference.south
    turn = np.angle(np.exp(1j * (query.heading[:, None] - reference.heading)))
    bins = (east**2 + south**2) / (0.25 * query.footprint_m) ** 2 + (turn / (math.pi / 8)) ** 2
    distance: np.ndarray = np.sqrt(bins)
    return distance


def cut(pyramid: tuple[Tensor, ...], poses: Poses, px: int, rng: Generator, loose: float) -> Tensor:
    """Float [N, 3, px, px]: the pictures at their poses. `loose` scales the camera's freedom: at 1, scale
    within 15 % and a tilt of some degrees; at 0, exact squares."""
    count = len(poses.east)
    level = int(np.clip(np.log2(poses.footprint_m / px / GSD_M) + 0.35, 0, len(pyramid) - 1))
    image = pyramid[level]
    axis = (np.arange(px) + 0.5) / px - 0.5
    v, u = np.meshgrid(axis, axis, indexing="ij")
    scale = np.exp(loose * rng.uniform(-0.15, 0.15, (count, 1, 1)))
    tilt = loose * rng.normal(0, 0.06, (2, count, 1, 1))
    depth = poses.footprint_m * scale / (1 + tilt[0] * u + tilt[1] * v)
    right, down = u * depth, v * depth
    c, s = np.cos(poses.heading)[:, None, None], np.sin(poses.heading)[:, None, None]
    x = (poses.east[:, None, None] + right * c - down * s) * (2 / AREA_M) - 1
    y = (poses.south[:, None, None] + right * s + down * c) * (2 / AREA_M) - 1
    grid = torch.from_numpy(np.stack([x, y], -1).reshape(1, count * px, px, 2).astype(np.float32))
    views = nnf.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return views.reshape(3, count, px, px).transpose(0, 1).contiguous()


def alter(views: Tensor, rng: Generator, strength: np.ndarray) -> Tensor:
    """Another light, camera and season, one for each picture: float [N, 3, H, W] in 0..1 both ways.

    At strength 1 it is strong on purpose: what stays is where things lie, which is all that real imagery
    shares with the generated one. Below, the picture is mixed with its original. strength: float [N].
    """
    count, _, height, width = views.shape

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32))

    def per_picture(array: np.ndarray) -> Tensor:
        return tensor(array).reshape(count, -1, 1, 1)

    # Channels: a random mixture, in some pictures a permutation, in some none at all (grey).
    mean = views.mean((2, 3), keepdim=True)
    spread = rng.choice([0.05, 0.15, 0.35], (count, 1, 1), p=[0.4, 0.4, 0.2])
    mixing = np.eye(3) + spread * rng.standard_normal((count, 3, 3))
    shuffled = rng.random(count) < 0.08
    mixing[shuffled] = mixing[shuffled][:, rng.permutation(3)]
    grey = (rng.random((count, 1, 1)) < 0.12) * rng.uniform(0.5, 1.0, (count, 1, 1))
    mixing = (1 - grey) * mixing + grey / 3
    mixed = torch.einsum("nij,njhw->nihw", tensor(mixing), views - mean)

    # Two mixtures side by side, so that neighbouring fields change differently.
    second = torch.einsum("nij,njhw->nihw", tensor(mixing + 0.25 * rng.standard_normal((count, 3, 3))), views - mean)
    field = nnf.interpolate(tensor(rng.standard_normal((count, 1, 4, 4))), (height, width), mode="bicubic")
    share = torch.sigmoid(6 * field) * per_picture(rng.random(count) < 0.4)
    mixed = mixed + (second - mixed) * share

    contrast = per_picture(np.exp(rng.normal(0, 0.28, count)))
    cast = per_picture(rng.normal(0, 0.05, (count, 3)))
    light = per_picture(rng.normal(0, 0.09, count))
    slope = nnf.interpolate(tensor(rng.normal(0, 0.06, (count, 1, 3, 3))), (height, width), mode="bicubic")
    out = mean + cast + light + mixed * contrast + slope
    out = out.clamp(0.004, 1) ** per_picture(np.exp(rng.normal(0, 0.2, count)))

    blurred = nnf.avg_pool2d(nnf.pad(out, (1, 1, 1, 1), mode="reflect"), 3, 1)
    amount = rng.uniform(-0.5, 1.0, count)  # negative is a sharpened picture
    out = out + (blurred - out) * per_picture(amount)
    grain = torch.from_numpy(rng.standard_normal(out.shape, dtype=np.float32))
    altered = (out + grain * per_picture(rng.exponential(0.015, count))).clamp(0, 1)
    return views + per_picture(strength) * (altered - views)
