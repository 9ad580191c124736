"""What a run says in few numbers: each frame's best place, its margin, and its error where truth is known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median

from coarseloc import geo
from coarseloc.store.gallery import FrameTiming, HitPlace
from coarseloc.types import LonLat


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

    hit: HitPlace
    margin: Margin | None  # None where there is one hit only
    error_m: float | None  # None where truth is not known


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run over a flight. Means are over frames that have the figure; None where none has."""

    best: Mapping[int, Best]  # by frame index
    done: int
    failed: int
    mean_score: float | None
    mean_margin: float | None
    median_error_m: float | None
    embed_ms: float | None
    search_ms: float | None

    @property
    def total_ms(self) -> float | None:
        return None if self.embed_ms is None or self.search_ms is None else self.embed_ms + self.search_ms


def margin(places_and_scores: Sequence[tuple[str, float]]) -> Margin | None:
    """The margin of the first of (place, score) in rank order."""
    if len(places_and_scores) < 2:
        return None
    best_place, best_score = places_and_scores[0]
    for place, score in places_and_scores[1:]:
        if place != best_place:
            return Margin(best_score - score)
    return Margin(best_score - places_and_scores[-1][1], at_least=True)


def summarise(hits: Iterable[HitPlace], timings: Sequence[FrameTiming], truth: Mapping[int, LonLat]) -> RunSummary:
    """hits by frame and rank; truth: {frame: position} of frames where it is known."""
    ranked = {frame: list(some) for frame, some in groupby(hits, key=lambda hit: hit.frame)}
    known = [frame for frame in ranked if frame in truth]
    errors = geo.distance_m(
        [truth[frame].lon for frame in known],
        [truth[frame].lat for frame in known],
        [ranked[frame][0].lon for frame in known],
        [ranked[frame][0].lat for frame in known],
    ).tolist()
    error_of = dict(zip(known, errors, strict=True))
    best = {
        frame: Best(some[0], margin([(hit.place_id, hit.score) for hit in some]), error_of.get(frame))
        for frame, some in ranked.items()
    }
    return RunSummary(
        best=best,
        done=len(timings),
        failed=sum(timing.error is not None for timing in timings),
        mean_score=_mean(one.hit.score for one in best.values()),
        mean_margin=_mean(one.margin.score for one in best.values() if one.margin),
        median_error_m=median(errors) if errors else None,
        embed_ms=_mean(timing.embed_ms for timing in timings if timing.embed_ms is not None),
        search_ms=_mean(timing.search_ms for timing in timings if timing.search_ms is not None),
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


def _mean(values: Iterable[float]) -> float | None:
    some = list(values)
    return fmean(some) if some else None
