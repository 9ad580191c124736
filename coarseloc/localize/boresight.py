"""Boresight: the constant angle between a camera's line of sight and the aircraft's vertical, leg by leg, and the map's
shift. Pure.

With g the ground fix under a frame's middle, t the true position below the aircraft, h the camera's height, R(ψ) the
turn by the aircraft's heading and a the tangents (right, forward) that labels give of its attitude:

    g − t = h · R(ψ) · (a + b_leg) + m + noise.

b and m are solved together by least squares, reweighted (Huber 1964). A leg alone gives two numbers for both, so b is
expected to stay from leg to leg (`DRIFT_DEG`, reweighted too: a real jump is no outlier to hide) and m to be small
(`SHIFT_SD_M`). Legs of one heading cannot tell m from b at all: then m is taken as 0, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Floats

LEG_TURN_DEG = 25.0  # from a leg's mean heading: more is another leg
LEG_FRAMES = 5  # at least: fewer say nothing of a constant offset
JUMP_SIGMAS = 5.0  # between two parts of a leg, or two legs
JUMP_DEG = 0.5  # less is not worth a word
DRIFT_DEG = 0.3  # of a boresight from leg to leg, one standard deviation
SHIFT_SD_M = 5.0  # of a map, per axis
SPREAD_DEG = 45.0  # of headings, from which the map's shift can be told apart
_HUBER = 1.345  # in standard deviations: 95 % as efficient as least squares on normal errors
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Sight:
    """One frame: where its middle lies on the ground against where the aircraft truly was, east and north in metres."""

    index: int
    offset_m: tuple[float, float]
    heading_deg: float  # of the aircraft
    height_m: float  # of the camera above ground
    pitch_deg: float = 0.0  # as labels give it, 0 where they do not
    roll_deg: float = 0.0


@dataclass(frozen=True, slots=True)
class LegBoresight:
    """A leg's constant offset beyond the labels' attitude: pitch nose up, roll right wing down."""

    first: int  # frame index
    last: int
    frames: int
    heading_deg: float
    pitch_deg: float
    roll_deg: float
    sd_deg: float  # per axis
    scatter_deg: float  # of single frames about it
    jump: bool  # differs from the leg before by more than their errors explain


@dataclass(frozen=True, slots=True)
class Boresight:
    """A flight's legs and the map's shift, by (east, north); `shift_m` is None where the legs' headings are too much
    alike to tell."""

    legs: tuple[LegBoresight, ...]
    shift_m: tuple[float, float] | None
    shift_sd_m: float | None
    unused: tuple[int, ...]  # indices of frames on turns, and of legs that are too short


def estimate_boresight(sights: Sequence[Sight]) -> Boresight:
    """Estimate the boresight of each leg and the map's shift. sights: in the flight's order."""
    legs = [part for leg in split_legs(sights) for part in _split_at_jumps(leg)]
    used = {sight.index for leg in legs for sight in leg}
    unused = tuple(sight.index for sight in sights if sight.index not in used)
    if not legs:
        return Boresight((), None, None, unused)
    with_shift = _spread_deg([sight.heading_deg for leg in legs for sight in leg]) >= SPREAD_DEG
    tangents, shift, covariance, residuals = _solve(legs, with_shift)
    estimates: list[LegBoresight] = []
    for number, leg in enumerate(legs):
        right, forward = tangents[number]
        pitch, roll = math.degrees(math.atan(forward)), math.degrees(math.atan(-right))
        sd = math.degrees(math.sqrt(np.trace(covariance[2 * number : 2 * number + 2, 2 * number : 2 * number + 2]) / 2))
        scatter = math.degrees(math.sqrt(float(np.mean(np.square(residuals[number])))))
        before = estimates[-1] if estimates else None
        jump = before is not None and _is_jump(
            math.hypot(pitch - before.pitch_deg, roll - before.roll_deg), math.hypot(sd, before.sd_deg)
        )
        estimates.append(
            LegBoresight(leg[0].index, leg[-1].index, len(leg), mean_heading(leg), pitch, roll, sd, scatter, jump)
        )
    if not with_shift:
        return Boresight(tuple(estimates), None, None, unused)
    shift_sd = math.sqrt(np.trace(covariance[-2:, -2:]) / 2)
    return Boresight(tuple(estimates), (float(shift[0]), float(shift[1])), shift_sd, unused)


def split_legs(sights: Sequence[Sight]) -> list[list[Sight]]:
    """Consecutive frames of one heading, `LEG_FRAMES` at least; of a flight that only turns all of it, since an offset
    is in the aircraft's axes."""
    legs: list[list[Sight]] = [[]]
    for sight in sights:
        if legs[-1] and geo.heading_difference(mean_heading(legs[-1]), sight.heading_deg) > LEG_TURN_DEG:
            legs.append([])
        legs[-1].append(sight)
    straight = [leg for leg in legs if len(leg) >= LEG_FRAMES]
    return straight or ([list(sights)] if len(sights) >= LEG_FRAMES else [])


def mean_heading(sights: Sequence[Sight]) -> float:
    """The circular mean, degrees in [0, 360)."""
    headings = np.radians([sight.heading_deg for sight in sights])
    return float(np.degrees(np.arctan2(np.sin(headings).mean(), np.cos(headings).mean())) % 360.0)


