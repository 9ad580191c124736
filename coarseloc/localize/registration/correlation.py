"""Scores of all hypotheses over a window, and their peaks.

score(h, t) = Σ Re(conj(F_h(x)) · M(x + t)) / sqrt(Σ |F_h(x)|² · Σ m_h(x) |M(x + t)|²), sums over the pixels x of the
frame's square; F_h is the frame's field under its mask m_h, M the window's field. Within [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coarseloc.localize.registration.spectra import FrameSpectra

MIN_GROUND = 0.6  # share of the frame that must lie on ground: below it there is no answer

_EMPTY = 0.02  # of the mean energy: a floor under that of ground without edges (water), where noise would score


@dataclass(frozen=True, slots=True)
class WindowSpectra:
    """The transforms of a window's field: cos 2θ, sin 2θ, energy and ground, complex64 [N, N] each."""

    cosine: Tensor
    sine: Tensor
    energy: Tensor
    ground: Tensor | None  # None where all of the window is ground and no frame reaches over its border
    mean_energy: float
    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """The best hypothesis at each shift. `score` float32 and `hypothesis` int64, [Y, X]; the frame's middle at [i, j]
    lies at window pixels (x0 + j, y0 + i)."""

    score: Tensor
    hypothesis: Tensor
    x0: float
    y0: float


@dataclass(frozen=True, slots=True)
class Peak:
    """A local maximum of a score map: the frame's middle in window pixels, and its hypothesis."""

    score: float
    x_px: float
    y_px: float
    hypothesis: int


def window_spectra(field: Tensor, valid: Tensor | None, length: int) -> WindowSpectra:
    """Transforms of a window's field complex64 [H, W], padded to `length`; valid: bool [H, W] or None."""
    height, width = field.shape
    size = (length, length)
    energy = field.real.square() + field.imag.square()
    padded = length > max(height, width)
    ground = None
    if valid is not None or padded:
        share = torch.ones_like(energy) if valid is None else valid.to(energy.dtype)
        ground = torch.fft.fft2(share, s=size)
    return WindowSpectra(
        torch.fft.fft2(field.real, s=size),
        torch.fft.fft2(field.imag, s=size),
        torch.fft.fft2(energy, s=size),
        ground,
        float(energy.mean()),
        height,
        width,
    )


def correlate(frame: FrameSpectra, window: WindowSpectra, reach_px: tuple[float, float, float, float]) -> ScoreMap:
    """The best score over all hypotheses wherever the frame's middle lies within `reach_px` (x0, y0, x1, y1) of the
    window's pixels. Shifts where less than `MIN_GROUND` of the frame is on ground score -1."""
    half = frame.side_px / 2
    left, top = math.ceil(reach_px[0] - half), math.ceil(reach_px[1] - half)
    right, bottom = math.floor(reach_px[2] - half), math.floor(reach_px[3] - half)
    length, device = frame.length, frame.cosine.device
    rows = torch.arange(top, bottom + 1, device=device) % length
    columns = torch.arange(left, right + 1, device=device) % length
    inverse_energy, allowed = _normalisers(frame, window, rows, columns)
    best = torch.full((len(rows), len(columns)), -1.0, device=device)
    which = torch.zeros((len(rows), len(columns)), dtype=torch.int64, device=device)
    # ifft2(G) = conj(fft2(conj(G))) / N²: hypothesis 2p is in its real part, 2p + 1 in its imaginary one.
    weights = frame.energy.clamp_min(1e-9).rsqrt() / (length * length)
    weights = (weights * torch.tensor([1.0, -1.0], device=device).repeat(len(weights) // 2)).view(-1, 1, 1, 2)
    cosine, sine = window.cosine.conj().resolve_conj(), window.sine.conj().resolve_conj()
    pairs = frame.hypotheses.group // 2
    for group in range(len(inverse_energy)):
        part = slice(group * pairs, (group + 1) * pairs)
        product = torch.addcmul(frame.cosine[part] * cosine, frame.sine[part], sine)
        spatial = torch.fft.fft2(product).index_select(1, rows).index_select(2, columns)
        scores, position = (torch.view_as_real(spatial) * weights[part]).max(0)  # [Y, X, 2]
        even, odd = scores.unbind(-1)
        first = even >= odd
        number = 2 * (torch.where(first, position[..., 0], position[..., 1]) + part.start) + (~first)
        top_score = torch.maximum(even, odd) * inverse_energy[group]
        if allowed is not None:
            top_score = torch.where(allowed[group], top_score, torch.full_like(top_score, -1.0))
        better = top_score > best
        best = torch.where(better, top_score, best)
        which = torch.where(better, number, which)
    return ScoreMap(best, which, left + half, top + half)


def peaks(scores: ScoreMap, count: int, apart_px: float) -> list[Peak]:
    """At most `count` maxima, best first, no two within `apart_px` pixels."""
    left = scores.score.clone()
    rows = torch.arange(left.shape[0], device=left.device)[:, None]
    columns = torch.arange(left.shape[1], device=left.device)[None]
    maxima: list[Peak] = []
    while len(maxima) < count:
        position = int(left.argmax())
        row, column = divmod(position, left.shape[1])
        score = float(left[row, column])
        if score <= 0.0:
            break
        hypothesis = int(scores.hypothesis[row, column])
        maxima.append(Peak(score, scores.x0 + column, scores.y0 + row, hypothesis))
        left[(rows - row).square() + (columns - column).square() <= apart_px**2] = -1.0
    return maxima


def _normalisers(
    frame: FrameSpectra, window: WindowSpectra, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor | None]:
    """(1 / sqrt of the window's energy under each group's mask float32 [G, Y, X], where enough is ground bool)."""
    area = frame.area_px[:, None, None]
    energy = _under_masks(frame, window.energy, rows, columns)
    inverse = energy.maximum(_EMPTY * window.mean_energy * area).clamp_min(1e-9).rsqrt()
    if window.ground is None:
        return inverse, None
    return inverse, _under_masks(frame, window.ground, rows, columns) >= MIN_GROUND * area


def _under_masks(frame: FrameSpectra, spectrum: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """float32 [G, Y, X]: sums of an image under each group's mask at each shift."""
    spatial = torch.fft.fft2(frame.masks * spectrum.conj()).index_select(1, rows).index_select(2, columns)
    both = torch.stack([spatial.real, -spatial.imag], dim=1) / (frame.length * frame.length)
    return both.reshape(-1, *both.shape[2:])
