"""Local correlation surfaces of a frame warped onto a window, and the pose that maximises their sum.

The warped frame is cut into blocks of about a sixth of its width; each gives a surface of correlation over shifts of
±REACH_PX pixels. A correction of the pose moves the middle x of a block (from the frame's middle, in units of half a
frame's width) by d(x) = t + A·x + x (p·x): shift, turn, scale and the two terms of perspective that a tilt gives. The
sum of the surfaces at d(x), over the root of the sum of energies, is the score of the corrected pose: a similarity
alone is biased by about h · tan(tilt) · tan²(fov/2) / 4. Fitted from smoothed surfaces to sharp ones, then warped anew.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from coarseloc.core.types import Floats
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.registration.spectra import smooth_length

REACH_PX = 7  # ±4 clips at 4° of tilt
BLOCKS = 6  # across the frame's width

SEARCHED_SCALE = 0.08  # either way of a start

SIMILARITY, PERSPECTIVE = 4, 6  # parameters: shift x, y, turn, scale, and the two of perspective

_MIN_BLOCK_PX = 10
_SMOOTHING_PX = (2.0, 1.0, 0.0)  # of the surfaces, coarse to fine
_ITERATIONS = 10
_STENCIL_PX = 0.5  # of the differences that give slopes and curvatures
_LONGEST_STEP_PX = 2.0
_SETTLED_PX, _NEARLY_SETTLED_PX = 2e-3, 0.05
_SEARCH_TURN = np.radians(np.arange(-5.0, 5.1, 1.0))
_SEARCH_SCALE = np.arange(-SEARCHED_SCALE, SEARCHED_SCALE + 0.001, 0.02)
_SEARCH_SHIFT_PX = 3


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Correlation surfaces of B blocks over shifts (x, y) in [-REACH_PX, REACH_PX]².

    `product`, `energy`: float64 [B, D, D], rows y, of Re(conj(F) · M) and of the window's |M|² under the frame.
    `places`: float64 [B, 2], the blocks' middles from the frame's, in half widths of the frame `half_width_px`.
    """

    product: Floats
    energy: Floats
    frame_energy: float
    places: Floats
    half_width_px: float
    jacobian: Floats  # float64 [B, 2, 6], of a block's shift in pixels by the parameters of a correction