def _split_at_jumps(leg: list[Sight]) -> list[list[Sight]]:
    """A leg in two where its offset jumps most, if it does, and so on."""
    tangents = np.array([_tangents(sight) for sight in leg])
    best, place = 0.0, 0
    for split in range(LEG_FRAMES, len(leg) - LEG_FRAMES + 1):
        before, after = (part - np.median(part, axis=0) for part in (tangents[:split], tangents[split:]))
        change = np.median(tangents[split:], axis=0) - np.median(tangents[:split], axis=0)
        # 1.4826 · MAD estimates σ; a median's variance is π/2 · σ²/n.
        sigma = 1.4826 * float(np.median(np.abs(np.concatenate([before, after]))))
        sd_deg = math.degrees(max(sigma, 1e-9) * math.sqrt(math.pi / 2 * (1 / len(before) + 1 / len(after))))
        change_deg = math.degrees(float(np.hypot(*change)))
        if _is_jump(change_deg, sd_deg) and change_deg / sd_deg > best:
            best, place = change_deg / sd_deg, split
    if not place:
        return [leg]
    return [*_split_at_jumps(leg[:place]), *_split_at_jumps(leg[place:])]


def _is_jump(change_deg: float, sd_deg: float) -> bool:
    return change_deg > JUMP_DEG and change_deg > JUMP_SIGMAS * sd_deg


def _tangents(sight: Sight) -> Floats:
    """float64 [2]: (right, forward) of the line of sight beyond the labels' attitude."""
    return _to_body(sight) @ sight.offset_m / sight.height_m - _label_tangents(sight)


def _to_body(sight: Sight) -> Floats:
    """float64 [2, 2]: (east, north) to (right, forward)."""
    heading = math.radians(sight.heading_deg)
    return np.array([[math.cos(heading), -math.sin(heading)], [math.sin(heading), math.cos(heading)]])


def _label_tangents(sight: Sight) -> Floats:
    """float64 [2]: (right, forward) that a camera under an aircraft of this attitude looks, as
    `registration.geometry.perspective_of`."""
    pitch, roll = math.radians(sight.pitch_deg), math.radians(sight.roll_deg)
    return np.array([-math.tan(roll), math.tan(pitch) / math.cos(roll)])


def _solve(legs: Sequence[Sequence[Sight]], with_shift: bool) -> tuple[Floats, Floats, Floats, list[Floats]]:
    """(tangents [L, 2], shift [2], covariance of all, each leg's residuals [n, 2] as tangents)."""
    count = 2 * len(legs) + (2 if with_shift else 0)
    rows, values = [], []
    for number, leg in enumerate(legs):
        for sight in leg:
            row = np.zeros((2, count))
            row[:, 2 * number : 2 * number + 2] = np.eye(2)
            if with_shift:
                row[:, -2:] = _to_body(sight) / sight.height_m
            rows.append(row)
            values.append(_tangents(sight))
    design, observed = np.array(rows), np.array(values)
    ends = np.cumsum([len(leg) for leg in legs])[:-1]
    residuals = np.concatenate([part - np.median(part, axis=0) for part in np.split(observed, ends)])
    drifts, drift_weights = _drifts(len(legs), count), np.ones(len(legs) - 1)
    prior = np.zeros(count)
    if with_shift:
        prior[-2:] = SHIFT_SD_M**-2
    for _ in range(_ROUNDS):
        weights, variance = _huber_weights(residuals, _sigma(residuals)), _sigma(residuals) ** 2
        normal = np.einsum("n,nij,nik->jk", weights, design, design) + variance * np.diag(prior)
        drift_sd = math.tan(math.radians(DRIFT_DEG))
        normal += variance / drift_sd**2 * np.einsum("n,nij,nik->jk", drift_weights, drifts, drifts)
        solution = np.linalg.solve(normal, np.einsum("n,nij,ni->j", weights, design, observed))
        residuals = observed - design @ solution
        drift_weights = _huber_weights(drifts @ solution, drift_sd)
    covariance = _sigma(residuals) ** 2 * np.linalg.inv(normal)
    shift = solution[-2:] if with_shift else np.zeros(2)
    return solution[: 2 * len(legs)].reshape(-1, 2), shift, covariance, list(np.split(residuals, ends))


def _sigma(residuals: Floats) -> float:
    return max(1.4826 * float(np.median(np.abs(residuals))), 1e-9)


def _huber_weights(residuals: Floats, sigma: float) -> Floats:
    """float64 [n], for residuals [n, 2]."""
    lengths = np.maximum(np.hypot(residuals[:, 0], residuals[:, 1]), 1e-12)
    return np.minimum(1.0, _HUBER * sigma / lengths)


def _drifts(legs: int, count: int) -> Floats:
    """float64 [L - 1, 2, count]: differences of neighbouring legs' tangents."""
    rows = np.zeros((legs - 1, 2, count))
    for number in range(legs - 1):
        rows[number, :, 2 * number : 2 * number + 2] = -np.eye(2)
        rows[number, :, 2 * number + 2 : 2 * number + 4] = np.eye(2)
    return rows


def _spread_deg(headings: Sequence[float]) -> float:
    """The largest difference of any two headings."""
    return max((geo.heading_difference(a, b) for a in headings for b in headings), default=0.0)
