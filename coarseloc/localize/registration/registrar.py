"""The recipe: a frame's spectra → the best places over some windows → each refined → poses apart from each other.

coarse  — all headings and three scales over whole windows, at 32 pixels a footprint; the best of them at 64
fine    — block surfaces at the map's ground sample distance, at most 96 pixels a footprint: a search of heading, scale
          and shift on the surfaces, then a fit, then a fit of the frame warped anew
blocks  — the best pose at the map's ground sample distance, at most 256 pixels a footprint, perspective included
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from coarseloc.core.types import Floats, LonLat
from coarseloc.core.windows import MapWindow
from coarseloc.localize.registration import blocks
from coarseloc.localize.registration.coarse import (
    CandidateWindow,
    CoarsePlace,
    coarse_fields,
    coarse_places,
    contenders,
    distance_m,
    distinct,
    window_field,
)
from coarseloc.localize.registration.correlation import MIN_GROUND, crop
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.registration.settings import DEFAULTS, RegistrationSettings
from coarseloc.localize.registration.threads import one_torch_thread, side_by_side

WindowAt = Callable[[LonLat, float, float], MapWindow]
"""(centre, side in metres, ground sample distance in metres) → the window there: `WindowSource.window`."""


_FARTHEST_DRIFT = 2.0  # of a fit's scale, either way
_SETTLED_PX = 0.125  # a fit that moves no block by more is the last: what another would add is a tenth of it

SCANNED_SCALES = tuple(0.6 * 1.1**step for step in range(11))
"""0.6 … 1.56 by 10 %: for the first frames of a flight whose footprint nobody knows."""

TILT_COVARIANCE = 0.0186  # of the tilt's prior: a score's log-likelihood is score / (this · (1 − score))
AGREEING_FRAMES, _SCALE_TOLERANCE = 3, 0.05
_WINDOWS = 16  # correlated at a time

USUAL_HALF_FOV_TAN = 0.667  # of a camera whose field of view nobody gave: 67°


@dataclass(frozen=True, slots=True)
class FinePose:
    """A refined pose: the frame's middle, and its pose on a window of the map.

    `curvature`: float64 [6, 6], second derivatives of the score by shift (right, down, window pixels of `pixel_m`
    metres), turn (radians), relative scale and perspective, all in the window's axes.
    """

    location: LonLat
    pose: WindowPose
    heading_deg: float  # from true north
    score: float
    curvature: Floats
    scatter: Floats  # float64 [6, 6], of the blocks' own slopes
    pixel_m: float
    ground_fraction: float
    window: MapWindow


@dataclass(frozen=True, slots=True)
class Registration:
    """A frame's best pose at the finest resolution, or None; distinct poses at the fine one, whose scores compare, best
    first; and the coarse places they began from."""

    best: FinePose | None
    ranking: tuple[FinePose, ...]
    places: tuple[CoarsePlace, ...]
    rival: FinePose | CoarsePlace | None = None  # the best elsewhere: a pose, plausible or not, else a coarse place

    @property
    def score(self) -> float | None:
        """Of the best pose at the fine resolution."""
        return self.ranking[0].score if self.ranking else None

    @property
    def margin(self) -> float | None:
        """The best fine score above the rival's, below 0 where that one's pose is not plausible."""
        if not self.ranking:
            return None
        return self.ranking[0].score - max(0.0, self.rival.score if self.rival else 0.0)


def refine(
    frame: FrameRaster,
    window: MapWindow,
    start: WindowPose,
    *,
    parameters: int,
    rounds: int,
    searched: bool,
    stiffness: float = 0.0,
    no_tilt: tuple[float, float] = (0.0, 0.0),
) -> FinePose:
    """Fit a frame's pose on a window by block surfaces, warped anew up to `rounds` times, and once more to score where
    the last fit still moved it: one that moves no block by `_SETTLED_PX` pixels is scored as it is.

    `searched`: begin with a search of ±5° and ±8 % (where the start is a coarse one). `stiffness`: see `blocks.fit`,
    about the perspective `no_tilt`.
    """
    field_of_window = window_field(window, frame.device).field
    pose = start
    local, mask = _surfaces(frame, window, field_of_window, pose)
    left = np.zeros(6)  # of the pose's correction: what the surfaces are scored at
    for number in range(rounds):
        first = blocks.search(local) if searched and number == 0 else np.zeros(6)
        rest = np.asarray(no_tilt) - np.asarray(pose.perspective)
        heading = math.radians(pose.heading_deg)
        turn = np.array([[math.cos(heading), -math.sin(heading)], [math.sin(heading), math.cos(heading)]])
        free = parameters if not (searched and number == 0) else blocks.SIMILARITY
        correction = blocks.fit(local, first, free, stiffness, turn @ rest, coarse=number == 0)
        pose = blocks.corrected(pose, correction.parameters, frame.geometry, window.gsd_m)
        # A fit on nothing drifts. So far off it is refused anyway, and a frame of a few pixels has no blocks to score.
        scale = min(max(pose.scale, start.scale / _FARTHEST_DRIFT), start.scale * _FARTHEST_DRIFT)
        pose = replace(pose, scale=scale)
        if np.abs(local.jacobian @ correction.parameters).max(initial=0.0) < _SETTLED_PX:
            left = correction.parameters
            break
        local, mask = _surfaces(frame, window, field_of_window, pose)
    score, curvature, scatter = blocks.evaluate(local, left)
    ground = _ground_fraction(window, pose, frame.geometry, mask)
    return FinePose(
        window.location(pose.x_m, pose.y_m),
        pose,
        (pose.heading_deg + window.heading_deg) % 360.0,
        score,
        curvature,
        scatter,
        window.gsd_m,
        ground,
        window,
    )


def fine_side_m(geometry: FrameGeometry, scale: float, pixel_m: float) -> float:
    """The side of a window that holds a frame at any heading with its shifts, and what a tilt adds."""
    return geometry.diagonal_m * scale * 1.15 + 2 * (blocks.REACH_PX + 6) * pixel_m


def register(
    frame: FrameRaster,
    candidates: Iterable[CandidateWindow],
    window_at: WindowAt,
    map_gsd_m: float,
    settings: RegistrationSettings = DEFAULTS,
    perspective: tuple[float, float] | None = None,
    refined: int | None = None,
) -> Registration:
    """A frame's best poses over candidate windows: the Top-10's, or the blocks of a whole map.

    `candidates` may be lazy: a few are held at a time. All have `coarse_px` pixels a footprint, one size and one reach.
    `perspective`: the frame's, where its attitude is known (`geometry.perspective_of`); otherwise it is fitted.
    `refined`: how many places are at most, `settings.refined` by default; twice as many where none fits clearly, so
    that a wrong place has rivals to be told by.
    """
    with one_torch_thread():
        return _register(frame, candidates, window_at, map_gsd_m, settings, perspective, refined)


def _register(
    frame: FrameRaster,
    candidates: Iterable[CandidateWindow],
    window_at: WindowAt,
    map_gsd_m: float,
    settings: RegistrationSettings,
    perspective: tuple[float, float] | None,
    refined: int | None,
) -> Registration:
    apart_m = settings.apart_footprints * frame.geometry.footprint_m
    count = settings.refined if refined is None else refined
    fields = coarse_fields(frame, settings)
    places: list[CoarsePlace] = []
    remaining = iter(candidates)
    while batch := list(itertools.islice(remaining, _WINDOWS)):
        places = distinct([*places, *coarse_places(fields, batch, settings, apart_m, count)], apart_m)[: 4 * count]
    jobs = [
        partial(_fine, frame, place, window_at, map_gsd_m, perspective, settings)
        for place in contenders(places, settings.rival_share)
    ]
    poses = side_by_side(jobs[:count], frame.device)
    if max((pose.score for pose in poses), default=1.0) < settings.doubtful_score:
        poses += side_by_side(jobs[count : 2 * count], frame.device)
    separate = distinct(poses, apart_m)
    ranking = [pose for pose in separate if _is_plausible(pose, settings)]
    if not ranking:
        return Registration(None, (), tuple(places))
    rivals: list[FinePose | CoarsePlace] = [pose for pose in separate if pose is not ranking[0]]
    rivals = rivals or [place for place in places if distance_m(place.location, ranking[0].location) > apart_m]
    best = _finest(frame, ranking[0], window_at, map_gsd_m, perspective, settings)
    return Registration(best, tuple(ranking), tuple(places), max(rivals, key=lambda rival: rival.score, default=None))


def _is_plausible(pose: FinePose, settings: RegistrationSettings) -> bool:
    """Enough of the frame is on ground, and its scale within what was looked for: a fit on nothing drifts away."""
    scales = settings.hypotheses.scales
    drift = 1.0 + blocks.SEARCHED_SCALE
    return pose.ground_fraction >= MIN_GROUND and min(scales) / drift <= pose.pose.scale <= max(scales) * drift


def _fine(
    frame: FrameRaster,
    place: CoarsePlace,
    window_at: WindowAt,
    map_gsd_m: float,
    perspective: tuple[float, float] | None,
    settings: RegistrationSettings,
) -> FinePose:
    """A coarse place's pose at the fine resolution, a similarity."""
    pixel_m = working_pixel_m(frame, map_gsd_m, settings.fine_px)
    window = window_at(place.location, fine_side_m(frame.geometry, place.scale, pixel_m), pixel_m)
    heading = place.heading_deg - window.heading_deg
    start = WindowPose(*window.metres_of(place.location), heading, place.scale, perspective or (0.0, 0.0))
    return refine(frame, window, start, parameters=blocks.SIMILARITY, rounds=settings.fine_rounds, searched=True)