def surfaces(
    field: Tensor, mask: Tensor, window_field: Tensor, middle_px: tuple[float, float], half_width_px: float
) -> Surfaces:
    """Surfaces of a warped frame's field complex64 [n, n], its mask float32 [n, n] and the window's field complex64
    [n + 2 · REACH_PX] ² around it; `middle_px`: the frame's middle in the warped field's pixels."""
    side = max(_MIN_BLOCK_PX, round(2 * half_width_px / BLOCKS))
    rows, columns = (-(-size // side) for size in field.shape)
    frame = field * mask
    pad = (0, columns * side - field.shape[1], 0, rows * side - field.shape[0])
    frame, weights = functional.pad(frame, pad), functional.pad(mask, pad)
    around = functional.pad(window_field, pad)
    blocks = _tiles(frame, side)
    covers = _tiles(weights, side)
    span = side + 2 * REACH_PX
    pieces = around.unfold(0, span, side).unfold(1, span, side).reshape(-1, span, span)
    used = covers.sum((-2, -1)) >= 0.1 * side * side
    blocks, covers, pieces = blocks[used], covers[used], pieces[used]
    size = (smooth_length(span),) * 2
    shifts = slice(0, 2 * REACH_PX + 1)
    square = pieces.real.square() + pieces.imag.square()
    cross = torch.fft.rfft2(torch.stack([blocks.real, blocks.imag, covers]), s=size).conj()
    cross = cross * torch.fft.rfft2(torch.stack([pieces.real, pieces.imag, square]), s=size)
    spectra = torch.stack([cross[0] + cross[1], cross[2]])
    # Of the inverse transform's rows those of other shifts are left out.
    product, energy = torch.fft.irfft(torch.fft.ifft(spectra, dim=-2)[..., shifts, :], n=size[1])[..., shifts]
    block_energy = blocks.real.square() + blocks.imag.square()
    places = _centroids(block_energy, used, rows, columns, side, middle_px) / half_width_px
    return Surfaces(
        product.double().cpu().numpy(),
        energy.double().cpu().numpy(),
        float(block_energy.double().sum()),
        places,
        half_width_px,
        _jacobian(places, half_width_px),
    )


@dataclass(frozen=True, slots=True)
class Correction:
    """What a fit adds to a pose: `parameters` float64 [6], shift (x, y) in pixels, turn in radians, relative scale and
    the two terms of perspective, in window axes; the score there, and its curvature float64 [6, 6] (second
    derivatives by the parameters, all lengths in pixels at half a frame's width)."""

    parameters: Floats
    score: float
    curvature: Floats


def search(local: Surfaces) -> Floats:
    """float64 [6]: the best correction on a grid of ±5° of heading, ±8 % of scale and ±3 pixels, no perspective."""
    product, energy = (_smoothed(values, _SMOOTHING_PX[1]) for values in (local.product, local.energy))
    x, y = local.places.T * local.half_width_px
    turn, scale = (grid.ravel() for grid in np.meshgrid(_SEARCH_TURN, _SEARCH_SCALE, indexing="ij"))
    columns = np.rint(scale[:, None] * x - turn[:, None] * y).astype(int)  # [G, B]
    rows = np.rint(scale[:, None] * y + turn[:, None] * x).astype(int)
    farthest = max(int(np.abs(columns).max()), int(np.abs(rows).max()))
    beyond = max(0, farthest + _SEARCH_SHIFT_PX - REACH_PX)  # shifts beyond a surface are those of its border
    first = REACH_PX - _SEARCH_SHIFT_PX + beyond
    width = 2 * _SEARCH_SHIFT_PX + 1
    numbers = np.arange(len(product))

    def sums(surfaces: Floats) -> Floats:
        """[G, T]: over the blocks, at every shift of the grid."""
        padded = np.pad(surfaces, ((0, 0), (beyond, beyond), (beyond, beyond)), mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, (width, width), axis=(1, 2))
        return np.asarray(around[numbers, rows + first, columns + first].sum(1).reshape(len(turn), -1))

    totals = sums(product) / np.sqrt(np.maximum(sums(energy), 1e-9))
    grid_index, shift_index = np.unravel_index(int(totals.argmax()), totals.shape)
    shift_y, shift_x = divmod(int(shift_index), width)
    shift_y, shift_x = shift_y - _SEARCH_SHIFT_PX, shift_x - _SEARCH_SHIFT_PX
    return np.array([shift_x, shift_y, turn[grid_index], scale[grid_index], 0.0, 0.0])


def fit(
    local: Surfaces,
    start: Floats,
    parameters: int,
    stiffness: float = 0.0,
    perspective: Floats | None = None,
    *,
    coarse: bool = True,
) -> Correction:
    """The correction of most score from `start` float64 [6], over its first `parameters` (4 or 6).

    `coarse`: on smoothed surfaces first; not needed where the start is a fit's pose, warped anew.

    `stiffness`: the score that a perspective of 1 costs, times two, about `perspective` float64 [2] (what has to be
    added for none): keeps a tilt that nothing tells near 0.
    """
    best = np.array(start, float)
    for sigma in _SMOOTHING_PX if coarse else _SMOOTHING_PX[-1:]:
        settled_px = _SETTLED_PX if sigma == 0.0 else _NEARLY_SETTLED_PX
        best = _climb(local, _both(local, sigma), best, parameters, stiffness, perspective, settled_px)
    score, curvature, _ = evaluate(local, best)
    return Correction(best, score, curvature)


def evaluate(local: Surfaces, correction: Floats) -> tuple[float, Floats, Floats]:
    """(score, its curvature float64 [6, 6], the scatter of its slope float64 [6, 6]) of a correction.

    Scatter: the sum over blocks of the outer product of each one's own slope: how much they contradict each other.
    """
    score, slopes, curvature = _score(local, _both(local, 0.0), correction)
    return float(score), curvature, slopes.T @ slopes


def corrected(pose: WindowPose, correction: Floats, geometry: FrameGeometry, pixel_m: float) -> WindowPose:
    """A pose with a correction of its window pixels of `pixel_m` metres applied (to first order; a fit is repeated)."""
    shift_x, shift_y, turn, scale, across, down = correction
    heading = np.radians(pose.heading_deg)
    # Perspective in frame axes: half a nominal width is `pose.scale` half widths as warped.
    right = np.cos(heading) * across + np.sin(heading) * down
    below = -np.sin(heading) * across + np.cos(heading) * down
    return replace(
        pose,
        x_m=float(pose.x_m + shift_x * pixel_m),
        y_m=float(pose.y_m + shift_y * pixel_m),
        heading_deg=(pose.heading_deg + float(np.degrees(np.arctan2(turn, 1.0 + scale)))) % 360.0,
        scale=pose.scale * float(np.hypot(1.0 + scale, turn)),
        perspective=(pose.perspective[0] + float(right), pose.perspective[1] + float(below)),
    )


# --- the fit ------------------------------------------------------------------------------------


def _climb(
    local: Surfaces,
    smoothed: Floats,
    start: Floats,
    parameters: int,
    stiffness: float,
    perspective: Floats | None,
    settled_px: float,
) -> Floats:
    """Newton's method on the score with its curvature made negative, steps halved until they rise."""
    free = slice(0, parameters)
    units = np.array([1.0, 1.0, *[1.0 / local.half_width_px] * 4])  # one pixel at half a frame's width
    zero = np.zeros(2) if perspective is None else perspective

    def penalty(values: Floats) -> float:
        return 0.5 * stiffness * float(np.square(values[4:] - zero).sum())

    best = start
    score, slopes, curvature = _score(local, smoothed, best)
    score -= penalty(best)
    for _ in range(_ITERATIONS):
        gradient, hessian = slopes.sum(0) * units, curvature * np.outer(units, units)
        gradient[4:] -= stiffness * (best[4:] - zero) * units[4:]
        hessian[range(4, 6), range(4, 6)] -= stiffness * units[4:] ** 2
        values, vectors = np.linalg.eigh(hessian[free, free])
        values = np.minimum(values, -1e-3 * max(float(np.abs(values).max()), 1e-12))
        step = np.zeros(6)
        step[free] = -vectors @ ((vectors.T @ gradient[free]) / values)
        step *= min(1.0, _LONGEST_STEP_PX / max(float(np.abs(step).max()), 1e-9))
        for _ in range(5):
            trial = best + step * units
            trial_score, trial_slopes, trial_curvature = _score(local, smoothed, trial)
            trial_score -= penalty(trial)
            if trial_score > score:
                break
            step *= 0.5
        else:
            break
        best, score, slopes, curvature = trial, trial_score, trial_slopes, trial_curvature
        if float(np.abs(step).max()) < settled_px:
            break
    return best


def _score(local: Surfaces, smoothed: Floats, values: Floats) -> tuple[float, Floats, Floats]:
    """(score, its slope float64 [B, 6] by block, its curvature float64 [6, 6]) of a correction.

    Of f = N / sqrt(F · E): df ∝ dN − N / (2E) dE; the curvature takes N / (2E) as a constant.
    """
    jacobian = local.jacobian
    moved = jacobian @ values  # [B, 2]: d is linear in the parameters
    sampled, weights = _stencil(smoothed, moved)  # [9, B] each
    total, total_energy = float(sampled[4].sum()), max(float(weights[4].sum()), 1e-9)
    norm = 1.0 / np.sqrt(local.frame_energy * total_energy)
    gains = (sampled - total / (2 * total_energy) * weights) * norm
    h = _STENCIL_PX
    slope_x, slope_y = (gains[5] - gains[3]) / (2 * h), (gains[7] - gains[1]) / (2 * h)
    xx, yy = (gains[5] - 2 * gains[4] + gains[3]) / h**2, (gains[7] - 2 * gains[4] + gains[1]) / h**2
    xy = (gains[8] - gains[6] - gains[2] + gains[0]) / (4 * h**2)
    across, down = jacobian[:, 0], jacobian[:, 1]
    slopes = slope_x[:, None] * across + slope_y[:, None] * down
    mixed = (across * xy[:, None]).T @ down
    curvature = (across * xx[:, None]).T @ across + (down * yy[:, None]).T @ down + mixed + mixed.T
    return total * norm, slopes, curvature


def _jacobian(places: Floats, half_width_px: float) -> Floats:
    """float64 [B, 2, 6]: shift of a block's middle, in pixels, by the parameters."""
    x, y = places.T
    zero, unit = np.zeros_like(x), np.ones_like(x)
    across = np.stack([unit, zero, -y * half_width_px, x * half_width_px, x * x * half_width_px, x * y * half_width_px])
    down = np.stack([zero, unit, x * half_width_px, y * half_width_px, y * x * half_width_px, y * y * half_width_px])
    return np.stack([across.T, down.T], axis=1)


_OFFSETS = np.array([-1.0, 0.0, 1.0]) * _STENCIL_PX


def _stencil(values: Floats, moved: Floats) -> Floats:
    """float64 [2, 9, B]: products and energies [B, D, D, 2] at shifts [B, 2] and half a pixel around them, by cubic
    convolution: along each axis three points, which lie within five pixels."""
    blocks, side = values.shape[:2]
    points = np.clip(moved[..., None] + (_OFFSETS + REACH_PX), 1.0, side - 2.001)  # [B, 2, 3]
    base = points.astype(np.intp)
    first = base[..., :1]
    weights = _cubic(points - base)  # [B, 2, 3, 4]
    spread = np.zeros((*base.shape, 5))
    later = (base > first)[..., None]
    spread[..., :4] = np.where(later, 0.0, weights)
    spread[..., 1:] += np.where(later, weights, 0.0)
    corner = (np.arange(blocks) * side + first[:, 1, 0] - 1) * side + first[:, 0, 0] - 1
    flat = np.minimum(corner[:, None] + _taps(side), blocks * side * side - 1)  # the last row's fifth pixel weighs 0
    around = values.reshape(-1, 2)[flat].reshape(blocks, 5, 10)
    rows = (spread[:, 1] @ around).reshape(blocks, 3, 5, 2)  # [B, point, column, 2]
    sampled = spread[:, None, 0] @ rows  # [B, point, point, 2]
    return np.asarray(sampled.reshape(blocks, 9, 2).transpose(2, 1, 0))


@functools.cache
def _taps(side: int) -> NDArray[np.intp]:
    """[25]: where the 5 x 5 pixels around a point lie after their first, in a flat surface."""
    rows, columns = np.divmod(np.arange(25), 5)
    return np.asarray(rows * side + columns, np.intp)


def _cubic(t: Floats) -> Floats:
    """float64 [..., 4]: weights of pixels -1, 0, 1, 2 at t in [0, 1) (Keys 1981, a = -1/2)."""
    return np.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ],
        axis=-1,
    )


