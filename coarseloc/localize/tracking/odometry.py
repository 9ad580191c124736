"""Motion between two consecutive frames, out of their pictures, on a CPU.

Phase correlation: the cross-power spectrum of two windowed pictures with its amplitudes set to 1 has its inverse
transform's maximum at the shift (Kuglin and Hines, "The Phase Correlation Image Alignment Method", 1975). Here it is
weighted by a Gaussian of frequency, so that the peak is a Gaussian, found between pixels by the parabola through its
logarithm. Turn and scale are those of the trial whose peak stands highest: a grid at 64 pixels a width, then parabolas
at 112 and 224, where both pictures are weighted by both windows, as they lie on each other: common ground alone.

The windows of the grid are flat ones, Hann's to the fourth root: of 49 pairs 0.4 widths apart Hann's own loses 14.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from coarseloc.core.types import Floats, UInt8
from coarseloc.localize.registration.threads import one_torch_thread
from coarseloc.localize.tracking.motion import Displacement, displacement_covariance

Luma = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OdometrySettings:
    """What decides a displacement beside the pictures."""

    width_px: int = 224
    coarse_px: int = 64
    turns_deg: float = 32.0  # either way, of the first trials; without success the rest of the circle
    coarse_turn_deg: float = 4.0  # steps
    coarse_scales: tuple[float, ...] = (-0.12, -0.06, 0.0, 0.06, 0.12)  # logarithms, about the expected change
    least_quality: float = 15.0  # below which pictures do not register: unrelated ones reach 7, clear ones 39
    least_far_quality: float = 25.0  # of a larger turn than the first trials': water has reached 14, half round
    least_contrast: float = 2.0  # grey levels, of a picture without its broad shades; cloud and black have less
    shift_sd_widths: float = 1 / 400  # of a shift, in widths on the ground
    shift_sd_share: float = 0.02  # and of its length: with 0.01 errors were half as large again as stated (890 pairs)
    turn_sd_deg: float = 0.5
    scale_sd: float = 0.015  # 0.007 where nothing tilts
    sharp_quality: float = 60.0  # below which all of these grow as its square over the quality's


DEFAULTS = OdometrySettings()

_PEAK_PX = 0.6  # σ of a correlation's peak
_CLEAR_PEAK = 0.25  # height of a coarse peak that no other one of its grid can be above
_BROAD_PX = 16  # of the shades that contrast leaves out, at 224 pixels a width
_BESIDE_PX = 6  # around a peak, that its σ leaves out
_REFINEMENTS = ((2, 1.5, 0.025), (1, 0.6, 0.01))
"""(reduction of the full resolution, step of the turn in degrees, step of the log scale) of each climb."""


class OdometryFrame:
    """A frame reduced for odometry: its luma at a few resolutions, and its contrast."""

    def __init__(self, luma: Luma, footprint_m: float, settings: OdometrySettings = DEFAULTS) -> None:
        """luma: float32 [H, W], grey levels 0–255. footprint_m: its expected width on the ground."""
        if luma.ndim != 2 or min(luma.shape) < 8:
            raise ValueError(f"a frame's luma of shape {luma.shape}: expected at least 8 x 8 pixels")
        if not 0 < footprint_m < math.inf:
            raise ValueError(f"a frame's width of {footprint_m} m: expected above 0")
        if not np.isfinite(luma).all():
            raise ValueError("a frame's luma holds what is no number")
        self.footprint_m = footprint_m
        self.settings = settings
        picture = Image.fromarray(np.asarray(luma, np.float32), mode="F")
        widths = {settings.coarse_px, *(settings.width_px // reduction for reduction, _, _ in _REFINEMENTS)}
        self._levels = {width: torch.from_numpy(_reduced(picture, width)) for width in widths}
        fine = self.level(settings.width_px).numpy()
        broad = Image.fromarray(fine).resize(
            tuple(max(1, side // _BROAD_PX) for side in fine.shape[::-1]), Image.Resampling.BOX
        )
        self.contrast = float(np.std(fine - np.asarray(broad.resize(fine.shape[::-1], Image.Resampling.BICUBIC))))

    def level(self, width_px: int) -> Tensor:
        """float32 [h, w]: its luma at this many pixels a width."""
        return self._levels[width_px]


def luma_of_pixels(pixels: UInt8) -> Luma:
    """float32 [H, W], grey levels 0–255, of RGB uint8 [H, W, 3] (ITU-R BT.601)."""
    return np.asarray(Image.fromarray(pixels).convert("L"), np.float32)


def displacement(first: OdometryFrame, second: OdometryFrame) -> Displacement | None:
    """The motion from one frame to the next; None where a picture has no contrast, or they do not register."""
    settings = first.settings
    if min(first.contrast, second.contrast) < settings.least_contrast:
        return None
    near = np.arange(-settings.turns_deg, settings.turns_deg + 1e-6, settings.coarse_turn_deg)
    far = np.arange(settings.turns_deg + settings.coarse_turn_deg, 360.0 - settings.turns_deg, settings.coarse_turn_deg)
    with one_torch_thread():
        for turns, least_quality in ((near, settings.least_quality), (far, settings.least_far_quality)):
            measured = _measured(first, second, turns, least_quality)
            if measured is not None:
                return measured
    return None


def _measured(first: OdometryFrame, second: OdometryFrame, turns: Floats, least_quality: float) -> Displacement | None:
    settings = first.settings
    coarse = _coarse(first, second, turns)
    alignment, quality, width_px = coarse, 0.0, settings.coarse_px
    for reduction, turn_step, zoom_step in _REFINEMENTS:
        alignment = _resized(alignment, settings.width_px // reduction / width_px)
        width_px = settings.width_px // reduction
        alignment, quality = _climbed(first.level(width_px), second.level(width_px), alignment, turn_step, zoom_step)
    if quality < least_quality:
        return None
    pixel_m = first.footprint_m / width_px
    shift_m = pixel_m * math.hypot(alignment.x_px, alignment.y_px)
    sd_m = first.footprint_m * settings.shift_sd_widths + settings.shift_sd_share * shift_m
    blur = max(1.0, (settings.sharp_quality / quality) ** 2)
    return Displacement(
        alignment.x_px * pixel_m,
        -alignment.y_px * pixel_m,
        float((alignment.turn_deg + 180.0) % 360.0 - 180.0),
        alignment.log_zoom - math.log(second.footprint_m / first.footprint_m),
        displacement_covariance(blur * sd_m, blur * settings.turn_sd_deg, blur * settings.scale_sd),
        quality,
    )


@dataclass(frozen=True, slots=True)
class _Alignment:
    """Of the second picture on the first: turned clockwise, its pixels exp(log_zoom) of the first one's, its middle
    (x right, y down) pixels from the first one's."""

    turn_deg: float
    log_zoom: float
    x_px: float
    y_px: float


