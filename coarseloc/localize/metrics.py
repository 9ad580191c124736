"""How good a localization of each frame is: functions of a run's ranked places. Pure.

Hits are merged by place before anything is scored: the eight headings of a tile share its centre, and position and
heading are scored apart. Frames without truth are NaN in whatever needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats, Frame

_CHUNK = 256  # frames held against all places at a time


@dataclass(frozen=True, slots=True)
class RankedPlaces:
    """The places found for F frames, best first, and where the frames were; NaN where there is none, or unknown."""

    lon: Floats  # [F, K], of the place's centre
    lat: Floats  # [F, K]
    heading_deg: Floats  # [F, K], the place's best angle
    score: Floats  # [F, K]
    bbox: Floats  # [F, K, 4], the footprint: west, south, east, north
    truth_lon: Floats  # [F]
    truth_lat: Floats  # [F]
    truth_heading_deg: Floats  # [F]


def errors_m(ranked: RankedPlaces) -> Floats:
    """Compute great-circle metres from each place to the truth, [F, K]."""
    return geo.distance_m(ranked.lon, ranked.lat, ranked.truth_lon[:, None], ranked.truth_lat[:, None])


def error_m(ranked: RankedPlaces) -> Floats:
    """Compute metres from the best place to the truth, [F]."""
    return _best(errors_m(ranked))


def best_error_m(ranked: RankedPlaces, k: int | None = None) -> Floats:
    """Compute metres from the truth to the nearest of the first `k` places, of all by default, [F]."""
    # fmin passes over NaN without a warning where a row is all NaN
    return np.asarray(np.fmin.reduce(errors_m(ranked)[:, :k], axis=1, initial=np.nan))


def inside_footprints(ranked: RankedPlaces) -> Bools:
    """Test whether the truth lies in each place's footprint, [F, K]."""
    return geo.inside(ranked.truth_lon[:, None], ranked.truth_lat[:, None], ranked.bbox)


def right_place(ranked: RankedPlaces) -> Bools:
    """Test whether the truth lies in the best place's footprint, [F]."""
    return np.asarray(inside_footprints(ranked)[:, :1].any(axis=1), np.bool_)


def heading_error_deg(ranked: RankedPlaces) -> Floats:
    """Compute the circular difference of headings, [F] in [0, 180], where the best place is right; NaN elsewhere: the
    heading of a wrong place means nothing."""
    difference = np.abs(geo.signed_difference_deg(ranked.truth_heading_deg, _best(ranked.heading_deg)))
    return np.where(right_place(ranked), difference, np.nan)


def verdict(inside: bool, side_m: float, distance_m: float) -> str:
    """Classify a tile: `on` where the truth lies in its footprint; `near` where its centre, `distance_m` away, is
    within one footprint's side; else `far`."""
    return "on" if inside else "near" if distance_m <= side_m else "far"


def map_coverage(truth_lon: Floats, truth_lat: Floats, places: Floats) -> tuple[Bools, Floats]:
    """Test whether some place's footprint holds each truth, bool [F], and compute metres to the nearest centre, [F].

    places: float64 [P, 6], lon, lat, west, south, east, north.
    """
    inside, nearest = np.zeros(len(truth_lon), np.bool_), np.full(len(truth_lon), np.inf)
    for i in range(0, len(truth_lon), _CHUNK):
        lon, lat = truth_lon[i : i + _CHUNK, None], truth_lat[i : i + _CHUNK, None]
        inside[i : i + _CHUNK] = geo.inside(lon, lat, places[:, 2:]).any(axis=1)
        distances = geo.distance_m(lon, lat, places[:, 0], places[:, 1])
        nearest[i : i + _CHUNK] = distances.min(axis=1, initial=np.inf)
    return inside, nearest


@dataclass(frozen=True, slots=True)
class MapOverlap:
    """Frames of known position against the ground that references show."""

    known: int  # frames whose position is known
    off_map: int  # of these, on ground that no place shows
    nearest_m: float | None  # of those off the map, the median distance to the nearest place's centre

    @property
    def share_off(self) -> float:
        return self.off_map / self.known if self.known else 0.0


def map_overlap(frames: Iterable[Frame], places: Floats) -> MapOverlap:
    """Count frames on and off the ground of places, float64 [P, 6] as of `map_coverage`."""
    truths = np.array([frame.truth.location for frame in frames if frame.truth.location]).reshape(-1, 2)
    on_map, nearest_m = map_coverage(truths[:, 0], truths[:, 1], places)
    off_map = ~on_map
    return MapOverlap(len(truths), int(off_map.sum()), float(np.median(nearest_m[off_map])) if off_map.any() else None)


def _best(values: Floats) -> Floats:
    return values[:, 0] if values.shape[1] else np.full(len(values), np.nan)