def _both(local: Surfaces, sigma_px: float) -> Floats:
    """float64 [B, D, D, 2]: product and energy smoothed."""
    return np.stack([_smoothed(local.product, sigma_px), _smoothed(local.energy, sigma_px)], axis=-1)


def _smoothed(values: Floats, sigma_px: float) -> Floats:
    """Surfaces smoothed by a Gaussian that ends at their borders."""
    if sigma_px == 0.0:
        return values
    offsets = np.arange(values.shape[-1])
    kernel = np.exp(-0.5 * ((offsets[:, None] - offsets) / sigma_px) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return np.asarray(kernel @ values @ kernel.T)


# --- blocks -------------------------------------------------------------------------------------


def _tiles(image: Tensor, side: int) -> Tensor:
    """[rows · columns, side, side] of an image whose sides are multiples of `side`."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    return image.reshape(rows, side, columns, side).transpose(1, 2).reshape(-1, side, side)


def _centroids(
    energy: Tensor, used: Tensor, rows: int, columns: int, side: int, middle_px: tuple[float, float]
) -> NDArray[np.float64]:
    """float64 [B, 2]: where each block's energy lies, in pixels (x, y) from the frame's middle."""
    weights = energy.double().cpu().numpy() + 1e-9
    index = np.flatnonzero(used.cpu().numpy())
    centre = np.arange(side) + 0.5
    total = weights.sum((-2, -1))
    x = (weights.sum(-2) @ centre) / total + (index % columns) * side - middle_px[0]
    y = (weights.sum(-1) @ centre) / total + (index // columns) * side - middle_px[1]
    return np.stack([x, y], axis=1)
