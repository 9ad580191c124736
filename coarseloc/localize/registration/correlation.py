"""Scores of all hypotheses over a window, and their peaks.

score(h, t) = Σ Re(conj(F_h(x)) · M(x + t)) / sqrt(Σ |F_h(x)|² · Σ m_h(x) |M(x + t)|²), sums over the pixels x of the
frame's square; F_h is the frame's field under its mask m_h, M the window's field. Within [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from coarseloc.localize.registration.spectra import FrameFields

MIN_GROUND = 0.6  # share of the frame that must lie on ground: below it there is no answer

_BATCH = 1 << 19  # pixels transformed at a time: what stays in a processor's cache
_BATCH_CUDA = 1 << 24  # enough to keep a GPU busy
_EMPTY = 0.02  # of the mean energy: a floor under that of ground without edges (water), where noise would score


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


@dataclass(frozen=True, slots=True)
class WindowField:
    """A window's orientation field complex64 [H, W], and where it is ground bool [H, W]; None where all of it is."""

    field: Tensor
    valid: Tensor | None


def correlate(
    frame: FrameFields, windows: Sequence[WindowField], length: int, reach_px: tuple[float, float, float, float]
) -> list[ScoreMap]:
    """For each window the best score over all hypotheses wherever the frame's middle lies within `reach_px` (x0, y0,
    x1, y1) of its pixels; windows are of one size, `length` that of the transforms: at least theirs and the frame's.

    Shifts where less than `MIN_GROUND` of the frame is on ground score -1. Where the transforms are no longer than the
    windows, a frame that reaches over a border is correlated with the opposite side there.
    """
    half, device = frame.side_px / 2, frame.fields.device
    left, top = math.ceil(reach_px[0] - half), math.ceil(reach_px[1] - half)
    shape = (len(windows), math.floor(reach_px[3] - half) - top + 1, math.floor(reach_px[2] - half) - left + 1)
    best = torch.full(shape, -1.0, device=device)
    hypothesis = torch.zeros(shape, dtype=torch.int64, device=device)
    cosine, sine, energy = _conjugate_spectra(windows, length, left, top)
    mean_energy = torch.stack([(window.field.real.square() + window.field.imag.square()).mean() for window in windows])
    floor = (_EMPTY * mean_energy)[:, None, None]
    partial = [window.valid is not None or length > min(window.field.shape) for window in windows]
    pairs = frame.hypotheses.group // 2
    batch = max(1, (_BATCH_CUDA if device.type == "cuda" else _BATCH) // (length * length * pairs))
    for group in range(frame.groups):
        p, q, mask = frame.spectra(group, length)
        area = frame.masks[group].sum()
        first = group * pairs
        for start in range(0, len(windows), batch):
            part = slice(start, start + batch)
            # N² · ifft2(G) = conj(fft2(conj(G))): hypothesis 2p is in its real part, 2p + 1 in its imaginary one.
            product = torch.addcmul(p[:, None] * cosine[part], q[:, None], sine[part])  # [p, W, N, N]
            spatial = torch.fft.fft2(product)[..., : shape[1], : shape[2]]
            scores, position = torch.view_as_real(spatial).max(0)  # [W, Y, X, 2]
            even, odd = scores.unbind(-1)
            is_odd = odd > even
            number = 2 * (torch.where(is_odd, position[..., 1], position[..., 0]) + first) + is_odd
            under = torch.fft.fft2(mask * energy[part])[..., : shape[1], : shape[2]]
            normaliser = under.real.maximum(floor[part] * area).clamp_min(1e-9).rsqrt()
            top_score = torch.maximum(even, odd) * normaliser
            if any(partial[part]):
                top_score = torch.where(-under.imag >= MIN_GROUND * area, top_score, torch.full_like(top_score, -1.0))
            better = top_score > best[part]
            best[part] = torch.where(better, top_score, best[part])
            hypothesis[part] = torch.where(better, number, hypothesis[part])
    return [ScoreMap(score, number, left + half, top + half) for score, number in zip(best, hypothesis, strict=True)]


def _conjugate_spectra(
    windows: Sequence[WindowField], length: int, left: int, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Conjugate transforms complex64 [W, N, N] of cos 2θ, sin 2θ and energy + i · ground, windows rolled so that the
    shift (left, top) comes first."""
    images = []
    for window in windows:
        field = window.field
        energy = field.real.square() + field.imag.square()
        ground = torch.ones_like(energy) if window.valid is None else window.valid.to(energy.dtype)
        planes = torch.stack([field.real, field.imag, energy, ground])
        rows, columns = (length - size for size in field.shape)
        images.append(torch.roll(functional.pad(planes, (0, columns, 0, rows)), (-top, -left), (-2, -1)))
    cosine, sine, energy, ground = torch.stack(images, 1)
    spectra = torch.fft.fft2(torch.stack([torch.complex(cosine, torch.zeros_like(cosine)),
                                          torch.complex(sine, torch.zeros_like(sine)),
                                          torch.complex(energy, ground)])).conj().resolve_conj()  # fmt: skip
    return spectra[0], spectra[1], spectra[2]


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
