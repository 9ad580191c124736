"""Which reference is right for which frame, and how far off each is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats, LonLat


@dataclass(frozen=True, slots=True)
class Truth:
    """Q frames against R references."""

    right: Bools  # [Q, R]
    error_m: Floats  # [Q, R]; nan where positions are not known
    correlation: float | None = None  # see `intervals.Estimator`: None where frames are at places drawn at random

    def of(self, found: NDArray[np.int64]) -> tuple[Bools, Floats]:
        """(right, error_m), both [Q, V], of the references answered, int64 [Q, V]."""
        return np.take_along_axis(self.right, found, 1), np.take_along_axis(self.error_m, found, 1)

    def reachable(self, searched: Bools) -> Bools:
        """[Q, V]: whether some reference is right among those that view v searches, `searched` [V, R]. No search can
        be right where none is: their share is its ceiling."""
        return np.asarray((self.right[:, None] & searched).any(axis=2))

    def nearest(self, searched: Bools) -> NDArray[np.int64]:
        """[Q]: the reference `searched` [R] that is right and nearest to each frame; any, where none is right."""
        off_m = np.where(self.right & searched, np.nan_to_num(self.error_m), np.inf)
        return np.asarray(off_m.argmin(axis=1))

    def nearest_m(self, searched: Bools) -> Floats:
        """[Q]: from each frame to the nearest of the references `searched` [R]: no answer can be nearer."""
        return np.asarray(self.error_m[:, searched].min(axis=1))


def of_places(frames: Sequence[LonLat], references: Sequence[LonLat], half_m: float) -> Truth:
    """Right where a frame's centre lies in the square of 2 x `half_m` around the reference's."""
    frame_lon, frame_lat = np.array(frames, float).T[:, :, None]
    lon, lat = np.array(references, float).T
    per_lon, per_lat = geo.degree_lengths(frame_lat)
    east, north = geo.short_way(lon, frame_lon) * per_lon, (frame_lat - lat) * per_lat
    return Truth(np.maximum(np.abs(east), np.abs(north)) <= half_m, _distances_m(frames, references))


def of_pictures(frames: int, references: int, places: Sequence[LonLat] = ()) -> Truth:
    """Frame i is reference i seen again, a neighbour of frame i + 1. `places`: of the references, if known."""
    same = np.eye(frames, references, dtype=np.bool_)
    error_m = _distances_m(places[:frames], places) if places else np.full(same.shape, np.nan)
    return Truth(same, error_m, correlation=1.0)


def _distances_m(a: Sequence[LonLat], b: Sequence[LonLat]) -> Floats:
    """[A, B]."""
    first, second = np.array(a, float), np.array(b, float)
    return geo.distance_m(first[:, :1], first[:, 1:], second[:, 0], second[:, 1])
