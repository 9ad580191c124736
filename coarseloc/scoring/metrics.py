"""How good a localization is: one table of metrics, each a function of a run's ranked places. Pure.

Hits are merged by place before anything is scored: the eight headings of a tile share its centre, and position and
heading are scored apart. Frames without truth are NaN in whatever needs it, and are left out, and counted, by
`summarize`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coarseloc.geo import distance_m

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The places found for F frames, best first, and where the frames were; NaN where there is none, or unknown."""

    lon: Floats  # [F, K], of the place's centre
    lat: Floats  # [F, K]
    heading_deg: Floats  # [F, K], the place's best angle
    score: Floats  # [F, K]
    bbox: Floats  # [F, K, 4], the footprint: west, south, east, north
    truth_lon: Floats  # [F]
    truth_lat: Floats  # [F]
    truth_heading_deg: Floats  # [F]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table: what drives the options, the columns and the labels of axes."""

    name: str
    title: str
    function: Callable[[Ranked], Floats]  # → [F], NaN where it cannot be said
    unit: str  # "" for a number without one
    better: Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Summary:
    """A metric over the frames where it can be said."""

    n: int
    mean: float
    median: float
    p90: float


def errors_m(ranked: Ranked) -> Floats:
    """[F, K]: great-circle metres from each place to the truth."""
    return distance_m(ranked.lon, ranked.lat, ranked.truth_lon[:, None], ranked.truth_lat[:, None])


def error_m(ranked: Ranked) -> Floats:
    """[F]: metres from the best place to the truth."""
    return _first(errors_m(ranked))


def best_error_m(ranked: Ranked) -> Floats:
    """[F]: metres from the truth to the nearest of the K places."""
    # fmin passes over NaN without a warning where a row is all NaN
    return np.fmin.reduce(errors_m(ranked), axis=1, initial=np.nan)


def margin(ranked: Ranked) -> Floats:
    """[F]: the best place's score minus the second best place's; needs no truth."""
    if ranked.score.shape[1] < 2:
        return np.full(len(ranked.score), np.nan)
    return ranked.score[:, 0] - ranked.score[:, 1]


def inside_footprints(ranked: Ranked) -> NDArray[np.bool_]:
    """bool [F, K]: the truth lies in the place's footprint, which may cross the antimeridian."""
    west, south, east, north = np.moveaxis(ranked.bbox, -1, 0)
    lon, lat = ranked.truth_lon[:, None], ranked.truth_lat[:, None]
    return ((lon - west) % 360.0 <= (east - west) % 360.0) & (south <= lat) & (lat <= north)


def heading_error_deg(ranked: Ranked) -> Floats:
    """[F]: circular difference, in [0, 180], where the truth lies in the best place's footprint; NaN elsewhere:
    the heading of a wrong place means nothing."""
    difference = circular_difference_deg(_first(ranked.heading_deg), ranked.truth_heading_deg)
    right = inside_footprints(ranked)[:, :1].any(axis=1)
    return np.where(right, difference, np.nan)


def circular_difference_deg(a: ArrayLike, b: ArrayLike) -> Floats:
    """|a - b| of headings, the short way round, in [0, 180]; broadcasts."""
    return np.abs((np.subtract(a, b) + 180.0) % 360.0 - 180.0)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("error_m", "Error of the best place", error_m, "m", "lower"),
        Metric("best_error_m", "Error of the nearest of the top k", best_error_m, "m", "lower"),
        Metric("heading_error_deg", "Heading error where the place is right", heading_error_deg, "°", "lower"),
        Metric("margin", "Score of the best place above the second", margin, "", "higher"),
    )
}


def summarize(values: Floats) -> Summary:
    """n, mean, median and 90th percentile (linear interpolation) of what is not NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Summary(0, np.nan, np.nan, np.nan)
    return Summary(len(known), float(known.mean()), float(np.median(known)), float(np.percentile(known, 90)))


def _first(values: Floats) -> Floats:
    return values[:, 0] if values.shape[1] else np.full(len(values), np.nan)
