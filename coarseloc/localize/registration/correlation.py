"""Scores of all hypotheses over a window, and their peaks.

score(h, t) = Σ Re(conj(F_h(x)) · M(x + t)) / sqrt(Σ |F_h(x)|² · Σ m_h(x) |M(x + t)|²), sums over the pixels x of the
frame's square; F_h is the frame's field under its mask m_h, M the window's field. Within [-1, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from coarseloc.localize.registration.spectra import FrameFields, halved
from coarseloc.localize.registration.threads import side_by_side, workers_on

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

    def doubled(self) -> Peak:
        """The same in pixels of half the size."""
        return replace(self, x_px=2 * self.x_px, y_px=2 * self.y_px)


@dataclass(frozen=True, slots=True)
class WindowSpectra:
    """What windows are correlated by: conjugate transforms complex64 [W, M, N] of cos 2θ, sin 2θ and energy +
    i · ground, rolled so that the first shift comes first, and the floor float32 [W, 1, 1] under their energies."""

    cosine: Tensor
    sine: Tensor
    energy: Tensor
    floor: Tensor
    is_partial: bool  # a frame may lie beyond the ground

    @classmethod
    def stacked(cls, spectra: Sequence[WindowSpectra]) -> WindowSpectra:
        """Those of several windows as one."""
        if len(spectra) == 1:
            return spectra[0]

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(of_window, name) for of_window in spectra])

        is_partial = any(of_window.is_partial for of_window in spectra)
        return cls(joined("cosine"), joined("sine"), joined("energy"), joined("floor"), is_partial)


class WindowField:
    """A window's orientation field complex64 [H, W], and where it is ground bool [H, W]; None where all of it is."""

    def __init__(self, field: Tensor, valid: Tensor | None) -> None:
        self.field, self.valid = field, valid
        self._spectra: tuple[tuple[tuple[int, int], int, int], WindowSpectra] | None = None

    @functools.cached_property
    def floor(self) -> Tensor:
        """float32 []: under the energy of a pixel."""
        return _EMPTY * torch.view_as_real(self.field).square().sum(-1).mean()

    @functools.cached_property
    def halved(self) -> WindowField:
        """The same at twice the pixel."""
        valid = None if self.valid is None else halved(self.valid.to(torch.float32)) > 0.5
        return WindowField(halved(self.field), valid)

    def spectra(self, lengths: tuple[int, int], left: int, top: int) -> WindowSpectra:
        """The transforms of `lengths` (rows, columns) from the shift (left, top) on, kept for the next frame."""
        key = (lengths, left, top)
        if self._spectra is None or self._spectra[0] != key:
            self._spectra = key, self._transformed(*key)
        return self._spectra[1]

    def _transformed(self, lengths: tuple[int, int], left: int, top: int) -> WindowSpectra:
        field = self.field
        energy = field.real.square() + field.imag.square()
        ground = torch.ones_like(energy) if self.valid is None else self.valid.to(energy.dtype)
        rows, columns = (length - size for length, size in zip(lengths, field.shape, strict=True))
        planes = torch.stack([field.real, field.imag, energy, ground])
        planes = torch.roll(functional.pad(planes, (0, columns, 0, rows)), (-top, -left), (-2, -1))
        cosine, sine, energy_plane, ground = planes
        zero = torch.zeros_like(cosine)
        images = [torch.complex(cosine, zero), torch.complex(sine, zero), torch.complex(energy_plane, ground)]
        spectra = torch.fft.fft2(torch.stack(images)).conj().resolve_conj()[:, None]
        is_partial = self.valid is not None or rows > 0 or columns > 0
        return WindowSpectra(spectra[0], spectra[1], spectra[2], self.floor[None, None, None], is_partial)


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
    spectra = [window.spectra(lengths, left, top) for window in windows]
    most = (_BATCH_CUDA if device.type == "cuda" else _BATCH) // math.prod(lengths)
    workers = min(workers_on(device), frame.groups)
    shares = [range(first, frame.groups, workers) for first in range(workers)]
    jobs = [partial(_best_of, frame, share, spectra, lengths, shape, most) for share in shares]
    best, best_group = _best_of_shares(side_by_side(jobs, device))
    return [
        ScoreMap(score, group.long(), left + half, top + half) for score, group in zip(best, best_group, strict=True)
    ]


