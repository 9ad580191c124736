"""Patch tokens of a frame correlated with those of windows, against sums written out and windows made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarseloc.core.types import Float32
from coarseloc.localize import patch_correlation
from coarseloc.localize.patch_correlation import best_peak, correlate


def tokens(seed: int, *shape: int) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_sums(frames: Float32, masks: Float32, windows: Float32, ground: Float32) -> np.ndarray:
    """The module's formula, one shift after the other, in float64."""

    def contrast(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
        unit = picture / np.linalg.norm(picture, axis=-1, keepdims=True)
        return unit - np.average(unit.reshape(-1, unit.shape[-1]), axis=0, weights=weights.ravel())

    side, shifts = frames.shape[1], windows.shape[1] - frames.shape[1] + 1
    scores = np.empty((len(frames), len(windows), shifts, shifts))
    energy = np.mean([(contrast(w, g) ** 2).sum(-1) * g**2 for w, g in zip(windows, ground, strict=True)])
    for h, w, y, x in np.ndindex(scores.shape):
        frame, mask = contrast(frames[h].astype(float), masks[h]), masks[h].astype(float)
        share = ground[w, y : y + side, x : x + side].astype(float)
        under = contrast(windows[w].astype(float), ground[w])[y : y + side, x : x + side] * share[..., None]
        of_frame, of_window = ((mask * (part**2).sum(-1)).sum() for part in (frame, under))
        of_window = max(of_window, 0.02 * energy * mask.sum())
        scores[h, w, y, x] = (mask * (frame * under).sum(-1)).sum() / np.sqrt(of_frame * of_window)
        if (mask * share).sum() < 0.6 * mask.sum():
            scores[h, w, y, x] = -1
    return scores


def test_scores_are_the_sums_that_the_formula_writes() -> None:
    rng = np.random.default_rng(1)
    frames, windows = tokens(2, 11, 4, 4, 6), tokens(3, 3, 9, 9, 6)  # more headings than are transformed at a time
    masks = rng.uniform(0.2, 1, (11, 4, 4)).astype(np.float32)
    ground = (rng.uniform(size=(3, 9, 9)) > 0.35).astype(np.float32)
    scores = correlate(frames, masks, windows, ground)
    expected = by_sums(frames, masks, windows, ground)
    assert scores.shape == (11, 3, 6, 6) and scores.dtype == np.float32
    assert 0 < (expected == -1).mean() < 1, "some shifts have too little ground, not all"
    np.testing.assert_allclose(scores, expected, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 2), st.integers(0, 99))
def test_a_frame_cut_out_of_a_window_is_found_there(
    row: int, column: int, heading: int, window: int, seed: int
) -> None:
    windows = tokens(seed, 3, 10, 10, 8)
    frames = tokens(seed + 100, 4, 5, 5, 8)
    frames[heading] = 3.0 * windows[window, row : row + 5, column : column + 5]  # norms of tokens do not matter
    scores = correlate(frames, np.ones((4, 5, 5), np.float32), windows, np.ones((3, 10, 10), np.float32))
    peak = best_peak(scores, 2.5)
    assert (peak.heading, peak.window) == (heading, window)
    assert (peak.down, peak.right) == pytest.approx((row - 2.5, column - 2.5), abs=0.5)
    assert peak.score > 0.9 and scores.max() <= 1 + 1e-5


def test_a_shift_between_patches_is_read_off_a_parabola() -> None:
    """Tokens that change smoothly, sampled a third of a patch to the right and a quarter up."""
    rng = np.random.default_rng(0)
    waves, phases = rng.uniform(-0.9, 0.9, (2, 24)), rng.uniform(0, 6, 24)

    def sampled(y: np.ndarray, x: np.ndarray) -> Float32:
        return np.cos(y[..., None] * waves[0] + x[..., None] * waves[1] + phases).astype(np.float32)

    window = sampled(*np.mgrid[:16, :16].astype(float))
    frame = sampled(*(np.mgrid[:8, :8] + np.array([3 - 0.25, 5 + 1 / 3])[:, None, None]))
    scores = correlate(frame[None], np.ones((1, 8, 8), np.float32), window[None], np.ones((1, 16, 16), np.float32))
    peak = best_peak(scores, 4.0)
    assert peak.right == pytest.approx(4 / 3, abs=0.1) and peak.down == pytest.approx(-1.25, abs=0.1)


def test_what_the_mask_hides_and_what_a_whole_picture_shares_change_nothing() -> None:
    windows, mask = tokens(5, 1, 9, 9, 8), np.ones((1, 5, 5), np.float32)
    mask[0, 0] = mask[0, :, 4] = 0
    frame = windows[:, 2:7, 3:8].copy()
    hidden = frame.copy()
    hidden[0, 0], hidden[0, :, 4] = 9.0, -9.0
    ground = np.ones((1, 9, 9), np.float32)
    plain = correlate(frame, mask, windows, ground)
    np.testing.assert_allclose(correlate(hidden, mask, windows, ground), plain, atol=1e-5)
    assert np.unravel_index(plain[0, 0].argmax(), (5, 5)) == (2, 3)
    unit = windows / np.linalg.norm(windows, axis=-1, keepdims=True)
    shared = patch_correlation._contrasts(unit, ground)
    np.testing.assert_allclose(shared.sum(axis=(1, 2)), 0, atol=1e-5)


def test_a_peak_beyond_reach_is_not_answered_and_no_ground_at_all_scores_minus_one() -> None:
    windows = tokens(6, 1, 11, 11, 8)
    frame, mask, ground = windows[:, :5, :5], np.ones((1, 5, 5), np.float32), np.ones((1, 11, 11), np.float32)
    scores = correlate(frame, mask, windows, ground)
    assert best_peak(scores, 3.0).down == -3.0, "in the corner, where there is no parabola"
    inner = best_peak(scores, 2.0)
    assert max(abs(inner.right), abs(inner.down)) <= 2.5 and inner.score < 0.9
    nothing = correlate(frame, mask, windows, np.zeros_like(ground))
    assert (nothing == -1).all() and best_peak(nothing, 3.0).score == -1


def test_tokens_that_do_not_fit_are_refused() -> None:
    frame, mask, ground = tokens(1, 1, 5, 5, 8), np.ones((1, 5, 5), np.float32), np.ones((1, 9, 9), np.float32)
    with pytest.raises(ValueError, match="expected"):
        correlate(frame, mask, tokens(2, 1, 9, 9, 7), ground)
    with pytest.raises(ValueError, match="expected"):
        correlate(frame, mask, tokens(2, 1, 4, 4, 8), ground[:, :4, :4])
    with pytest.raises(ValueError, match="without D"):
        correlate(frame, mask[:, :4], tokens(2, 1, 9, 9, 8), ground)
