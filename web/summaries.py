"""What a run says in few numbers: each frame's best place, its margin, and its error where truth is known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from coarseloc import geo
from coarseloc.store.gallery import FrameTiming, TopHit
from coarseloc.types import BBox, LonLat


@dataclass(frozen=True, slots=True)
class Margin:
    """How far the best place stands above the next one: its score less that of the best hit elsewhere.

    Where all hits are of one place, the next one is below the last hit: the margin is `at_least` that.
    """

    score: float
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Best:
    """A frame's Top-1 under one run."""

    hit: TopHit
    margin: Margin
    error_m: float | None  # None where truth is not known
    verdict: str | None  # as `verdict` says; None where truth is not known


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run over a flight. Medians are over frames that have the figure; None where none has."""

    best: Mapping[int, Best]  # by frame index
    done: int
    failed: int
    median_score: float | None
    median_margin: float | None  # of frames with hits at more than one place
    median_error_m: float | None
    median_embed_ms: float | None
    median_search_ms: float | None
    median_total_ms: float | None


def margin(best: float, elsewhere: float | None, last: float) -> Margin:
    """Of a frame's best score, its best score at another place, and its lowest score."""
    return Margin(best - last, at_least=True) if elsewhere is None else Margin(best - elsewhere)


def verdict(truth: LonLat, footprint: BBox, distance_m: float) -> str:
    """How near a tile is: `on` where truth lies in its footprint; `near` where its centre, `distance_m` away, is
    within one footprint's side; else `far`."""
    west, south, east, north = footprint
    inside_lon = west <= truth.lon <= east if west <= east else truth.lon >= west or truth.lon <= east
    if inside_lon and south <= truth.lat <= north:
        return "on"
    side_m = float(geo.distance_m(0.0, south, 0.0, north))
    return "near" if distance_m <= side_m else "far"


def summarise(hits: Sequence[TopHit], timings: Sequence[FrameTiming], truth: Mapping[int, LonLat]) -> RunSummary:
    """truth: {frame index: position} of the frames where it is known."""
    known = [hit for hit in hits if hit.frame in truth]
    errors = geo.distance_m(
        [truth[hit.frame].lon for hit in known],
        [truth[hit.frame].lat for hit in known],
        [hit.lon for hit in known],
        [hit.lat for hit in known],
    ).tolist()
    judged = {hit.frame: (e, verdict(truth[hit.frame], hit.bbox, e)) for hit, e in zip(known, errors, strict=True)}
    best = {
        hit.frame: Best(hit, margin(hit.score, hit.elsewhere, hit.last), *judged.get(hit.frame, (None, None)))
        for hit in hits
    }
    times = [(t.embed_ms, t.search_ms) for t in timings if t.embed_ms is not None and t.search_ms is not None]
    return RunSummary(
        best=best,
        done=len(timings),
        failed=sum(timing.error is not None for timing in timings),
        median_score=_median(hit.score for hit in hits),
        median_margin=_median(one.margin.score for one in best.values() if not one.margin.at_least),
        median_error_m=_median(errors),
        median_embed_ms=_median(embed for embed, _ in times),
        median_search_ms=_median(search for _, search in times),
        median_total_ms=_median(embed + search for embed, search in times),
    )


def agreement(estimates: Mapping[str, LonLat], within_m: float) -> tuple[str, ...]:
    """The largest group of models whose estimates lie within `within_m` of one of them, that one first.

    Of equal groups the earlier model's wins, so that the answer does not flicker between frames.
    """
    best: tuple[str, ...] = ()
    for name, here in estimates.items():
        near = [
            other
            for other, there in estimates.items()
            if other != name and float(geo.distance_m(*here, *there)) <= within_m
        ]
        if len(near) + 1 > len(best):
            best = (name, *near)
    return best


def _median(values: Iterable[float]) -> float | None:
    some = list(values)
    return median(some) if some else None