def _coarse(first: OdometryFrame, second: OdometryFrame, turns: Floats) -> _Alignment:
    """The best of a grid of turns and scales at the coarse resolution.

    All turns are tried at the middle scale, then the neighbours of the best trial until none is better: where its peak
    is clear, the rest of the grid holds no higher one. Of 228 pairs 71 were clear, and none of these was another one of
    the whole grid; false peaks reached 0.12.
    """
    settings = first.settings
    a, b = first.level(settings.coarse_px), second.level(settings.coarse_px)
    side = settings.coarse_px
    spectrum = torch.fft.rfft2(_centred(*_laid(a, [_Alignment(0.0, 0.0, 0.0, 0.0)], side)))
    expected = math.log(second.footprint_m / first.footprint_m)
    zooms = [expected + scale for scale in settings.coarse_scales]
    peaks: dict[tuple[int, int], tuple[float, float, float]] = {}  # by (turn, zoom)

    def add(cells: Iterable[tuple[int, int]]) -> None:
        new = [cell for cell in cells if cell not in peaks]
        if new:
            trials = [_Alignment(float(turns[turn]), zooms[zoom], 0.0, 0.0) for turn, zoom in new]
            surfaces = _correlated(spectrum, torch.fft.rfft2(_centred(*_laid(b, trials, side))))
            peaks.update(zip(new, _peaks(surfaces), strict=True))

    def best() -> tuple[int, int]:
        return max(peaks, key=lambda cell: peaks[cell][2])

    add((turn, len(zooms) // 2) for turn in range(len(turns)))
    cell = None
    while cell != best():
        cell = best()
        around = itertools.product(*(range(max(0, at - 1), at + 2) for at in cell))
        add((turn, zoom) for turn, zoom in around if turn < len(turns) and zoom < len(zooms))
    if peaks[best()][2] < _CLEAR_PEAK:
        add(itertools.product(range(len(turns)), range(len(zooms))))
    turn, zoom = best()
    x, y, _ = peaks[turn, zoom]
    return _Alignment(float(turns[turn]), zooms[zoom], x, y)


def _climbed(a: Tensor, b: Tensor, start: _Alignment, turn_step: float, zoom_step: float) -> tuple[_Alignment, float]:
    """(the alignment at the top of parabolas through trials a step either way, its quality)."""
    first = _laid(a, [_Alignment(0.0, 0.0, -start.x_px / 2, -start.y_px / 2)], max(a.shape))
    turns, _ = _trials(first, b, start, [(sign * turn_step, 0.0) for sign in (-1, 0, 1)])
    turn = _vertex([height for _, _, height in _peaks(turns)]) * turn_step
    zooms, _ = _trials(first, b, start, [(turn, sign * zoom_step) for sign in (-1, 0, 1)])
    zoom = _vertex([height for _, _, height in _peaks(zooms)]) * zoom_step
    surfaces, share = _trials(first, b, start, [(turn, zoom)])
    x, y, _ = _peaks(surfaces)[0]
    # A small common ground has smooth spectra, whose phases agree by chance.
    quality = _quality(surfaces[0]) * math.sqrt(share)
    return _Alignment(start.turn_deg + turn, start.log_zoom + zoom, start.x_px + x, start.y_px + y), quality


def _trials(
    first: tuple[Tensor, Tensor], b: Tensor, start: _Alignment, changes: Sequence[tuple[float, float]]
) -> tuple[Luma, float]:
    """(correlation surfaces float32 [T, N, N], the last one's share of the picture that is common ground) of an
    alignment's turn and zoom changed T ways; a peak is where the shift is to be changed. first: the first picture and
    its window [1, N, N], half a shift back."""
    picture, taper = first
    moved = [
        _Alignment(start.turn_deg + turn_deg, start.log_zoom + log_zoom, start.x_px / 2, start.y_px / 2)
        for turn_deg, log_zoom in changes
    ]
    laid, laid_taper = _laid(b, moved, picture.shape[-1])
    weights = (taper * laid_taper).sqrt_()
    spectra = torch.fft.rfft2(torch.stack([_centred(picture, weights), _centred(laid, weights)]))
    return _correlated(spectra[0], spectra[1]), float(weights[-1].sum()) / b.numel()


def _vertex(heights: list[float]) -> float:
    """Where the parabola through the logarithms of three heights at -1, 0, 1 has its top, within ±1.5 steps."""
    left, middle, right = np.log(np.maximum(heights, 1e-9)).tolist()
    bend = left - 2 * middle + right
    if bend >= -1e-12:
        return float(np.sign(right - left))
    return float(np.clip((left - right) / (2 * bend), -1.5, 1.5))


def _resized(alignment: _Alignment, factor: float) -> _Alignment:
    return replace(alignment, x_px=alignment.x_px * factor, y_px=alignment.y_px * factor)


def _laid(picture: Tensor, alignments: Sequence[_Alignment], side: int) -> tuple[Tensor, Tensor]:
    """(luma, window), float32 [T, side, side] each, of a picture [h, w] as it lies by T alignments, about the first
    one's middle; the window is 0 beyond it."""
    height, width = picture.shape
    to_picture = torch.tensor([_to_picture(alignment, (width, height), side) for alignment in alignments])[..., None]
    pixel = torch.arange(side, dtype=torch.float32) + 0.5
    columns, rows, origin = to_picture.unbind(2)  # [T, 2, 1] each: of (x, y)
    places = (columns * pixel)[..., None, :] + (rows * pixel + origin)[..., None]  # [T, 2, side, side]
    extent = torch.tensor([[[width]], [[height]]], dtype=torch.float32)
    luma = functional.grid_sample(
        picture.expand(len(alignments), 1, height, width),
        (places * (2.0 / extent)).sub_(1.0).movedim(1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[:, 0]
    # half a period of a sine over the picture each way: the root of Hann's window
    x, y = places.mul_(math.pi / extent).clamp_(0.0, math.pi).sin_().clamp_min_(0.0).unbind(1)
    return luma, (x * y).sqrt_()


def _to_picture(alignment: _Alignment, size: tuple[int, int], side: int) -> tuple[tuple[float, ...], ...]:
    """[2, 3]: pixels of a square about the first picture's middle to pixels (x, y) of the second, of `size`."""
    turn, zoom = math.radians(alignment.turn_deg), math.exp(-alignment.log_zoom)
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    x, y = side / 2 + alignment.x_px, side / 2 + alignment.y_px
    return (cos, sin, size[0] / 2 - cos * x - sin * y), (-sin, cos, size[1] / 2 + sin * x - cos * y)


def _centred(luma: Tensor, weights: Tensor) -> Tensor:
    """Pictures [..., N, N] less their weighted means, weighted."""
    mean = (luma * weights).sum((-2, -1), keepdim=True) / weights.sum((-2, -1), keepdim=True).clamp_min(1e-6)
    return (luma - mean) * weights


def _correlated(first: Tensor, second: Tensor) -> Luma:
    """float32 [T, N, N]: the phase correlation of spectra; its maximum is where the first shows the second's 0."""
    cross = first * second.conj()
    side = cross.shape[-2]
    power = cross.real.square() + cross.imag.square()  # sooner than the amplitude
    cross *= _band(side) * power.clamp_min_(1e-24).rsqrt_()
    return np.asarray(torch.fft.irfft2(cross, s=(side, side)), np.float32)


@functools.cache
def _band(side: int) -> Tensor:
    """float32 [N, N/2 + 1]: a Gaussian of frequency; a peak of all phases equal has height 1. Nothing at 0."""
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    weights = np.exp(-2.0 * (np.pi * _PEAK_PX) ** 2 * (x**2 + y**2))
    weights[0, 0] = 0.0
    whole = np.fft.irfft2(weights, s=(side, side))[0, 0]
    return torch.from_numpy((weights / whole).astype(np.float32))


def _peaks(surfaces: Luma) -> list[tuple[float, float, float]]:
    """(x, y, height) of the maximum of each surface [T, N, N], between pixels; shifts in [-N/2, N/2)."""
    count, side = surfaces.shape[:2]
    rows, columns = np.divmod(surfaces.reshape(count, -1).argmax(1), side)
    steps = np.arange(-1, 2)
    around = surfaces[
        np.arange(count)[:, None, None],
        (rows[:, None, None] + steps[:, None]) % side,
        (columns[:, None, None] + steps) % side,
    ]  # [T, 3, 3]
    heights = around[:, 1, 1]
    logarithms = np.log(np.maximum(around, np.maximum(1e-3 * heights, 1e-9)[:, None, None]))
    x, y = (
        (pixels + _tops(lines) + side / 2) % side - side / 2
        for pixels, lines in ((columns, logarithms[:, 1]), (rows, logarithms[:, :, 1]))
    )
    return list(zip(x.tolist(), y.tolist(), heights.tolist(), strict=True))


def _tops(values: Luma) -> Floats:
    """float64 [T]: where the parabolas through values [T, 3] at -1, 0, 1 have their tops, within half a pixel."""
    left, middle, right = values.astype(np.float64).T
    bend = np.minimum(left - 2 * middle + right, -1e-12)
    return np.asarray(np.clip((left - right) / (2 * bend), -0.5, 0.5))


def _quality(surface: Luma) -> float:
    """The maximum over the standard deviation beside it."""
    row, column = divmod(int(surface.argmax()), surface.shape[-1])
    centred = np.roll(surface, (_BESIDE_PX - row, _BESIDE_PX - column), (0, 1))
    beside = np.ones(surface.shape, bool)
    beside[: 2 * _BESIDE_PX + 1, : 2 * _BESIDE_PX + 1] = False
    return float(surface[row, column] / max(float(centred[beside].std()), 1e-9))


def _reduced(picture: Image.Image, width_px: int) -> Luma:
    """float32 [h, w]: at `width_px` a width, averaged; never smaller than 4 pixels."""
    height_px = max(4, round(picture.height * width_px / picture.width))
    way = Image.Resampling.BOX if picture.width >= width_px else Image.Resampling.BICUBIC
    return np.array(picture.resize((width_px, height_px), way))