def _best_of(
    frame: FrameFields,
    groups: Sequence[int],
    spectra: Sequence[WindowSpectra],
    lengths: tuple[int, int],
    shape: tuple[int, int, int],
    most: int,
) -> tuple[Tensor, Tensor]:
    """The best score of some groups at each shift, and its group, both float32 [W, Y, X]; -1 and 0 where none is.

    most: transforms at a time. Masks act as sums and products of 0 and 1, which are exact: torch takes ten times as
    long to fill by a mask on a CPU.
    """
    device = frame.fields.device
    best, best_group = torch.full(shape, -1.0, device=device), torch.zeros(shape, device=device)
    pairs = frame.hypotheses.group // 2
    chunk = -(-pairs // -(-pairs // max(1, most)))  # pairs at a time
    batch = min(len(spectra), max(1, most // chunk))  # windows at a time
    parts = [WindowSpectra.stacked(spectra[start : start + batch]) for start in range(0, len(spectra), batch)]
    product = torch.empty((chunk, batch, *lengths), dtype=torch.complex64, device=device)
    mask_of = torch.empty((batch, *shape[1:]), device=device)
    for group in groups:
        p, q, mask = frame.spectra(group, lengths)
        area = frame.masks[group].sum()
        for number, part in enumerate(parts):
            rows = slice(number * batch, number * batch + len(part.floor))
            flags = mask_of[: len(part.floor)]
            # M · N · ifft2(G) = conj(fft2(conj(G))): one hypothesis of a pair in its real part, one in its imaginary.
            # No index of the maximum: that would take as long as the transform.
            maxima = []
            for p_part, q_part in zip(p.split(chunk), q.split(chunk), strict=True):
                out = product[: len(p_part), : len(part.floor)]
                torch.mul(p_part[:, None], part.cosine, out=out).addcmul_(q_part[:, None], part.sine)
                maxima.append(torch.view_as_real(_shifts(out, shape[1:])).amax(0))  # [W, Y, X, 2]
            scores = functools.reduce(torch.maximum, maxima)
            under = torch.view_as_real(_shifts(mask * part.energy, shape[1:]))
            normaliser = under[..., 0].maximum(part.floor * area).clamp_min(1e-9).rsqrt()
            score = torch.maximum(scores[..., 0], scores[..., 1]) * normaliser
            if part.is_partial:
                on_ground = torch.ge(-under[..., 1], MIN_GROUND * area, out=flags)
                score = score * on_ground + (on_ground - 1.0)
            is_better = torch.gt(score, best[rows], out=flags)
            torch.maximum(best_group[rows], is_better * group, out=best_group[rows])  # groups come in order
            torch.maximum(best[rows], score, out=best[rows])
    return best, best_group


def _best_of_shares(shares: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The best of all shares of the groups, and its group; of equal scores the lowest group's is the best."""
    (best, best_group), *rest = shares
    for score, group in rest:
        wins = (score > best) | ((score == best) & (group < best_group))
        best, best_group = torch.where(wins, score, best), torch.where(wins, group, best_group)
    return best, best_group


def at_full_resolution(frame: FrameFields, window: WindowField, peak: Peak) -> tuple[Peak, int]:
    """(the best within a pixel of a peak, the number of its hypothesis) of a peak's group, by direct sums; ground
    beyond the window is 0. peak: of the halves of frame and window, in pixels of the whole ones."""
    side = frame.side_px
    left, top = (round(middle - side / 2) - 1 for middle in (peak.x_px, peak.y_px))
    piece = crop(window.field, left, top, side + 2)
    members, mask = frame.members(peak.group), frame.masks[peak.group]
    products = _products(torch.view_as_real(frame.fields[members]).flatten(1), _shifted(torch.view_as_real(piece)))
    under = _products(mask.flatten()[None], _shifted((piece.real.square() + piece.imag.square())[..., None]))
    energy = under.maximum(window.floor * mask.sum()) * frame.energy[members, None]
    scores = products * energy.clamp_min(1e-9).rsqrt()  # [group, 9]
    member, shift = divmod(int(scores.argmax()), 9)
    down, right = divmod(shift, 3)
    best = Peak(float(scores[member, shift]), left + right + side / 2, top + down + side / 2, peak.group)
    return best, members.start + member


def climbed(frame: FrameFields, window: WindowField, peak: Peak, hypothesis: int) -> tuple[Peak, int]:
    """What `at_full_resolution` found, moved on to the best of the neighbouring headings, scales and shifts until none
    is better: the best of halves may be one of them."""
    while True:
        groups = (peak.group, *frame.hypotheses.neighbours(peak.group))
        others = [at_full_resolution(frame, window, replace(peak, group=group)) for group in groups]
        better, number = max(others, key=lambda other: other[0].score)
        if better.score <= peak.score:
            return peak, hypothesis
        peak, hypothesis = better, number


def _shifted(image: Tensor) -> Tensor:
    """float32 [9, n · n · C]: an image [n + 2, n + 2, C] shifted by -1, 0, 1 rows and columns."""
    side = image.shape[0] - 2
    return image.unfold(0, side, 1).unfold(1, side, 1).permute(0, 1, 3, 4, 2).reshape(9, -1)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """float32 [A, B]: sums of products of rows float32 [A, N] and [B, N], in fp64 where TF32 may shorten them."""
    if first.is_cuda:
        return (first.double() @ second.double().T).float()
    return first @ second.T


def crop(image: Tensor, left: int, top: int, side: int) -> Tensor:
    """[side, side] of an image from (left, top), 0 beyond its borders."""
    height, width = image.shape
    piece = torch.zeros((side, side), dtype=image.dtype, device=image.device)
    x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
    if x0 < x1 and y0 < y1:
        piece[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return piece


def _shifts(spectra: Tensor, shape: Sequence[int]) -> Tensor:
    """The first rows and columns of transforms complex64 [..., M, N]."""
    # All of them are transformed: torch takes longer over a part of the columns, whose memory is not in one piece.
    spatial: Tensor = torch.fft.fft2(spectra)
    return spatial[..., : shape[0], : shape[1]]


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
