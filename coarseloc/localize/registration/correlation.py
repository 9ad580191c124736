"""Scores of all hypotheses over a window, and their peaks.

score(h, t) = Σ Re(conj(F_h(x)) · M(x + t)) / sqrt(Σ |F_h(x)|² · Σ m_h(x) |M(x + t)|²), sums over the pixels x of the
frame's square; F_h is the frame's field under its mask m_h, M the window's field. Within [-1, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from coarseloc.embedding.device import torch_threads
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
        floor = (_EMPTY * energy.mean())[None, None, None]
        return WindowSpectra(
            spectra[0], spectra[1], spectra[2], floor, self.valid is not None or rows > 0 or columns > 0
        )


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
    workers = 1 if device.type == "cuda" else min(torch_threads(), frame.groups)
    shares = [range(first, frame.groups, workers) for first in range(workers)]
    best, best_group = _best_of_shares(
        [partial(_best_of, frame, share, spectra, lengths, shape, most) for share in shares]
    )
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


def _best_of_shares(jobs: Sequence[Callable[[], tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Run each share of the groups on a thread of its own; of equal scores the lowest group's is the best."""
    if len(jobs) == 1:
        return jobs[0]()
    (best, best_group), *rest = _pool(len(jobs)).map(lambda job: job(), jobs)
    for score, group in rest:
        wins = (score > best) | ((score == best) & (group < best_group))
        best, best_group = torch.where(wins, score, best), torch.where(wins, group, best_group)
    return best, best_group


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # One thread of torch in each: torch's own wait for each other after every one of many short operations.
    return ThreadPoolExecutor(threads, "correlate", initializer=lambda: torch.set_num_threads(1))


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
    """The first rows and columns of transforms complex64 [..., M, N]."""
    # All of them are transformed: torch takes longer over a part of the columns, whose memory is not in one piece.
    return torch.fft.fft2(spectra)[..., : shape[0], : shape[1]]


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
