"""Which reference is right for which frame, and how far off each is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats, LonLat


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Q frames against R references."""

    right: Bools  # [Q, R]
    error_m: Floats  # [Q, R]; nan where positions are not known
    correlation: float | None = None  # see `intervals.Estimator`: None where frames are at places drawn at random

    @classmethod
    def of_places(cls, frames: Sequence[LonLat], references: Sequence[LonLat], half_m: float) -> GroundTruth:
        """Right where a frame's centre lies in the square of 2 x `half_m` around the reference's."""
        frame_lon, frame_lat = np.array(frames, float).T[:, :, None]
        lon, lat = np.array(references, float).T
        m_per_lon, m_per_lat = geo.degree_lengths(frame_lat)
        east_m, north_m = geo.signed_difference_deg(lon, frame_lon) * m_per_lon, (frame_lat - lat) * m_per_lat
        return cls(np.maximum(np.abs(east_m), np.abs(north_m)) <= half_m, _distances_m(frames, references))

    @classmethod
    def of_pictures(cls, frames: int, references: int, places: Sequence[LonLat] = ()) -> GroundTruth:
        """Frame i is the picture of reference i, a neighbour of frame i + 1. `places`: of the references, if known."""
        right = np.eye(frames, references, dtype=np.bool_)
        error_m = _distances_m(places[:frames], places) if places else np.full(right.shape, np.nan)
        return cls(right, error_m, correlation=1.0)

    def evaluate(self, answers: NDArray[np.int64]) -> tuple[Bools, Floats]:
        """(right, error_m), both [Q, V], of the references answered, int64 [Q, V]."""
        return np.take_along_axis(self.right, answers, 1), np.take_along_axis(self.error_m, answers, 1)

    def reachable(self, searched: Bools) -> Bools:
        """[Q, V]: whether some reference is right among those that view v searches, `searched` [V, R]. No search can
        be right where none is: their share is its ceiling."""
        return np.asarray((self.right[:, None] & searched).any(axis=2))

    def nearest(self, searched: Bools) -> NDArray[np.int64]:
        """[Q]: the reference `searched` [R] that is right and nearest to each frame; any, where none is right."""
        error_m = np.where(self.right & searched, np.nan_to_num(self.error_m), np.inf)
        return np.asarray(error_m.argmin(axis=1))

    def nearest_m(self, searched: Bools) -> Floats:
        """[Q]: from each frame to the nearest of the references `searched` [R]: no answer can be nearer."""
        return np.asarray(self.error_m[:, searched].min(axis=1))


def _distances_m(a: Sequence[LonLat], b: Sequence[LonLat]) -> Floats:
    """[A, B]."""
    first, second = np.array(a, float), np.array(b, float)
    return geo.distance_m(first[:, :1], first[:, 1:], second[:, 0], second[:, 1])
