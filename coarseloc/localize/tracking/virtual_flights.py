"""How wide a rank filter's ellipses are, learnt on flights over a user's own references. Pure numpy.

A virtual flight goes from place to neighbouring place; a frame lies midway between two and looks like both of their
tiles, turned as it flies, and by a share like unrelated ones. Its odometry has the errors that it states. The factor
makes 95 of 100 ellipses hold their truth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coarseloc.core import geo
from coarseloc.core.fixes import CHI2_95
from coarseloc.core.types import Float32, Floats, LonLat
from coarseloc.localize.tracking.motion import Displacement, displacement_covariance
from coarseloc.localize.tracking.rank_grid import RankedHits, ReferenceGrid
from coarseloc.localize.tracking.rank_track import DEFAULTS, RankedFrame, RankTrackSettings, track_ranks
from coarseloc.localize.tracking.tracker import LocalPlane

FLIGHTS, FRAMES, TOP_K = 6, 40, 10
LEAST_CLAIMS = 40  # below which nothing is learnt
FACTOR_BOUNDS = (0.3, 1.5)

_UNRELATED = 1.0  # of two unrelated tiles' difference, beside the two tiles of a frame: with 1.5 little is claimed
_TURN_EVERY = 4  # frames
_STEP_SD = 0.05  # of a step, in the odometry
_TURN_SD_DEG = 0.5
_PLANE = LocalPlane(LonLat(0.0, 0.0))  # metres only


def learned_ellipse_factor(
    vectors: Float32,
    tiles: Floats,
    grid: ReferenceGrid,
    settings: RankTrackSettings = DEFAULTS,
    *,
    flights: int = FLIGHTS,
    frames: int = FRAMES,
    seed: int = 0,
) -> float | None:
    """`RankTrackSettings.ellipse_factor`; None where too little of the flights was claimed to learn it.

    vectors: unit rows float32 [N, D] of the rotated tiles; tiles: float64 [N, 3], their (east m, north m, heading °).
    """
    rng = np.random.default_rng(seed)
    plain = replace(settings, ellipse_factor=1.0, most_alternatives=0, keeps_mass=False)
    squares: list[float] = []
    for _ in range(flights):
        path = _path(tiles, grid, frames, rng)
        truths = [(tiles[a, :2] + tiles[b, :2]) / 2 for a, b in itertools.pairwise(path)]
        steps = track_ranks(_frames(vectors, tiles, path, rng), grid, _PLANE, plain)
        for step, truth in zip(steps, truths, strict=True):
            estimate = step.estimate
            if estimate.ground is not None and estimate.ground_covariance_m2 is not None:
                error = np.subtract(_PLANE.metres(estimate.ground), truth)
                squares.append(float(error @ np.linalg.solve(estimate.ground_covariance_m2.matrix(), error)))
    if len(squares) < LEAST_CLAIMS:
        return None
    factor = math.sqrt(float(np.quantile(squares, 0.95)) / CHI2_95)
    return min(max(factor, FACTOR_BOUNDS[0]), FACTOR_BOUNDS[1])


def _frames(vectors: Float32, tiles: Floats, path: Sequence[int], rng: np.random.Generator) -> list[RankedFrame]:
    """A frame midway between each two tiles of a path, in their order."""
    frames: list[RankedFrame] = []
    before: Floats | None = None  # (east, north, heading)
    for a, b in itertools.pairwise(path):
        turn_deg = float(geo.signed_difference_deg(tiles[a, 2], tiles[b, 2]))
        pose = np.array([*(tiles[a, :2] + tiles[b, :2]) / 2, tiles[a, 2] + turn_deg / 2])
        unrelated = rng.integers(len(vectors), size=2)
        mixed = vectors[a] + vectors[b] + _UNRELATED * (vectors[unrelated[0]] - vectors[unrelated[1]])
        best = np.argsort(-(vectors @ mixed), kind="stable")[:TOP_K]
        hits = RankedHits(np.column_stack([tiles[best], np.arange(1, len(best) + 1)]), len(vectors))
        motion = None if before is None else _motion(before, pose, rng)
        frames.append(RankedFrame(len(frames), 1.0, (hits,), motion))  # no motion is guessed by its width
        before = pose
    return frames


def _motion(before: Floats, after: Floats, rng: np.random.Generator) -> Displacement:
    """Between two poses, with the errors that it states."""
    east, north = (after[:2] - before[:2]).tolist()
    # Turned back by the heading.
    across_m, along_m = geo.turned_m(east, north, -float(before[2]))
    sd_m = _STEP_SD * math.hypot(east, north)
    across_error, along_error = rng.normal(0.0, sd_m, 2).tolist()
    turn_deg = float(geo.signed_difference_deg(before[2], after[2])) + float(rng.normal(0.0, _TURN_SD_DEG))
    covariance = displacement_covariance(sd_m, _TURN_SD_DEG, 0.01)
    return Displacement(across_m + across_error, along_m + along_error, turn_deg, 0.0, covariance)


def _path(tiles: Floats, grid: ReferenceGrid, frames: int, rng: np.random.Generator) -> list[int]:
    """Tiles a stride apart, each ahead of the one before: straight on, now and then turned by a heading step."""
    path = [int(rng.integers(len(tiles)))]
    step = min(grid.heading_step_deg, 90.0)
    while len(path) <= frames:
        turns = [0.0, step, -step, 2 * step, -2 * step, 180.0]
        if rng.integers(_TURN_EVERY) == 0:
            turns[:3] = rng.permutation(turns[:3]).tolist()
        ahead = (_tile_ahead(tiles, grid, path[-1], turn) for turn in turns)
        target = next((index for index in ahead if index is not None), None)
        if target is None:
            break
        path.append(target)
    return path


def _tile_ahead(tiles: Floats, grid: ReferenceGrid, index: int, turn_deg: float) -> int | None:
    """The tile a stride from another one that faces away from it, once that has turned so far."""
    heading = float(tiles[index, 2]) + turn_deg
    east, north = geo.turned_m(0.0, grid.stride_m, heading)
    apart = np.hypot(*(tiles[:, :2] - tiles[index, :2] - (east, north)).T)
    turned = np.abs(geo.signed_difference_deg(heading, tiles[:, 2]))
    elsewhere = np.abs(tiles[:, :2] - tiles[index, :2]).max(1) > 0.25 * grid.stride_m
    near = np.flatnonzero((apart < 0.75 * grid.stride_m) & (turned < 1.0) & elsewhere)
    return int(near[apart[near].argmin()]) if len(near) else None
