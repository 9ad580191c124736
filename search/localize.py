"""From ranked hits to a position: hits merged by place, the best place, and how far it can be trusted. Pure.

Similarity alone says little (nearly all top-ten cosines of aerial frames are above 0.98), so an estimate carries its
margin over the second best place, and how many backbones agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coarseloc.geo import distance_m
from coarseloc.scoring.metrics import Ranked
from coarseloc.types import LonLat, Pose, TileFacts

METHOD = "best-place"
DEFAULT_AGREEMENT_M = 100.0  # where a set's stride is not known


class RankedHit(Protocol):
    """A `Hit` or a `StoredHit`."""

    @property
    def rank(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def tile(self) -> TileFacts: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """The hits of one place: its best score, and the angle that had it."""

    place_id: str
    score: float
    rank: int  # of the best hit
    tile: TileFacts  # of the best hit

    @property
    def angle_deg(self) -> int:
        return self.tile.angle_deg


@dataclass(frozen=True, slots=True)
class Estimate:
    """Where a frame was taken, and facing where, by one backbone."""

    location: LonLat
    heading_deg: int
    place_id: str
    score: float
    margin: float | None  # best place minus second best; None where all hits are of one place
    method: str = METHOD


def candidates(hits: Sequence[RankedHit]) -> list[Candidate]:
    """Hits merged by place, best place first; each keeps its best hit."""
    best: dict[str, Candidate] = {}
    for hit in sorted(hits, key=lambda hit: hit.rank):
        best.setdefault(hit.tile.place_id, Candidate(hit.tile.place_id, hit.score, hit.rank, hit.tile))
    return list(best.values())


def estimate(places: Sequence[Candidate]) -> Estimate | None:
    """The best place's centre and angle; None without candidates."""
    if not places:
        return None
    best = places[0]
    margin = best.score - places[1].score if len(places) > 1 else None
    return Estimate(best.tile.center, best.angle_deg, best.place_id, best.score, margin)


def agreement(estimates: Sequence[Estimate | None], within_m: float) -> list[int]:
    """For each backbone's estimate of one frame: how many backbones, itself included, put it within `within_m`
    metres; 0 where there is no estimate."""
    lon = np.array([e.location.lon if e else np.nan for e in estimates])
    lat = np.array([e.location.lat if e else np.nan for e in estimates])
    near = distance_m(lon[:, None], lat[:, None], lon, lat) <= within_m  # NaN is near nothing
    return [int(count) for count in near.sum(axis=1)]


def stride_m(footprint_m: float | None, overlap: float) -> float:
    """Metres between neighbouring tiles; `DEFAULT_AGREEMENT_M` where the footprint is not known."""
    return DEFAULT_AGREEMENT_M if footprint_m is None else footprint_m * (1.0 - overlap)


def ranked(frames: Sequence[tuple[Pose, Sequence[Candidate]]]) -> Ranked:
    """Truth and candidates of F frames as the arrays that metrics are functions of."""
    width = max((len(places) for _, places in frames), default=0)
    values = np.full((len(frames), width, 8), np.nan)
    for row, (_, places) in zip(values, frames, strict=True):
        for cell, place in zip(row, places, strict=False):
            cell[:] = (*place.tile.center, place.angle_deg, place.score, *place.tile.bbox)
    truth = np.array([_truth(pose) for pose, _ in frames], np.float64).reshape(-1, 3)
    return Ranked(
        lon=values[..., 0],
        lat=values[..., 1],
        heading_deg=values[..., 2],
        score=values[..., 3],
        bbox=values[..., 4:],
        truth_lon=truth[:, 0],
        truth_lat=truth[:, 1],
        truth_heading_deg=truth[:, 2],
    )


def _truth(pose: Pose) -> tuple[float, float, float]:
    lon, lat = pose.location or (np.nan, np.nan)
    return lon, lat, np.nan if pose.yaw_deg is None else pose.yaw_deg
