"""A run's ranked places with the truth and the limits of the map: the input of every score. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats
from coarseloc.localize import metrics
from coarseloc.localize.metrics import RankedPlaces


@dataclass(frozen=True, slots=True)
class EvaluatedFrames:
    """F frames of known position with at least one place each."""

    ranked: RankedPlaces
    frame: NDArray[np.int64]  # [F], index in the flight
    on_map: Bools  # [F], some reference shows the truth; without one, every answer is wrong
    nearest_m: Floats  # [F], from the truth to the nearest reference centre: what a perfect search is off
    margin: Floats  # [F], the best place's score less the next place's, or at least that much less; nan for one hit
    agreement: Floats  # [F], share of the other backbones that agree; nan where there is no other
    stride_m: float  # between neighbouring references; nan where unknown

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, mask: Bools) -> EvaluatedFrames:
        """The frames where `mask` [F] is true."""
        ranked = RankedPlaces(**{f.name: getattr(self.ranked, f.name)[mask] for f in fields(RankedPlaces)})
        names = ("frame", "on_map", "nearest_m", "margin", "agreement")
        return replace(self, ranked=ranked, **{name: getattr(self, name)[mask] for name in names})

    def errors_m(self) -> Floats:
        """[F, K]: great-circle metres from each place's centre to the truth."""
        return metrics.errors_m(self.ranked)

    def errors_deg(self) -> Floats:
        """[F, K]: the same as a plain distance in degrees, which SDM@K is defined on."""
        return np.hypot(self._offset_east_deg(), self._offset_north_deg())

    def sides_m(self) -> Floats:
        """[F, K]: side of each footprint on the ground, as a square of equal area."""
        west, south, east, north = np.moveaxis(self.ranked.bbox, -1, 0)
        m_per_lon, m_per_lat = self._metres_per_degree()
        sides: Floats = np.sqrt((east - west) % 360.0 * m_per_lon * (north - south) * m_per_lat)
        return sides

    def iou(self) -> Floats:
        """[F, K]: overlap of each footprint with the frame's own, as intersection over union.

        The frame's footprint is taken as a square as large as the place's around the truth, both unturned: so the
        overlap scores the place alone, and needs no camera model.
        """
        side_m = self.sides_m()
        m_per_lon, m_per_lat = self._metres_per_degree()
        overlap_east_m = np.clip(side_m - np.abs(self._offset_east_deg()) * m_per_lon, 0, None)
        overlap_north_m = np.clip(side_m - np.abs(self._offset_north_deg()) * m_per_lat, 0, None)
        return overlap_east_m * overlap_north_m / (2 * side_m**2 - overlap_east_m * overlap_north_m)

    def _offset_east_deg(self) -> Floats:
        return geo.signed_difference_deg(self.ranked.lon, self.ranked.truth_lon[:, None])

    def _offset_north_deg(self) -> Floats:
        return self.ranked.truth_lat[:, None] - self.ranked.lat

    def _metres_per_degree(self) -> tuple[Floats, Floats]:
        """Metres of a degree of longitude and of latitude at each truth, both [F, 1]."""
        lengths_m = np.array([geo.metres_per_degree(lat) for lat in self.ranked.truth_lat]).reshape(-1, 2)
        return lengths_m[:, :1], lengths_m[:, 1:]