def _finest(
    frame: FrameRaster,
    pose: FinePose,
    window_at: WindowAt,
    map_gsd_m: float,
    perspective: tuple[float, float] | None,
    settings: RegistrationSettings,
) -> FinePose:
    """A fine pose at the finest resolution, with perspective where that is not known."""
    geometry = frame.geometry
    pixel_m = working_pixel_m(frame, map_gsd_m, settings.finest_px)
    window = window_at(pose.location, fine_side_m(geometry, pose.pose.scale, pixel_m), pixel_m)
    x_m, y_m = window.metres_of(pose.location)
    start = replace(pose.pose, x_m=x_m, y_m=y_m, heading_deg=pose.heading_deg - window.heading_deg)
    free = settings.perspective and perspective is None
    return refine(
        frame,
        window,
        start,
        parameters=blocks.PERSPECTIVE if free else blocks.SIMILARITY,
        rounds=settings.finest_rounds,
        searched=False,
        stiffness=_stiffness(geometry, pose.score, settings) if free else 0.0,
    )


def best_of_maps(registrations: Sequence[Registration], apart_m: float) -> tuple[int, Registration]:
    """(index, registration) of the best pose of one frame on several maps, its rival the best elsewhere on any."""
    index = max(range(len(registrations)), key=lambda number: _best_score(registrations[number]))
    best = registrations[index]
    if not best.ranking:
        return index, best
    elsewhere: list[FinePose | CoarsePlace] = [best.rival] if best.rival else []
    for registration in (*registrations[:index], *registrations[index + 1 :]):
        elsewhere += [
            pose for pose in registration.ranking if distance_m(pose.location, best.ranking[0].location) > apart_m
        ]
    return index, replace(best, rival=max(elsewhere, key=lambda rival: rival.score, default=None))


