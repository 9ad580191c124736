"""How a frame lies relative to the one before: from pictures, or from a file of displacements or speeds. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from coarseloc.core import geo
from coarseloc.core.tracks import MotionSource
from coarseloc.core.types import Floats

MotionAxes = Literal["frame", "ground"]

UNKNOWN_TURN_SD_DEG, _GUESSED_SCALE_SD = 12.0, 0.03
_LABEL_TURN_SD_DEG = 3.0  # between two labels' yaws: what a compass is off by is the same in both, or nearly
_GUESSED_SHIFT_SD = (0.15, 0.35)  # the larger: in footprints, in lengths of the last step
_UNKNOWN_SHIFT_SD = 0.5  # footprints, where no step is known yet


@dataclass(frozen=True, slots=True)
class Displacement:
    """From the middle of one frame to the middle of the next, on the ground.

    `across_m`, `along_m`: to the right and up of the first frame's picture ("frame" axes), or east and north ("ground"
    axes: a file's). Frame axes are in metres of the first frame's expected width: multiply by its scale. `turn_deg`:
    clockwise. `log_scale`: of the second frame's width on the ground over its expected width, less the first one's.

    `covariance`: float64 [4, 4] of (across, along, turn, log scale), in m, degrees and 1; a source that does not tell a
    turn or a scale gives it a large variance. `quality`: the peak of the correlation over the standard deviation
    beside it, times the root of the share of common ground; None where no picture was correlated.
    """

    across_m: float
    along_m: float
    turn_deg: float
    log_scale: float
    covariance: Floats
    quality: float | None = None
    axes: MotionAxes = "frame"

    @property
    def length_m(self) -> float:
        return math.hypot(self.across_m, self.along_m)


def displacement_covariance(shift_sd_m: float, turn_sd_deg: float, log_scale_sd: float) -> Floats:
    """float64 [4, 4] of errors that do not depend on each other."""
    return np.diag(np.square([shift_sd_m, shift_sd_m, turn_sd_deg, log_scale_sd]))


def registers(motion: Displacement | None, source: MotionSource, *, is_first: bool) -> bool:
    """Whether a frame is worth a look: a flight's first one, one that registers with the frame before (cloud registers
    with nothing), and any where motion is not told by pictures."""
    return is_first or motion is not None or source != "frames"


def guessed_displacement(
    latest: Displacement | None,
    footprint_m: float,
    headings_deg: tuple[float | None, float | None] = (None, None),
    length_bounds_m: tuple[float, float] | None = None,
) -> Displacement:
    """A displacement like the latest one that is known, with what an aircraft may do meanwhile. headings_deg: of both
    frames, where labels tell them. length_bounds_m: (least, most), where a speed tells them."""
    before_deg, after_deg = headings_deg
    turn_deg: float | None = None
    if before_deg is not None and after_deg is not None:
        turn_deg = float(geo.signed_difference_deg(before_deg, after_deg))
    least_m, most_m = length_bounds_m or (0.0, math.inf)
    turn_sd_deg = UNKNOWN_TURN_SD_DEG if turn_deg is None else _LABEL_TURN_SD_DEG
    if latest is None:
        # In any direction: of a ring's radius each axis has the root of a half.
        sd_m = _UNKNOWN_SHIFT_SD * footprint_m if length_bounds_m is None else most_m / math.sqrt(2)
        covariance = displacement_covariance(sd_m, turn_sd_deg, _GUESSED_SCALE_SD)
        return Displacement(0.0, 0.0, turn_deg or 0.0, 0.0, covariance)
    in_footprints, in_steps = _GUESSED_SHIFT_SD
    sd_m = max(in_footprints * footprint_m, in_steps * latest.length_m)
    length_m = min(max(latest.length_m, least_m), most_m)
    if length_bounds_m is not None:
        sd_m = min(sd_m, max((most_m - least_m) / 2, in_steps * length_m))
    factor = length_m / latest.length_m if latest.length_m > 0 else 1.0
    return replace(
        latest,
        across_m=latest.across_m * factor,
        along_m=latest.along_m * factor,
        turn_deg=turn_deg or 0.0,
        log_scale=0.0,
        covariance=displacement_covariance(sd_m, turn_sd_deg, _GUESSED_SCALE_SD),
        quality=None,
    )
