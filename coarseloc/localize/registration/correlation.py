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

from coarseloc.localize.registration.spectra import FrameFields, transform

MIN_GROUND = 0.6  # share of the frame that must lie on ground: below it there is no answer

_BATCH = 1 << 18  # pixels transformed at a time: what stays in the cache
_EMPTY = 0.02  # of the mean energy: a floor under that of ground without edges (water), where noise would score


@dataclass(frozen=True, slots=True)
class WindowSpectra:
    """The conjugate transforms of a window's field: of cos 2θ, sin 2θ, and energy + i · ground; complex64 [N, N]."""

    cosine: Tensor
    sine: Tensor
    energy: Tensor
    is_partial: bool  # some of it is no ground, or frames reach over its border
    mean_energy: float

    @property
    def length(self) -> int:
        return int(self.cosine.shape[-1])


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
    """Transforms of a window's field complex64 [H, W], padded to `length`; valid: bool [H, W] or None for all."""
    energy = field.real.square() + field.imag.square()
    ground = torch.ones_like(energy) if valid is None else valid.to(energy.dtype)
    return WindowSpectra(
        transform(field.real, length).conj().resolve_conj(),
        transform(field.imag, length).conj().resolve_conj(),
        transform(torch.complex(energy, ground), length).conj().resolve_conj(),
        valid is not None or length > min(field.shape),
        float(energy.mean()),
    )


def correlate(
    frame: FrameFields, windows: Sequence[WindowSpectra], reach_px: tuple[float, float, float, float]
) -> list[ScoreMap]:
    """For each window the best score over all hypotheses wherever the frame's middle lies within `reach_px` (x0, y0,
    x1, y1) of its pixels. Shifts where less than `MIN_GROUND` of the frame is on ground score -1."""
    half, length, device = frame.side_px / 2, windows[0].length, frame.fields.device
    left, top = math.ceil(reach_px[0] - half), math.ceil(reach_px[1] - half)
    rows = torch.arange(top, math.floor(reach_px[3] - half) + 1, device=device) % length
    columns = torch.arange(left, math.floor(reach_px[2] - half) + 1, device=device) % length
    shape = (len(windows), len(rows), len(columns))
    best = torch.full(shape, -1.0, device=device)
    which = torch.zeros(shape, dtype=torch.int64, device=device)
    cosine, sine, energy = (
        torch.stack([getattr(window, name) for window in windows]) for name in ("cosine", "sine", "energy")
    )
    floor = torch.tensor([_EMPTY * window.mean_energy for window in windows], device=device)[:, None, None]
    # ifft2(G) = conj(fft2(conj(G))) / N²: hypothesis 2p is in its real part, 2p + 1 in its imaginary one.
    weights = frame.energy.clamp_min(1e-9).rsqrt() / (length * length)
    weights = (weights * torch.tensor([1.0, -1.0], device=device).repeat(len(weights) // 2)).view(-1, 1, 1, 1, 2)
    pairs = frame.hypotheses.group // 2
    batch = max(1, _BATCH // (length * length * pairs))
    for group in range(frame.groups):
        p, q, mask = frame.spectra(group, length)
        area = frame.masks[group].sum()
        for start in range(0, len(windows), batch):
            part = slice(start, start + batch)
            product = torch.addcmul(p[:, None] * cosine[part], q[:, None], sine[part])  # [p, W, N, N]
            spatial = _crop(torch.fft.fft2(product), rows, columns)
            first = group * pairs
            scores, position = (torch.view_as_real(spatial) * weights[first : first + pairs]).max(0)  # [W, Y, X, 2]
            even, odd = scores.unbind(-1)
            is_odd = odd > even
            number = 2 * (torch.where(is_odd, position[..., 1], position[..., 0]) + first) + is_odd
            under = _crop(torch.fft.fft2(mask * energy[part]), rows, columns) / (length * length)
            normaliser = under.real.maximum(floor[part] * area).clamp_min(1e-9).rsqrt()
            top_score = torch.maximum(even, odd) * normaliser
            if any(window.is_partial for window in windows[part]):
                top_score = torch.where(-under.imag >= MIN_GROUND * area, top_score, torch.full_like(top_score, -1.0))
            better = top_score > best[part]
            best[part] = torch.where(better, top_score, best[part])
            which[part] = torch.where(better, number, which[part])
    return [ScoreMap(score, number, left + half, top + half) for score, number in zip(best, which, strict=True)]


def _crop(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[..., Y, X] of images [..., N, N]."""
    return images.index_select(-2, rows).index_select(-1, columns)


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
