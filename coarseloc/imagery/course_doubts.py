"""Whether labels' yaws go with the way that a flight took over the ground: they may be counted from elsewhere, or the
other way round."""

from __future__ import annotations

import cmath
from collections.abc import Iterable, Sequence

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import LonLat, Pose

_STEP_M = 10.0  # from one place to the next: nearer, receivers' noise is in the course
_LONGEST_STEP_M = 2_000.0  # farther, nothing says how it came there
_STRAIGHT_DEG = 30.0  # between two steps of which the course is taken
_FEW_COURSES = 6
_ALIKE, _UNLIKE = 0.95, 0.75  # lengths of a mean direction: spreads of about 18° and 43°
_OFFSET_DEG = 45.0  # less is wind, or how the camera is mounted


def course_notices(poses: Iterable[Pose]) -> list[str]:
    """Say where the yaws of a flight turn against its course, or lie beside it all along.

    poses: in the order of the flight. A craft that looks into one direction wherever it flies tells nothing, nor do
    courses along one line of a flight whose yaws are those along it.
    """
    courses, yaws = _courses_and_yaws([pose for pose in poses if pose.location is not None])
    if len(courses) < _FEW_COURSES:
        return []
    beside, alike = _mean_direction(courses - yaws)
    counted_from, mirrored = _mean_direction(courses + yaws)
    zero = round(counted_from) % 360
    if mirrored > _ALIKE and alike < _UNLIKE:
        return [
            f"the yaws of {len(courses)} labelled frames turn against their course over the ground: are they counted "
            f"counter-clockwise, 0 at {zero}°? They are taken clockwise from north: write "
            f"{zero} - yaw if so"
        ]
    if alike > _ALIKE and abs(beside) > _OFFSET_DEG:
        return [
            f"the course over the ground of {len(courses)} labelled frames lies {beside:+.0f}° beside their yaws all "
            "along: are yaws counted from elsewhere than north, or the other way? They are taken clockwise from north"
        ]
    return []


def _courses_and_yaws(poses: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    """(courses, yaws), float64 [N] in degrees, of places that are passed straight on."""
    passed: list[tuple[LonLat, float | None]] = []
    for pose in poses:
        if pose.location and (not passed or geo.distance_m(*passed[-1][0], *pose.location) >= _STEP_M):
            passed.append((pose.location, pose.yaw_deg))
    if len(passed) < 3:
        return np.empty(0), np.empty(0)
    lon, lat = np.array([place for place, _ in passed]).T
    per_lon, per_lat = geo.degree_lengths(lat)
    east, north = np.diff(lon) * per_lon[:-1], np.diff(lat) * per_lat[:-1]
    steps = np.degrees(np.arctan2(east, north))
    lengths = np.hypot(east, north)
    yaws = np.array([np.nan if yaw is None else yaw for _, yaw in passed[1:-1]])
    turns = geo.signed_difference_deg(steps[:-1], steps[1:])
    usable = (
        (np.abs(turns) < _STRAIGHT_DEG) & (np.maximum(lengths[:-1], lengths[1:]) < _LONGEST_STEP_M) & np.isfinite(yaws)
    )
    return (steps[:-1] + turns / 2)[usable], yaws[usable]


def _mean_direction(degrees: np.ndarray) -> tuple[float, float]:
    """(mean of directions in ±180°, its length in [0, 1]: 1 where all are alike)."""
    mean = complex(np.exp(1j * np.radians(degrees)).mean())
    return float(np.degrees(cmath.phase(mean))), abs(mean)
