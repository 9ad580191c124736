"""Fixes that are stored already as the measurements of a track: nothing is looked for anew. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.fixes import FixAnswer, NoMatch, Pose2D
from coarseloc.core.types import BBox, Floats, LonLat
from coarseloc.localize.tracking.kalman import EAST, HEADING, LOG_SCALE, NORTH, PoseMeasurement
from coarseloc.localize.tracking.tracker import LocalPlane

STRONG_PROBABILITY = 0.95  # of a stored fix: odds of 20

_LEAST_SD_M = 0.1  # of a fix, once the map's own error is left out
_HEADING_SD_DEG, _LOG_SCALE_SD = 0.3, 0.01  # what a fit's curvature does not tell
_SAMPLES = np.linspace(-0.9, 0.9, 5)  # of a frame, in half widths


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """A frame laid on the map: its middle on the ground with its covariance, float64 [2, 2] in m², and its width over
    the expected one."""

    ground: LonLat
    covariance_m2: Floats
    heading_deg: float
    heading_sd_deg: float
    scale: float

    def measured(self, plane: LocalPlane, probability: float, strong_probability: float) -> PoseMeasurement:
        """As a track's measurement; strong from a probability on."""
        mean = np.array([*plane.metres(self.ground), self.heading_deg % 360.0, math.log(self.scale)])
        covariance = np.diag([0.0, 0.0, self.heading_sd_deg**2 + _HEADING_SD_DEG**2, _LOG_SCALE_SD**2])
        covariance[:2, :2] = self.covariance_m2
        return PoseMeasurement(mean, covariance, _log_odds(probability), probability >= strong_probability)


def _log_odds(probability: float) -> float:
    """Of a probability, within ±20."""
    bounded = min(max(probability, 2e-9), 1 - 2e-9)
    return math.log(bounded / (1 - bounded))


def share_inside(bounds: BBox, plane: LocalPlane, state: Floats, footprint_m: float, aspect: float) -> float:
    """The share of a frame at a state that lies in a box; aspect: its height over its width."""
    half_m = footprint_m / 2 * math.exp(float(state[LOG_SCALE]))
    right, up = (half_m * grid.ravel() for grid in np.meshgrid(_SAMPLES, aspect * _SAMPLES))
    east, north = geo.turned_m(right, up, float(state[HEADING]))
    per_lon, per_lat = geo.metres_per_degree(plane.origin.lat)
    lon = plane.origin.lon + (state[EAST] + east) / per_lon
    lat = plane.origin.lat + (state[NORTH] + north) / per_lat
    return float(geo.inside(lon, lat, bounds).mean())


@dataclass(frozen=True, slots=True)
class StoredFixSearch:
    """A `FrameSearch` of one frame's stored answer. `map_sd_m`: the map's own error, which the answer's covariance
    holds and a track adds at read-out."""

    answer: FixAnswer | None
    plane: LocalPlane
    bounds: BBox  # of the map
    footprint_m: float
    aspect: float = 1.0
    map_sd_m: float = 0.0

    def coverage(self, state: Floats) -> float:
        """See `FrameSearch`: by the map's box."""
        return share_inside(self.bounds, self.plane, state, self.footprint_m, self.aspect)

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        """See `FrameSearch`: the stored place, where it lies within a footprint of the expected one."""
        return [place for place in self.everywhere() if math.dist(place.mean[:2], state[:2]) <= self.footprint_m]

    def everywhere(self) -> Sequence[PoseMeasurement]:
        """See `FrameSearch`: the stored place, or the one that was rejected, with its odds."""
        if isinstance(self.answer, Pose2D):
            pose = self.answer
        elif isinstance(self.answer, NoMatch) and self.answer.rejected is not None:
            pose = self.answer.rejected
        else:
            return ()
        values, vectors = np.linalg.eigh(pose.ground_covariance_m2.matrix() - self.map_sd_m**2 * np.eye(2))
        ground = vectors @ np.diag(np.maximum(values, _LEAST_SD_M**2)) @ vectors.T
        placed = PlacedFrame(pose.ground, ground, pose.heading_deg, pose.heading_sd_deg, pose.scale)
        return (placed.measured(self.plane, pose.probability, STRONG_PROBABILITY),)
