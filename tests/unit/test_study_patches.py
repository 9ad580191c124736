"""Patch tokens laid back by a known turn, on tokens whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core.rotation import affine_view
from coarseloc.core.types import Float32
from search.evaluation.studies.patches import patch_cosines, realigned, sampled


def unit(tokens: np.ndarray) -> Float32:
    return (tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 3), st.integers(2, 9))
def test_quarter_turns_are_laid_back_exactly(turns: int, grid: int) -> None:
    north = unit(np.random.default_rng(grid).standard_normal((grid, grid, 8)))
    view = np.rot90(north, turns)  # the view at heading 90 has east on top
    rows, where, _ = realigned(view, grid, 90 * turns)
    assert len(rows) == grid * grid
    np.testing.assert_allclose(np.sum(rows * sampled(north, where), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("heading", [15, 45, 100, 210])
def test_any_turn_is_laid_back_as_pictures_are_turned(heading: int) -> None:
    """A smooth field as pixels, turned by the same function that cuts views, one token a pixel."""
    side = 33
    y, x = np.mgrid[:side, :side] / side
    window = np.stack([80 + 120 * x, 80 + 120 * y, np.full_like(x, 100)], axis=2).astype(np.uint8)
    from coarseloc.core.rotation import Affine

    north = unit(affine_view(window, Affine(1, 0, 0, 0, 1, 0), side, 0).pixels.astype(float))
    turned = affine_view(window, Affine(1, 0, 0, 0, 1, 0), side, heading)
    rows, where, radius = realigned(unit(np.maximum(turned.pixels, 1).astype(float)), side, heading)
    inner = radius < 0.6
    assert np.sum(rows * sampled(north, where), axis=1)[inner].min() > 0.999
    straight = np.sum(rows * north.reshape(-1, 3)[: len(rows)], axis=1)
    assert straight.min() < 0.99


def test_a_view_turned_by_45_shows_ground_the_other_does_not() -> None:
    grid = 14
    rows, where, radius = realigned(np.zeros((grid, grid, 1), np.float32), grid, 45)
    assert len(rows) < grid * grid
    assert where.min() >= 0.5 and where.max() <= grid - 0.5
    assert radius.max() < 0.85


def test_figures_are_one_at_heading_zero_and_tell_another_place_apart() -> None:
    rng = np.random.default_rng(0)
    north = rng.standard_normal((6, 6, 32)).astype(np.float32)
    tokens = np.stack([np.rot90(north, k) for k in range(4)])
    cosines = patch_cosines(tokens, rng.standard_normal((6, 6, 32)).astype(np.float32), 90)
    np.testing.assert_allclose(cosines["aligned"], 1, atol=1e-5)
    np.testing.assert_allclose(cosines["pooled"], 1, atol=1e-5)
    assert abs(cosines["other"]).max() < 0.2
    assert cosines["unaligned"][0] == pytest.approx(1) and cosines["unaligned"][2] < 0.3
    np.testing.assert_allclose(cosines["rings"][1], 1, atol=1e-5)
