"""Hits merged by place, the best place as an estimate, and how many backbones agree on it. Pure.

Similarity alone says little (nearly all top-ten cosines of aerial frames are above 0.98), so an estimate carries its
margin over the second best place.

An estimate by best place is a tile's centre, so two backbones that mean the same ground may name neighbouring tiles.
Neighbours are one stride apart on the ellipsoid: they agree within `AGREEMENT_STRIDES`, in every direction of the
compass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core.geo import ellipsoid_distance_m
from coarseloc.core.types import Bools, Estimate, Pose, RankedTile, TileFacts
from coarseloc.localize.metrics import RankedPlaces

AGREEMENT_STRIDES = 1.05  # strides: a neighbour is one away, its diagonal 1.41
AGREEMENT_WITHOUT_STRIDE_M = 100.0  # where the footprint, and with it the stride, is not known


@dataclass(frozen=True, slots=True)
class Place:
    """The hits of one place: its best score, and the tile at the angle that had it."""

    place_id: str
    score: float
    rank: int  # of the best hit
    tile: TileFacts  # of the best hit


def places_of(hits: Sequence[RankedTile]) -> list[Place]:
    """Merge hits by place, best place first; each keeps its best hit."""
    best: dict[str, Place] = {}
    for hit in sorted(hits, key=lambda hit: hit.rank):
        best.setdefault(hit.tile.place_id, Place(hit.tile.place_id, hit.score, hit.rank, hit.tile))
    return list(best.values())


def hits_of_first_places(hits: Sequence[RankedTile], k: int) -> list[RankedTile]:
    """Keep the first k hits, and those after them until k places are reached, or all."""
    place_ids: set[str] = set()
    for number, hit in enumerate(hits, start=1):
        place_ids.add(hit.tile.place_id)
        if number >= k and len(place_ids) >= k:
            return list(hits[:number])
    return list(hits)


def best_place(hits: Sequence[RankedTile]) -> Estimate | None:
    """Estimate location and heading by the best place's centre and angle; None without hits.

    Its margin is its score less the second best place's. Where all hits are of one place, the second is below the
    last hit: the margin is at least the best score less that one's.
    """
    if not hits:
        return None
    places = places_of(hits)
    best = places[0]
    alone = len(places) == 1
    beaten = hits[-1].score if alone else places[1].score
    return Estimate(
        location=best.tile.center,
        heading_deg=float(best.tile.angle_deg),
        score=best.score,
        margin=None if len(hits) == 1 else best.score - beaten,
        margin_at_least=alone and len(hits) > 1,
        tile=best.tile,
    )


def ranked_places(frames: Sequence[tuple[Pose, Estimate | None, Sequence[Place]]]) -> RankedPlaces:
    """Truth, estimate and places of F frames as the arrays that metrics are functions of: first the estimate, in its
    tile's footprint, then the places after the best."""
    width = max((len(places) or 1 for _, _, places in frames), default=0)
    cells = np.full((len(frames), width, 8), np.nan)
    for row, (_, estimate, places) in zip(cells, frames, strict=True):
        for cell, place in zip(row, places, strict=False):
            cell[:] = (*place.tile.center, place.tile.angle_deg, place.score, *place.tile.bbox)
        if estimate is not None:
            heading = np.nan if estimate.heading_deg is None else estimate.heading_deg
            footprint = estimate.tile.bbox if estimate.tile else (np.nan,) * 4
            row[0] = (*estimate.location, heading, estimate.score, *footprint)
    truth = np.array([_truth(pose) for pose, _, _ in frames], np.float64).reshape(-1, 3)
    return RankedPlaces(
        lon=cells[..., 0],
        lat=cells[..., 1],
        heading_deg=cells[..., 2],
        score=cells[..., 3],
        bbox=cells[..., 4:],
        truth_lon=truth[:, 0],
        truth_lat=truth[:, 1],
        truth_heading_deg=truth[:, 2],
    )


def _truth(pose: Pose) -> tuple[float, float, float]:
    lon, lat = pose.location or (np.nan, np.nan)
    return lon, lat, np.nan if pose.yaw_deg is None else pose.yaw_deg


# --- agreement of backbones ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the `of` backbones that answered, `backbones` are within `within_m` of this one, itself included."""

    backbones: int
    of: int
    within_m: float

    @property
    def share(self) -> float:
        """The fraction of the other backbones that agree; nan where there is no other."""
        return (self.backbones - 1) / (self.of - 1) if self.of > 1 else float("nan")


def agreement_distance_m(footprint_m: float | None, overlap: float) -> float:
    """Compute the metres within which two estimates are of the same place."""
    return AGREEMENT_WITHOUT_STRIDE_M if footprint_m is None else AGREEMENT_STRIDES * footprint_m * (1.0 - overlap)


def agreements(estimates: Sequence[Estimate], within_m: float) -> list[Agreement]:
    """Compute the agreement of each estimate of one frame, one a backbone, with the others."""
    return [
        Agreement(int(count), len(estimates), within_m) for count in agreement_matrix(estimates, within_m).sum(axis=1)
    ]


def agreement_matrix(estimates: Sequence[Estimate], within_m: float) -> Bools:
    """Compare B backbones' estimates of one frame; bool [B, B], True within `within_m` metres of each other."""
    lon = np.array([estimate.location.lon for estimate in estimates])
    lat = np.array([estimate.location.lat for estimate in estimates])
    return np.asarray(ellipsoid_distance_m(lon[:, None], lat[:, None], lon, lat) <= within_m)
