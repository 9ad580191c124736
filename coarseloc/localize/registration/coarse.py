"""The coarse step: a frame's best places over windows of a map, among all headings and three scales.

All hypotheses are correlated at half the resolution, which is a fifth of the work and finds the same places; the best
of these are scored at the whole one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch

from coarseloc.core import geo
from coarseloc.core.types import LonLat
from coarseloc.core.windows import MapWindow, WindowSource, blocks_over
from coarseloc.localize.registration.correlation import Peak, WindowField, at_full_resolution, climbed, correlate, peaks
from coarseloc.localize.registration.field import luma_of, orientation_field
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry
from coarseloc.localize.registration.settings import DEFAULTS, RegistrationSettings
from coarseloc.localize.registration.spectra import FrameFields, frame_fields, smooth_length


@dataclass(frozen=True, slots=True)
class CandidateWindow:
    """A window to look for a frame's middle in, within `reach_m` metres of its middle on either axis, or within
    `reach_down_m` up and down where that differs."""

    window: MapWindow
    reach_m: float
    peaks: int = 3  # maxima that are looked at: a lone window has to give the margin too
    reach_down_m: float | None = None
    keeps_field: bool = False  # for the next frame: 32 bytes a pixel
    _fields: dict[torch.device, WindowField] = field(default_factory=dict, init=False, compare=False, repr=False)

    def field_on(self, device: torch.device) -> WindowField:
        """Its orientation field on a device."""
        window_field_there = self._fields.get(device) or window_field(self.window, device)
        if self.keeps_field:
            self._fields[device] = window_field_there
        return window_field_there


@dataclass(frozen=True, slots=True)
class CoarsePlace:
    """A maximum of the coarse scores: the frame's middle, its heading from true north, its scale."""

    location: LonLat
    heading_deg: float
    scale: float
    score: float


def coarse_fields(frame: FrameRaster, settings: RegistrationSettings = DEFAULTS) -> FrameFields:
    """A frame's fields at `coarse_px` a footprint."""
    return frame_fields(frame, frame.geometry.footprint_m / settings.coarse_px, settings.hypotheses)


def coarse_places(
    fields: FrameFields,
    candidates: Sequence[CandidateWindow],
    settings: RegistrationSettings,
    apart_m: float,
    count: int,
) -> list[CoarsePlace]:
    """The best places of windows whose pixels and reach are alike, best first, none within `apart_m` metres of a better
    one: four times the `count` that is to be refined.

    Twice as many of the halves' best are scored at the whole resolution, among the hypotheses of one mask; those that
    may be refined (`contenders` of twice `count`) among the neighbouring ones too.
    Raises ValueError where a window's pixels are not those of the fields, or not as many as the first one's.
    """
    for candidate in candidates:
        shape, first = candidate.window.pixels.shape, candidates[0].window.pixels.shape
        if shape != first or not math.isclose(candidate.window.gsd_m, fields.pixel_m, rel_tol=1e-3):
            raise ValueError(
                f"a window of {shape[:2]} px at {candidate.window.gsd_m:g} m: expected {first[:2]} px at "
                f"{fields.pixel_m:g} m, as the others and the frame's fields"
            )
    device = fields.fields.device
    windows = [candidate.field_on(device) for candidate in candidates]
    halves = [window.halved for window in windows]
    frame = fields.halved()
    rows, columns = (smooth_length(max(size, frame.side_px)) for size in halves[0].field.shape)
    score_maps = correlate(frame, halves, (rows, columns), _reach_px(candidates[0], frame.pixel_m))
    maxima = [
        _Maximum(candidate.window, window, peak.doubled())
        for candidate, window, scores in zip(candidates, windows, score_maps, strict=True)
        for peak in peaks(scores, candidate.peaks, apart_m / frame.pixel_m)
    ]
    sharp = [maximum.sharp(fields) for maximum in distinct(maxima, apart_m)[: 8 * count]]
    sharp = distinct(sharp, apart_m)[: 4 * count]
    climbing = contenders(sharp[: 2 * count], settings.rival_share)
    highest = [maximum.climbed(fields) for maximum in climbing] + sharp[len(climbing) :]
    return [maximum.place(fields) for maximum in distinct(highest, apart_m)]


def contenders(places: Sequence[PlacedT], share: float) -> list[PlacedT]:
    """Of places, best first, the two best and those whose score is at least a share of the best one's."""
    return [place for number, place in enumerate(places) if number < 2 or place.score >= share * places[0].score]


