"""A fix: where a frame lies on the map in metres, with covariance and probability, or no match and why. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from coarseloc.core.camera import GIVEN
from coarseloc.core.types import Covariance, LonLat

CHI2_95 = -2.0 * math.log(0.05)  # of two degrees of freedom

NoMatchReason = Literal["no-ground", "ambiguous"]
METHOD = "orientation-correlation"
HALF_A_PIXEL = "half a ground sample distance"  # a map's registration error where nobody states it

Corners = tuple[LonLat, LonLat, LonLat, LonLat]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Semi-axes in metres; `azimuth_deg`, in [0, 180), is the major one's, clockwise from true north."""

    major_m: float
    minor_m: float
    azimuth_deg: float


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The next best place of a frame, apart from its fix."""

    location: LonLat
    heading_deg: float
    score: float


@dataclass(frozen=True, slots=True)
class Pose2D:
    """A frame's place on the map. `aircraft` is None where the camera's height is unknown."""

    ground: LonLat  # under the frame's middle
    ground_covariance_m2: Covariance
    aircraft: LonLat | None
    aircraft_covariance_m2: Covariance | None
    heading_deg: float  # that the frame's upper edge faces, from true north
    heading_sd_deg: float
    tilt_deg: float | None
    tilt_sd_deg: float
    scale: float
    score: float
    margin: float
    hypotheses: int  # distinct places compared
    probability: float
    attitude: str  # "label", "boresight", "estimated" or "unknown"
    method: str
    fit_digest: str
    corners: Corners  # of the frame on the ground: upper left, upper right, lower right, lower left
    runner_up: RunnerUp | None = None

    @property
    def position(self) -> LonLat:
        """The aircraft's where that is known, else the ground's under the frame's middle."""
        return self.aircraft or self.ground

    @property
    def position_covariance_m2(self) -> Covariance:
        """Of `position`."""
        return self.aircraft_covariance_m2 or self.ground_covariance_m2


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Why a frame has no place: "no-ground" (nowhere does enough of it lie on the map), or "ambiguous" (nothing tells
    its best place from the next, or no fit held). `rejected` is never to be shown as a position."""

    reason: NoMatchReason
    score: float | None
    margin: float | None
    probability: float
    fit_digest: str
    rejected: Pose2D | None = None


@dataclass(frozen=True, slots=True)
class NotVerified:
    """Why a frame was not looked for on the map at all, in words for its user."""

    reason: str


FixAnswer = Pose2D | NoMatch | NotVerified


def map_error(gsd_m: float, stated_sd_m: float | None) -> tuple[float, str]:
    """(a map's own registration error per axis in metres, where that is from): as stated, else half a ground sample
    distance `gsd_m`."""
    return (gsd_m / 2, HALF_A_PIXEL) if stated_sd_m is None else (stated_sd_m, GIVEN)


@dataclass(frozen=True, slots=True)
class FixConditions:
    """What a frame was looked for with."""

    footprint_m: float  # the frame's expected width on the ground
    footprint_source: str
    map_name: str
    map_gsd_m: float
    map_sd_m: float  # the map's own registration error, per axis
    map_sd_source: str
    verify_ms: float
    map_pictures: int | None = None  # captures that the map around the fix is laid together from; 1: a tile alone


@dataclass(frozen=True, slots=True)
class FrameFix:
    """One frame looked for on the map; `conditions` is None where it was not."""

    answer: FixAnswer
    conditions: FixConditions | None = None

    @property
    def pose(self) -> Pose2D | None:
        """The pose, where there is a match."""
        return self.answer if isinstance(self.answer, Pose2D) else None

    @property
    def match(self) -> bool | None:
        """False: no match; None: not verified."""
        return None if isinstance(self.answer, NotVerified) else isinstance(self.answer, Pose2D)

    @property
    def reason(self) -> str | None:
        """Why there is no match, or no verification; None where there is a match."""
        return None if isinstance(self.answer, Pose2D) else self.answer.reason


def ellipse(covariance: Covariance, share: float = 0.95) -> Ellipse:
    """The ellipse that holds `share` of a normal distribution: −2 ln(1 − share) is chi-square's quantile."""
    east_east, east_north, north_north = covariance
    mean, spread = (east_east + north_north) / 2, math.hypot((north_north - east_east) / 2, east_north)
    quantile = -2.0 * math.log1p(-share)
    azimuth_deg = math.degrees(math.atan2(2 * east_north, north_north - east_east)) / 2
    return Ellipse(
        math.sqrt(max(mean + spread, 0.0) * quantile),
        math.sqrt(max(mean - spread, 0.0) * quantile),
        azimuth_deg % 180.0 % 180.0,  # once would leave 180 of a hair below 0
    )
