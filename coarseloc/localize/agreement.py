"""How many backbones put a frame at the same place. Pure.

An estimate by best place is a tile's centre, so two backbones that mean the same ground may name neighbouring tiles.
Neighbours are one stride apart on the ellipsoid: they agree within `TOLERANCE` strides, in every direction of the
compass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core.geo import ellipsoid_distance_m
from coarseloc.core.types import Bools, Estimate

TOLERANCE = 1.05  # strides: a neighbour is one away, its diagonal 1.41
WITHOUT_STRIDE_M = 100.0  # where the footprint, and with it the stride, is not known


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the `of` backbones that answered, `backbones` are within `within_m` of this one, itself included."""

    backbones: int
    of: int
    within_m: float

    @property
    def share(self) -> float:
        """Of the other backbones, those that agree; nan where there is no other."""
        return (self.backbones - 1) / (self.of - 1) if self.of > 1 else float("nan")


def agreement_distance_m(footprint_m: float | None, overlap: float) -> float:
    """Metres within which two estimates are of the same place."""
    return WITHOUT_STRIDE_M if footprint_m is None else TOLERANCE * footprint_m * (1.0 - overlap)


def agreements(estimates: Sequence[Estimate], within_m: float) -> list[Agreement]:
    """Of each estimate of one frame, one a backbone, with the others."""
    return [Agreement(int(count), len(estimates), within_m) for count in agreeing(estimates, within_m).sum(axis=1)]


def agreeing(estimates: Sequence[Estimate], within_m: float) -> Bools:
    """bool [B, B]: which of B backbones' estimates of one frame are within `within_m` of each other."""
    lon = np.array([estimate.location.lon for estimate in estimates])
    lat = np.array([estimate.location.lat for estimate in estimates])
    return np.asarray(ellipsoid_distance_m(lon[:, None], lat[:, None], lon, lat) <= within_m)
