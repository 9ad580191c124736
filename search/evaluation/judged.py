"""A run's ranked places beside the truth and what the map allows: the one thing every score is computed from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats
from coarseloc.localize import metrics
from coarseloc.localize.metrics import RankedPlaces


@dataclass(frozen=True, slots=True)
class Judged:
    """F frames of known position with at least one place each."""

    ranked: RankedPlaces
    frame: NDArray[np.int64]  # [F], index in the flight
    on_map: Bools  # [F], some reference shows the truth; without one, every answer is wrong
    nearest_m: Floats  # [F], from the truth to the nearest reference centre: what a perfect search is off
    margin: Floats  # [F], the best place's score less the next place's, or at least that much less; nan for one hit
    agreement: Floats  # [F], share of the other backbones that answer the same; nan where there is no other
    stride_m: float  # between neighbouring references; nan where it cannot be told

    def __len__(self) -> int:
        return len(self.frame)

    def only(self, keep: Bools) -> Judged:
        """The frames where `keep` [F] is true."""
        ranked = RankedPlaces(**{f.name: getattr(self.ranked, f.name)[keep] for f in fields(RankedPlaces)})
        mine = ("frame", "on_map", "nearest_m", "margin", "agreement")
        return replace(self, ranked=ranked, **{name: getattr(self, name)[keep] for name in mine})

    def errors_m(self) -> Floats:
        """[F, K]: great-circle metres from each place's centre to the truth."""
        return metrics.errors_m(self.ranked)

    def degrees(self) -> Floats:
        """[F, K]: the same as a plain distance in degrees, which SDM@K is defined on."""
        return np.hypot(self._east(), self._north())

    def sides_m(self) -> Floats:
        """[F, K]: side of each footprint on the ground, as a square of equal area."""
        west, south, east, north = np.moveaxis(self.ranked.bbox, -1, 0)
        per_lon, per_lat = self._per_degree()
        sides: Floats = np.sqrt((east - west) % 360.0 * per_lon * (north - south) * per_lat)
        return sides

    def iou(self) -> Floats:
        """[F, K]: overlap of each footprint with the frame's own, as intersection over union.

        The frame's footprint is taken as a square as large as the place's around the truth, both unturned: so the
        overlap scores the place alone, and needs no camera model.
        """
        side = self.sides_m()
        per_lon, per_lat = self._per_degree()
        wide = np.clip(side - np.abs(self._east()) * per_lon, 0, None)
        high = np.clip(side - np.abs(self._north()) * per_lat, 0, None)
        return wide * high / (2 * side**2 - wide * high)

    def _east(self) -> Floats:
        return geo.short_way(self.ranked.lon, self.ranked.truth_lon[:, None])

    def _north(self) -> Floats:
        return self.ranked.truth_lat[:, None] - self.ranked.lat

    def _per_degree(self) -> tuple[Floats, Floats]:
        """Metres of a degree of longitude and of latitude at each truth, both [F, 1]."""
        each = np.array([geo.metres_per_degree(lat) for lat in self.ranked.truth_lat]).reshape(-1, 2)
        return each[:, :1], each[:, 1:]
