"""The factor of a rank filter's ellipses, learnt over references whose embedding is a smooth function of their pose."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from coarseloc.localize.tracking.rank_grid import RankSettings, reference_grid
from coarseloc.localize.tracking.rank_track import DEFAULTS
from coarseloc.localize.tracking.virtual_flights import FACTOR_BOUNDS, learned_ellipse_factor

STRIDE_M = 200.0
FAST = replace(DEFAULTS, filter=RankSettings(heading_bins=24))
AXIS = STRIDE_M * np.arange(9)
TILES = np.array(list(itertools.product(AXIS, AXIS, np.arange(0.0, 360.0, 45.0))))
GRID = reference_grid(TILES[:, :2], STRIDE_M, 45.0)


def embeddings(seed: int = 0, dimensions: int = 256) -> np.ndarray:
    """Random features of a Gaussian kernel: tiles a stride or 45° apart are alike, those farther off are not."""
    rng = np.random.default_rng(seed)
    angles = np.radians(TILES[:, 2])
    poses = np.column_stack([TILES[:, :2] / STRIDE_M, np.cos(angles) / 0.75, np.sin(angles) / 0.75])
    features = np.cos(poses @ rng.normal(0, 0.9, (4, dimensions)) + rng.uniform(0, 2 * np.pi, dimensions))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def test_the_factor_that_is_learnt_makes_ellipses_hold_their_truth() -> None:
    vectors = embeddings()
    factor = learned_ellipse_factor(vectors, TILES, GRID, FAST, flights=3, frames=30)
    assert factor is not None
    assert FACTOR_BOUNDS[0] <= factor < 1.0  # raw ellipses are too wide
    again = learned_ellipse_factor(vectors, TILES, GRID, replace(FAST, ellipse_factor=0.1), flights=3, frames=30)
    assert again == pytest.approx(factor)


def test_nothing_is_learnt_where_references_do_not_tell_places_apart() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(TILES), 8)).astype(np.float32)
    noise = np.ones_like(vectors) + 1e-3 * vectors
    assert learned_ellipse_factor(noise, TILES, GRID, FAST, flights=2, frames=12) is None
