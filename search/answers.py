"""A flight's stored answers, selected: what every export, page, command and report says of a frame comes from here.

An estimate is stored and never worked out again. Two things depend on what may change after a run, and are computed
when it is read, here alone: its errors, against the truth that the flight has now, and its agreement with the other
backbones that have answered the same question by now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.types import Estimate, Floats, LonLat, RankedTile, TileFacts
from coarseloc.localize import agreement, metrics
from coarseloc.localize.agreement import Agreement
from coarseloc.localize.places import Place, places_of, ranked_places
from coarseloc.store import Session, localizations, runs, snapshots
from coarseloc.store.runs import BEST_PLACE, FrameResult, StoredRun


@dataclass(frozen=True, slots=True)
class FrameErrors:
    """An estimate against the truth. A frame whose position no reference shows (`on_map` False) cannot be answered
    rightly: it is counted apart, and is no part of a run's median."""

    error_m: float  # great circle
    heading_error_deg: float | None  # circular; None unless the truth lies in the best footprint
    inside_footprint: bool  # of the best place
    on_map: bool
    nearest_m: float  # to the nearest reference centre: what a perfect search by place is off
    verdict: str  # "on", "near" or "far", see `metrics.verdict`


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """One frame of a run by one method."""

    result: FrameResult
    agreement: Agreement | None  # None without an estimate
    errors: FrameErrors | None  # None without truth or estimate


def frame_answers(
    session: Session,
    chosen: Sequence[StoredRun],
    *,
    method: str = BEST_PLACE,
    frame_indices: Sequence[int] | None = None,
    with_hits: bool = True,
) -> dict[int, list[FrameAnswer]]:
    """{run: its frames in the flight's order}, for all frames or some.

    Raises InputError where a run has no answer by this method, naming those it has.
    """
    votes: dict[int, dict[int, Estimate]] = {}  # by run, then frame
    of_flight = {flight_id: runs.runs(session, flight_id) for flight_id in {run.flight_id for run in chosen}}
    answers = {}
    for run in chosen:
        _check_method(session, run, method)
        results = runs.results(session, run.id, frame_indices, method=method, with_hits=with_hits)
        others = runs.voters(run, of_flight[run.flight_id])
        for other in others:
            if other.id not in votes:
                of_other = localizations.estimates(session, other.id, method, frame_indices)
                votes[other.id] = {index: estimate for index, (estimate, _) in of_other.items()}
        errors = frame_errors(results, snapshots.search_map(session, run.search_map))
        within_m = agreement_within_m(run)
        answers[run.id] = [
            FrameAnswer(result, _agreement(result, run, [o.id for o in others], votes, within_m), error)
            for result, error in zip(results, errors, strict=True)
        ]
    return answers


def agreement_within_m(run: StoredRun) -> float:
    return agreement.agreement_distance_m(run.reference_set.footprint_m, run.reference_set.overlap)


def results_of(run: StoredRun, result: FrameResult) -> tuple[RankedTile, ...]:
    """The hits that were asked for: more may be kept, to have as many places."""
    return result.hits[: run.parameters["k"]]


def first_places(result: FrameResult, k: int) -> list[Place]:
    """The first k places of a frame."""
    return places_of(result.hits)[:k]


def nearest_result_m(truth: LonLat, results: Sequence[RankedTile]) -> float | None:
    """Metres from the truth to the nearest centre among results, great circle; None without any."""
    centres = np.array([hit.tile.center for hit in results]).reshape(-1, 2)
    distances = geo.distance_m(*truth, centres[:, 0], centres[:, 1])
    return float(distances.min()) if len(distances) else None


def tile_verdict(truth: LonLat, tile: TileFacts) -> tuple[float, str]:
    """(metres from the truth to a tile's centre, its verdict)."""
    distance_m = float(geo.distance_m(*truth, *tile.center))
    return distance_m, metrics.verdict(bool(geo.inside(*truth, tile.bbox)), _side_m(tile), distance_m)


def _check_method(session: Session, run: StoredRun, method: str) -> None:
    known = localizations.methods(session, run.id)
    if not known:
        raise StoreError(f"run {run.id} has no answer stored: run the same `coarseloc search` again, it goes on")
    if method not in known:
        raise InputError(f"run {run.id} has no answer by method {method!r}: it has {', '.join(known)}")


def _agreement(
    result: FrameResult,
    run: StoredRun,
    others: Sequence[int],
    votes: dict[int, dict[int, Estimate]],
    within_m: float,
) -> Agreement | None:
    index = result.frame.index
    answered = [other for other in others if index in votes[other]]
    if run.id not in answered:
        return None
    counts = agreement.agreements([votes[other][index] for other in answered], within_m)
    return counts[answered.index(run.id)]


def frame_errors(results: Sequence[FrameResult], places: Floats) -> list[FrameErrors | None]:
    """Each estimate against the truth; None where either is missing. places: float64 [P, 6], what was searched."""
    known = [r for r in results if r.frame.truth.location is not None and r.estimate is not None]
    best = ranked_places([(r.frame.truth, r.estimate, ()) for r in known])
    on_map, nearest_m = metrics.map_coverage(best.truth_lon, best.truth_lat, places)
    figures = zip(
        known,
        metrics.error_m(best).tolist(),
        metrics.heading_error_deg(best).tolist(),
        metrics.right_place(best).tolist(),
        on_map.tolist(),
        nearest_m.tolist(),
        strict=True,
    )
    of_frame = {
        r.frame.index: FrameErrors(
            error_m,
            None if math.isnan(heading) else heading,
            inside,
            shown,
            nearest,
            metrics.verdict(inside, _side_m(r.estimate.tile) if r.estimate and r.estimate.tile else 0.0, error_m),
        )
        for r, error_m, heading, inside, shown, nearest in figures
    }
    return [of_frame.get(r.frame.index) for r in results]


def _side_m(tile: TileFacts) -> float:
    return float(geo.distance_m(0.0, tile.bbox.south, 0.0, tile.bbox.north))