def _best_score(registration: Registration) -> float:
    return -math.inf if registration.score is None else registration.score


def locked_scale(scales: Sequence[float]) -> float | None:
    """The scale that a flight's first frames agree on, registered over `SCANNED_SCALES`; None where there are fewer
    than three, or half of them are more than 5 % from their median. Multiply the footprint by it, and register anew."""
    if len(scales) < AGREEING_FRAMES:
        return None
    logarithms = np.log(scales)
    median = float(np.median(logarithms))
    if float(np.median(np.abs(logarithms - median))) > _SCALE_TOLERANCE:
        return None
    return math.exp(median)


def working_pixel_m(frame: FrameRaster, map_gsd_m: float, most_px: int) -> float:
    """Metres a pixel of a level: the map's ground sample distance, coarser where the frame is, or where that would be
    more than `most_px` a footprint."""
    return max(map_gsd_m, frame.pixel_m, frame.geometry.footprint_m / most_px)


def _stiffness(geometry: FrameGeometry, score: float, settings: RegistrationSettings) -> float:
    """What a perspective of 1 costs, times two, in units of the score: a score's log-likelihood is
    score / (TILT_COVARIANCE · (1 − score)), a tilt's is −(tan τ / tan sd)² / 2."""
    half_fov_tan = geometry.half_fov_tan if geometry.half_fov_tan is not None else USUAL_HALF_FOV_TAN
    sd = half_fov_tan * math.tan(math.radians(settings.tilt_sd_deg))
    return TILT_COVARIANCE * (1.0 - score) / sd**2


def _surfaces(
    frame: FrameRaster, window: MapWindow, field_of_window: Tensor, pose: WindowPose
) -> tuple[blocks.Surfaces, Tensor]:
    pixel_m, geometry = window.gsd_m, frame.geometry
    radius = math.ceil(geometry.diagonal_m * pose.scale * 1.04 / 2 / pixel_m)
    left, top = round(pose.x_m / pixel_m) - radius, round(pose.y_m / pixel_m) - radius
    local = WindowPose(
        pose.x_m - left * pixel_m, pose.y_m - top * pixel_m, pose.heading_deg, pose.scale, pose.perspective
    )
    side = 2 * radius
    warped, mask = frame.field(local, pixel_m, side, side)
    reach = blocks.REACH_PX
    around = crop(field_of_window, left - reach, top - reach, side + 2 * reach)
    half_width_px = geometry.footprint_m * pose.scale / 2 / pixel_m
    middle = (local.x_m / pixel_m, local.y_m / pixel_m)
    return blocks.surfaces(warped, mask, around, middle, half_width_px), mask


def _ground_fraction(window: MapWindow, pose: WindowPose, geometry: FrameGeometry, mask: Tensor) -> float:
    """Share of the frame that lies on the window's ground."""
    valid = np.ones(window.pixels.shape[:2], bool) if window.valid is None else window.valid
    side = mask.shape[0]
    left, top = (round(value / window.gsd_m) - side // 2 for value in (pose.x_m, pose.y_m))
    ground = crop(torch.from_numpy(valid.astype(np.float32)).to(mask.device), left, top, side)
    return float((ground * mask).sum() / mask.sum().clamp_min(1.0))
