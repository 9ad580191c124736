"""A frame's orientation field at all headings and scales, and its transforms, a group of headings at a time.

Fields c + is (cos 2θ, sin 2θ) of two hypotheses a, b, each of unit energy, are packed into two complex images,
c_a + i c_b and s_a + i s_b: with their transforms P, Q and a window's C, S, the inverse transform of
conj(P)·C + conj(Q)·S holds the correlation of a in its real part and that of b, negative, in its imaginary part. Half
as many transforms as one a hypothesis, and complex ones: torch's real inverse takes six times as long on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from coarseloc.localize.registration.frame import FrameRaster

HEADINGS = 48  # 7.5°; 72 are no better, 36 lose 2 % of the frames
SCALES = (0.9, 1.0, 1.12)  # two lose a third of the frames, five gain nothing

MASK_HEADINGS = 3  # neighbouring headings whose windows' energies are summed under one mask, that of the middle one

_OVERSAMPLING = 2  # the field is computed once a scale, so much finer, and turned
_SMOOTH = (2, 3, 5, 7)  # prime factors of transform lengths


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """The headings and scales of a frame that are correlated; headings are evenly spaced from `first_deg`, a multiple
    of 24.

    They are numbered by scale, then by group of one mask (`MASK_HEADINGS` neighbours and what is whole turns of the
    frame's shape on), so that a group is a run of `group` numbers. `turns`: those that the shape has, 4 of a square, 2
    of another.
    """

    scales: tuple[float, ...] = SCALES
    headings: int = HEADINGS
    turns: int = 2
    first_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.headings % (8 * MASK_HEADINGS) or self.headings < 1 or not self.scales:
            raise ValueError(
                f"{self.headings} headings, {len(self.scales)} scales: expected a multiple of {8 * MASK_HEADINGS}, "
                "and at least one scale"
            )
        if self.turns not in (2, 4):
            raise ValueError(f"{self.turns} turns: expected 4 of a square frame, 2 of another")

    def __len__(self) -> int:
        return self.headings * len(self.scales)

    @property
    def group(self) -> int:
        """Hypotheses of one mask: those of `MASK_HEADINGS` neighbours at each of the shape's turns."""
        return self.turns * MASK_HEADINGS

    def neighbours(self, group: int) -> list[int]:
        """The groups of the next headings and of the next scales."""
        groups = self.headings // self.group
        scale, heading = divmod(group, groups)
        scales = [other for other in (scale - 1, scale + 1) if 0 <= other < len(self.scales)]
        return [
            *(scale * groups + (heading + step) % groups for step in (-1, 1)),
            *(other * groups + heading for other in scales),
        ]

    def heading_index(self, number: int) -> int:
        group, member = divmod(number % self.headings, self.group)
        turn, neighbour = divmod(member, MASK_HEADINGS)
        return group * MASK_HEADINGS + neighbour + turn * self.headings // self.turns

    def heading_deg(self, number: int) -> float:
        return (self.first_deg + self.heading_index(number) * 360.0 / self.headings) % 360.0

    def scale(self, number: int) -> float:
        return self.scales[number // self.headings]


@dataclass(frozen=True, slots=True)
class FrameFields:
    """A frame's field at every hypothesis, on squares of `side_px` whose middle is the frame's.

    `fields`: complex64 [S · H, n, n], one a hypothesis, under its mask; `energy`: float32 [S · H], of each. `masks`:
    float32 [G, n, n], one a group. `pixel_m`: ground metres of a pixel.
    """

    hypotheses: Hypotheses
    fields: Tensor
    masks: Tensor
    energy: Tensor
    pixel_m: float

    @property
    def side_px(self) -> int:
        return int(self.fields.shape[-1])

    @property
    def groups(self) -> int:
        return len(self.masks)

    def members(self, group: int) -> slice:
        """The numbers of a group's hypotheses."""
        return slice(group * self.hypotheses.group, (group + 1) * self.hypotheses.group)

    def halved(self) -> FrameFields:
        """The same at twice the pixel."""
        return _energised(self.hypotheses, halved(self.fields), halved(self.masks), 2 * self.pixel_m)

    def spectra(self, group: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """(P complex64 [p, M, N], Q [p, M, N], the mask's [M, N]) of a group's pairs of hypotheses, over M · N: what
        the inverse transform divides by. `shape`: (M, N).

        Made anew for each batch of windows: those of all hypotheses at once would be 0.3 GB for a whole map.
        """
        part = self.members(group)
        count = math.prod(shape)
        pairs, side = self.hypotheses.group // 2, self.side_px
        scale = self.energy[part].clamp_min(1e-9).rsqrt() / count
        fields = torch.view_as_real(self.fields[part]) * scale[:, None, None, None]
        images = fields.new_zeros((2 * pairs + 1, side, side, 2))
        images[:-1].view(2, pairs, side, side, 2).copy_(fields.view(pairs, 2, side, side, 2).permute(4, 0, 2, 3, 1))
        images[-1, ..., 0] = self.masks[group] / count
        spectra: Tensor = torch.fft.fft2(torch.view_as_complex(images), s=shape)
        return spectra[:pairs], spectra[pairs:-1], spectra[-1]


def frame_fields(frame: FrameRaster, pixel_m: float, hypotheses: Hypotheses) -> FrameFields:
    """A frame's fields for windows of `pixel_m` metres a pixel; a square frame's turns are taken to be 4."""
    hypotheses = replace(hypotheses, turns=4 if frame.geometry.aspect == 1.0 else 2)
    fields, masks = turned_fields(frame, pixel_m, hypotheses)
    return _energised(hypotheses, fields, masks, pixel_m)


def _energised(hypotheses: Hypotheses, fields: Tensor, masks: Tensor, pixel_m: float) -> FrameFields:
    energy = torch.linalg.vector_norm(torch.view_as_real(fields).flatten(1), dim=1).square()
    return FrameFields(hypotheses, fields, masks, energy, pixel_m)


def halved(images: Tensor) -> Tensor:
    """Images [..., M, N], means of 2 x 2 pixels each; an odd last row or column is left out."""
    rows, columns = images.shape[-2] // 2 * 2, images.shape[-1] // 2 * 2
    left = images[..., :rows, 0:columns:2] + images[..., :rows, 1:columns:2]
    return (left[..., 0::2, :] + left[..., 1::2, :]) * 0.25


def turned_fields(frame: FrameRaster, pixel_m: float, hypotheses: Hypotheses) -> tuple[Tensor, Tensor]:
    """(fields under their masks complex64 [S · H, n, n], one a hypothesis; masks float32 [G, n, n], one a group).

    Each field is under its own mask; the window's energy is summed under the group's middle heading's. A quarter turn
    of a field is exact: g turns with the picture, z = g² by twice as much, so that it changes its sign.
    """
    diagonal = frame.geometry.diagonal_m * max(hypotheses.scales) / pixel_m
    side = 4 * math.ceil(diagonal / 4 + 0.5)
    turns = hypotheses.turns
    steps = torch.arange(hypotheses.headings // turns, dtype=torch.float64)
    angles = steps * (2 * math.pi / hypotheses.headings) + math.radians(hypotheses.first_deg)
    phase = torch.polar(torch.ones_like(angles), 2 * angles).to(torch.complex64).to(frame.device)
    shape = (len(hypotheses.scales), len(angles) // MASK_HEADINGS)
    fields = phase.new_empty((*shape, turns, MASK_HEADINGS, side, side))
    masks = torch.empty((*shape, side, side), device=frame.device)
    for number, scale in enumerate(hypotheses.scales):
        upright = frame.upright(pixel_m, scale, _OVERSAMPLING)
        planes = torch.stack([upright.real, upright.imag, torch.ones_like(upright.real)])
        turned = _turned(planes, angles, side)  # [H / turns, 3, n, n]
        field = torch.complex(turned[:, 0], turned[:, 1]).mul_(phase[:, None, None])
        groups = field.unflatten(0, (-1, MASK_HEADINGS))
        for turn, quarter in enumerate(range(0, 4, 4 // turns)):
            target = fields[number, :, turn]
            target.copy_(torch.rot90(groups, -quarter, (-2, -1)))
            if quarter % 2:
                target.neg_()
        masks[number] = turned[MASK_HEADINGS // 2 :: MASK_HEADINGS, 2]
    return fields.flatten(0, 3), masks.flatten(0, 1)


def smooth_length(length: int) -> int:
    """The least multiple of 8 from `length` up whose prime factors are 2, 3, 5 and 7: what transforms are fast at."""
    size = -(-length // 8) * 8
    while not _is_smooth(size):
        size += 8
    return size


def _is_smooth(number: int) -> bool:
    for factor in _SMOOTH:
        while number % factor == 0:
            number //= factor
    return number == 1


def _turned(planes: Tensor, angles: Tensor, side: int) -> Tensor:
    """float32 [T, C, side, side]: planes [C, h, w], `_OVERSAMPLING` times finer, turned clockwise about their middle;
    0 outside."""
    height, width = planes.shape[-2:]
    # source = R(-angle) · target, in the planes' pixels; no product of matrices, which TF32 may shorten on a GPU.
    cos, sin = (part.to(planes)[:, None, None] for part in (torch.cos(angles), torch.sin(angles)))
    offsets = (torch.arange(side, dtype=torch.float32, device=planes.device) + 0.5 - side / 2) * _OVERSAMPLING
    right, down = offsets[None, None, :], offsets[None, :, None]
    x, y = (cos * right + sin * down) * (2.0 / width), (cos * down - sin * right) * (2.0 / height)
    grid = torch.stack([x, y], 1).movedim(1, -1)  # each coordinate for itself: sooner than pairs, the same bits
    return functional.grid_sample(planes.expand(len(angles), -1, -1, -1), grid, mode="bilinear", align_corners=False)
