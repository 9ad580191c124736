"""Where a frame lies on windows of the map, by the correlation of patch tokens. Pure numpy.

score(h, w, t) = Σ m F·M / sqrt(Σ m |F|² · Σ m |M|²), sums over the patches x of the frame turned to heading h: its
tokens F(x) under its mask m(x), and those of window w, M(x + t), less each picture's mean. It is the coarse step of
`registration.correlation` with D channels in place of two. Within [-1, 1].

Turning a picture does not merely move its tokens, so each heading of the frame is embedded anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Float32

MIN_GROUND = 0.6  # share of the frame that must lie on ground, as in orientation correlation

_EMPTY = 0.02  # of the windows' mean energy: a floor under that of ground whose patches are all alike
_BATCH = 8  # headings transformed at a time: 0.1 GB at 1,280 channels


@dataclass(frozen=True, slots=True)
class PatchPeak:
    """The best of all headings, windows and shifts. `right` and `down`: of the frame's middle from the window's, in
    patches; between patches by a parabola."""

    score: float
    heading: int  # index
    window: int  # index
    right: float
    down: float


def correlate(frames: Float32, masks: Float32, windows: Float32, ground: Float32) -> Float32:
    """Scores float32 [H, W, P - S + 1, P - S + 1] at every shift that has the whole frame in the window.

    `frames` float32 [H, S, S, D]: tokens of the frame at each heading, `masks` float32 [H, S, S]: the share of each
    patch that the frame covers. `windows` float32 [W, P, P, D], `ground` float32 [W, P, P]: the share that is ground.
    Tokens are made of unit norm here. The first shift has the frame in the upper left corner. Shifts with less than
    `MIN_GROUND` of the frame on ground score -1. Raises ValueError where shapes do not fit.
    """
    side, width = frames.shape[1], windows.shape[1]
    if frames.shape[1:] != (side, side, windows.shape[3]) or windows.shape[1:3] != (width, width) or side > width:
        raise ValueError(f"tokens {frames.shape} on windows {windows.shape}: expected [H, S, S, D] and [W, P, P, D]")
    if masks.shape != frames.shape[:3] or ground.shape != windows.shape[:3]:
        raise ValueError(f"masks {masks.shape} and ground {ground.shape}: expected those of the tokens, without D")
    shifts = width - side + 1
    window_tokens = _contrasts(windows, ground)
    window_energy = np.square(window_tokens).sum(axis=-1, keepdims=True)
    floor = _EMPTY * float(window_energy.mean())
    window_spectra = np.fft.rfft2(np.concatenate([window_tokens, window_energy, ground[..., None]], -1), axes=(1, 2))
    scores = [
        _scores(frames[first : first + _BATCH], masks[first : first + _BATCH], window_spectra, width, shifts, floor)
        for first in range(0, len(frames), _BATCH)
    ]
    return np.concatenate(scores)


def best_peak(scores: Float32, reach: float) -> PatchPeak:
    """The maximum of scores [H, W, Y, X] whose shift is within `reach` patches of the window's middle on either axis.

    Its neighbours may lie beyond, so that a parabola goes through every peak.
    """
    offsets = np.arange(scores.shape[2]) - (scores.shape[2] - 1) / 2
    within = np.abs(offsets) <= reach
    searched = np.where(within[:, None] & within, scores, -np.inf)
    heading, window, row, column = (int(i) for i in np.unravel_index(searched.argmax(), scores.shape))
    surface = scores[heading, window]
    right = float(offsets[column]) + _vertex(surface[row], column)
    down = float(offsets[row]) + _vertex(surface[:, column], row)
    return PatchPeak(float(surface[row, column]), heading, window, right, down)


def _scores(
    frames: Float32, masks: Float32, window_spectra: NDArray[Any], width: int, shifts: int, floor: float
) -> Float32:
    """`correlate` of some headings; `window_spectra` complex64 [W, P, P // 2 + 1, D + 2]: tokens, energy, ground."""
    tokens = _contrasts(frames, masks)
    frame_energy = (np.square(tokens).sum(axis=-1) / np.maximum(masks, 1e-12)).sum(axis=(1, 2))[:, None, None, None]
    area = masks.sum(axis=(1, 2))[:, None, None, None]
    token_spectra = np.fft.rfft2(tokens, (width, width), axes=(1, 2)).conj()
    mask_spectra = np.fft.rfft2(masks[..., None], (width, width), axes=(1, 2)).conj()
    product, under, on_ground = (
        _correlated(spectra, window_spectra[..., channels], width, shifts)
        for spectra, channels in (
            (token_spectra, slice(None, -2)),
            (mask_spectra, slice(-2, -1)),
            (mask_spectra, slice(-1, None)),
        )
    )
    scores = product / np.sqrt(np.maximum(np.maximum(under, floor * area) * frame_energy, 1e-18))
    return np.where(on_ground >= MIN_GROUND * area, scores, np.float32(-1.0)).astype(np.float32)


def _correlated(frame_spectra: NDArray[Any], window_spectra: NDArray[np.complex64], width: int, shifts: int) -> Float32:
    """float32 [H, W, shifts, shifts], summed over the channels: no shift that is returned wraps round."""
    products = frame_spectra.transpose(1, 2, 0, 3) @ window_spectra.transpose(1, 2, 3, 0)  # [P, F, H, C] @ [P, F, C, W]
    sums = np.fft.irfft2(products.transpose(2, 3, 0, 1), (width, width))
    return np.asarray(sums[..., :shifts, :shifts], np.float32)


def _contrasts(tokens: Float32, weights: Float32) -> Float32:
    """float32 [N, S, S, D]: tokens of unit norm less each picture's mean under weights [N, S, S], times the weights.

    What all patches of a picture share (land, light, season) tells no shift.
    """
    unit = tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12)
    weights = weights[..., None]
    total = weights.sum(axis=(1, 2), keepdims=True)
    mean = (unit * weights).sum(axis=(1, 2), keepdims=True) / np.maximum(total, 1e-12)
    return np.asarray((unit - mean) * weights, np.float32)


def _vertex(line: Float32, position: int) -> float:
    """Where the parabola through a value and its neighbours has its maximum, from the value; 0 without neighbours."""
    if not 0 < position < len(line) - 1 or min(line[position - 1], line[position + 1]) <= -1.0:
        return 0.0
    before, value, after = (float(score) for score in line[position - 1 : position + 2])
    bend = before - 2 * value + after
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, (before - after) / (2 * bend)))
