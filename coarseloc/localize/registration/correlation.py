"""Scores of all hypotheses over a window, and their peaks.

score(h, t) = Σ Re(conj(F_h(x)) · M(x + t)) / sqrt(Σ |F_h(x)|² · Σ m_h(x) |M(x + t)|²), sums over the pixels x of the
frame's square; F_h is the frame's field under its mask m_h, M the window's field. Within [-1, 1].
"""

from __future__ import annotations

import functools
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
    """The best score at each shift, and the group of hypotheses that it is of. `score` float32 and `group` int64,
    [Y, X]; the frame's middle at [i, j] lies at window pixels (x0 + j, y0 + i)."""

    score: Tensor
    group: Tensor
    x0: float
    y0: float


@dataclass(frozen=True, slots=True)
class Peak:
    """A local maximum of a score map: the frame's middle in window pixels, and its group of hypotheses."""

    score: float
    x_px: float
    y_px: float
    group: int


@dataclass(frozen=True, slots=True)
class WindowField:
    """A window's orientation field complex64 [H, W], and where it is ground bool [H, W]; None where all of it is."""

    field: Tensor
    valid: Tensor | None


def correlate(
    frame: FrameFields,
    windows: Sequence[WindowField],
    lengths: tuple[int, int],
    reach_px: tuple[float, float, float, float],
) -> list[ScoreMap]:
    """For each window the best score over all hypotheses wherever the frame's middle lies within `reach_px` (x0, y0,
    x1, y1) of its pixels; windows are of one size, `lengths` (rows, columns) those of the transforms: at least theirs
    and the frame's.

    Shifts where less than `MIN_GROUND` of the frame is on ground score -1. Where the transforms are no longer than the
    windows, a frame that reaches over a border is correlated with the opposite side there.
    """
    half, device = frame.side_px / 2, frame.fields.device
    left, top = math.ceil(reach_px[0] - half), math.ceil(reach_px[1] - half)
    shape = (len(windows), math.floor(reach_px[3] - half) - top + 1, math.floor(reach_px[2] - half) - left + 1)
    best = torch.full(shape, -1.0, device=device)
    best_group = torch.zeros(shape, dtype=torch.int64, device=device)
    cosine, sine, energy = _conjugate_spectra(windows, lengths, left, top)
    mean_energy = torch.stack([(window.field.real.square() + window.field.imag.square()).mean() for window in windows])
    floor = (_EMPTY * mean_energy)[:, None, None]
    padded = any(length > size for length, size in zip(lengths, windows[0].field.shape, strict=True))
    partial = [window.valid is not None or padded for window in windows]
    pairs = frame.hypotheses.group // 2
    most = (_BATCH_CUDA if device.type == "cuda" else _BATCH) // math.prod(lengths)
    chunk = -(-pairs // -(-pairs // max(1, most)))  # pairs at a time
    batch = min(len(windows), max(1, most // chunk))  # windows at a time
    product = torch.empty((chunk, batch, *lengths), dtype=torch.complex64, device=device)
    for group in range(frame.groups):
        p, q, mask = frame.spectra(group, lengths)
        area = frame.masks[group].sum()
        for start in range(0, len(windows), batch):
            part = slice(start, start + batch)
            # M · N · ifft2(G) = conj(fft2(conj(G))): one hypothesis of a pair in its real part, one in its imaginary.
            # No index of the maximum: that would take as long as the transform.
            maxima = []
            for p_part, q_part in zip(p.split(chunk), q.split(chunk), strict=True):
                out = product[: len(p_part), : len(windows[part])]
                torch.mul(p_part[:, None], cosine[part], out=out).addcmul_(q_part[:, None], sine[part])
                maxima.append(torch.view_as_real(_shifts(out, shape[1:])).amax(0))  # [W, Y, X, 2]
            scores = functools.reduce(torch.maximum, maxima)
            under = _shifts(mask * energy[part], shape[1:])
            normaliser = under.real.maximum(floor[part] * area).clamp_min(1e-9).rsqrt()
            top_score = torch.maximum(scores[..., 0], scores[..., 1]) * normaliser
            if any(partial[part]):
                top_score = torch.where(-under.imag >= MIN_GROUND * area, top_score, torch.full_like(top_score, -1.0))
            best_group[part].masked_fill_(top_score > best[part], group)
            best[part] = torch.maximum(best[part], top_score)
    return [ScoreMap(score, group, left + half, top + half) for score, group in zip(best, best_group, strict=True)]


def hypothesis_at(frame: FrameFields, window: WindowField, peak: Peak) -> int:
    """The number of a peak's hypothesis: the best of its group there, by direct sums. Ground beyond the window is 0."""
    group = frame.hypotheses.group
    left, top = round(peak.x_px - frame.side_px / 2), round(peak.y_px - frame.side_px / 2)
    members = slice(peak.group * group, (peak.group + 1) * group)
    fields = frame.fields[members]
    piece = crop(window.field, left, top, frame.side_px)
    products = (fields.real * piece.real + fields.imag * piece.imag).sum((-2, -1))
    return members.start + int((products * frame.energy[members].clamp_min(1e-9).rsqrt()).argmax())


def crop(image: Tensor, left: int, top: int, side: int) -> Tensor:
    """[side, side] of an image from (left, top), 0 beyond its borders."""
    height, width = image.shape
    piece = torch.zeros((side, side), dtype=image.dtype, device=image.device)
    x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
    if x0 < x1 and y0 < y1:
        piece[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return piece


def _shifts(spectra: Tensor, shape: Sequence[int]) -> Tensor:
    """The first rows and columns of transforms complex64 [..., N, N]; where they are few, only those columns' rows are
    transformed."""
    rows, columns = shape
    if 2 * columns > spectra.shape[-1]:
        spatial: Tensor = torch.fft.fft2(spectra)
    else:
        spatial = torch.fft.fft(torch.fft.fft(spectra, dim=-1)[..., :columns], dim=-2)
    return spatial[..., :rows, :columns]


def _conjugate_spectra(
    windows: Sequence[WindowField], lengths: tuple[int, int], left: int, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Conjugate transforms complex64 [W, M, N] of cos 2θ, sin 2θ and energy + i · ground, windows rolled so that the
    shift (left, top) comes first."""
    images = []
    for window in windows:
        field = window.field
        energy = field.real.square() + field.imag.square()
        ground = torch.ones_like(energy) if window.valid is None else window.valid.to(energy.dtype)
        planes = torch.stack([field.real, field.imag, energy, ground])
        rows, columns = (length - size for length, size in zip(lengths, field.shape, strict=True))
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
        maxima.append(Peak(score, scores.x0 + column, scores.y0 + row, int(scores.group[row, column])))
        left[(rows - row).square() + (columns - column).square() <= apart_px**2] = -1.0
    return maxima