@dataclass(frozen=True, slots=True)
class _Maximum:
    """A maximum of a window's scores, in the window's pixels, and the number of its hypothesis, where that is known."""

    window: MapWindow
    field: WindowField
    peak: Peak
    hypothesis: int = 0

    @property
    def score(self) -> float:
        return self.peak.score

    @property
    def location(self) -> LonLat:
        return self.window.location(self.peak.x_px * self.window.gsd_m, self.peak.y_px * self.window.gsd_m)

    def sharp(self, fields: FrameFields) -> _Maximum:
        return _Maximum(self.window, self.field, *at_full_resolution(fields, self.field, self.peak))

    def climbed(self, fields: FrameFields) -> _Maximum:
        return _Maximum(self.window, self.field, *climbed(fields, self.field, self.peak, self.hypothesis))

    def place(self, fields: FrameFields) -> CoarsePlace:
        heading_deg = (fields.hypotheses.heading_deg(self.hypothesis) + self.window.heading_deg) % 360.0
        return CoarsePlace(self.location, heading_deg, fields.hypotheses.scale(self.hypothesis), self.score)


def _reach_px(candidate: CandidateWindow, pixel_m: float) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1): where in a window a frame's middle may lie, in pixels of `pixel_m` metres."""
    height, width = (size * candidate.window.gsd_m / 2 / pixel_m for size in candidate.window.pixels.shape[:2])
    across_m, down_m = candidate.reach_m, candidate.reach_down_m
    across, down = across_m / pixel_m, (across_m if down_m is None else down_m) / pixel_m
    return width - across, height - down, width + across, height + down


def window_field(window: MapWindow, device: torch.device) -> WindowField:
    """The orientation field of a window."""
    valid = None if window.valid is None else torch.from_numpy(np.array(window.valid)).to(device)
    pixels = torch.from_numpy(np.array(window.pixels)).to(device)
    return WindowField(orientation_field(luma_of(pixels), valid), valid)


class Placed(Protocol):
    """A place or a pose, and how well it fits."""

    @property
    def location(self) -> LonLat: ...

    @property
    def score(self) -> float: ...


PlacedT = TypeVar("PlacedT", bound=Placed)


def distinct(places: Iterable[PlacedT], apart_m: float) -> list[PlacedT]:
    """Places or poses best first, those within `apart_m` metres of a better one left out: neighbours' windows find the
    same."""
    ranked = sorted(places, key=lambda place: -place.score)
    lon, lat = np.array([place.location for place in ranked]).reshape(-1, 2).T
    is_apart = geo.ellipsoid_distance_m(lon[:, None], lat[:, None], lon, lat) > apart_m
    separate: list[int] = []
    for number in range(len(ranked)):
        if is_apart[number, separate].all():
            separate.append(number)
    return [ranked[number] for number in separate]


def distance_m(first: LonLat, second: LonLat) -> float:
    """Metres between two positions."""
    return float(geo.ellipsoid_distance_m(first.lon, first.lat, second.lon, second.lat))


def whole_map(
    source: WindowSource, geometry: FrameGeometry, settings: RegistrationSettings = DEFAULTS
) -> Iterator[CandidateWindow]:
    """A map's windows, read one at a time, that hold every place a frame's middle may have on it."""
    pixel_m = geometry.footprint_m / settings.coarse_px
    margin_px = 2 * math.ceil(geometry.diagonal_m * max(settings.hypotheses.scales) / pixel_m / 2 + 1)
    most_m = (settings.block_px - margin_px) * pixel_m
    centers, reach_m = blocks_over(source.bounds, most_m)
    width_px, height_px = (2 * math.ceil(reach / pixel_m - 1e-9) + margin_px for reach in reach_m)
    for center in centers:
        window = source.window(center, max(width_px, height_px) * pixel_m, pixel_m).middle(width_px, height_px)
        if window.valid is None or window.valid.any():
            yield CandidateWindow(window, reach_m[0], settings.map_peaks, reach_m[1])


def candidate_window(
    source: WindowSource, center: LonLat, side_m: float, pixel_m: float, reach_m: float, *, keeps_field: bool = False
) -> CandidateWindow:
    """A square window of a map around a place."""
    return CandidateWindow(source.window(center, side_m, pixel_m), reach_m, keeps_field=keeps_field)


def candidates_around(
    source: WindowSource,
    geometry: FrameGeometry,
    centers: Sequence[LonLat],
    reach_m: float,
    settings: RegistrationSettings = DEFAULTS,
    candidate_at: Callable[[WindowSource, LonLat, float, float, float], CandidateWindow] = candidate_window,
) -> Iterator[CandidateWindow]:
    """Windows of a search's places, read one at a time: a frame's middle is looked for within `reach_m` of each.
    candidate_at: `candidate_window`, or one that keeps what it read."""
    pixel_m = geometry.footprint_m / settings.coarse_px
    widest = max(1.0, max(settings.hypotheses.scales) / max(DEFAULTS.hypotheses.scales))
    for center in centers:
        yield candidate_at(source, center, widest * geometry.footprint_m + 2 * reach_m, pixel_m, reach_m)
