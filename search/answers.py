"""A flight's stored answers: the export, the pages, the commands and the report all read frames' answers here.

An estimate is stored and never computed again. Two values depend on data that may change after a run, and are computed
here when it is read: its errors, against the truth that the flight has now, and its agreement with the other backbones
that have answered the same question by now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc.core import geo
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.fixes import Pose2D
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Estimate, Floats, LonLat, Pose, RankedTile, TileFacts
from coarseloc.localize import metrics
from coarseloc.localize.places import Agreement, Place, agreement_distance_m, agreements, places_of, ranked_places
from coarseloc.store import Session, localizations, runs, snapshots
from coarseloc.store.localizations import BEST_PLACE
from coarseloc.store.runs import FrameResult, StoredRun


@dataclass(frozen=True, slots=True)
class FrameErrors:
    """An estimate against the truth. A frame whose position no reference shows (`on_map` False) has no right answer: it
    is counted apart and left out of a run's median."""

    error_m: float  # great circle
    heading_error_deg: float | None  # circular; None unless the truth lies in the best footprint
    inside_footprint: bool  # of the best place
    on_map: bool
    nearest_m: float  # to the nearest reference centre: the error of a perfect search by place
    verdict: str | None  # "on", "near" or "far" of its tile, see `metrics.verdict`; None where it is no tile's


@dataclass(frozen=True, slots=True)
class FixErrors:
    """A fix against the truth, which is the aircraft's position."""

    ground_m: float  # great circle, from the ground under the frame's middle
    aircraft_m: float | None  # great circle; None where the fix does not tell the aircraft's position
    heading_deg: float | None  # circular


@dataclass(frozen=True, slots=True)
class TrackErrors:
    """A track's estimate against the truth, which is the aircraft's position."""

    location_m: float  # great circle, from its position
    heading_deg: float | None  # circular


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """One frame of a run by one method."""

    result: FrameResult
    agreement: Agreement | None  # None without an estimate
    errors: FrameErrors | None  # None without truth or estimate
    fix_errors: FixErrors | None = None  # without truth or a fix that matches
    track_errors: TrackErrors | None = None  # without truth or a position that the track claims


def frame_answers(
    session: Session,
    stored_runs: Sequence[StoredRun],
    *,
    method: str = BEST_PLACE,
    frame_indices: Sequence[int] | None = None,
    with_hits: bool = True,
    track_name: str | None = None,
) -> dict[int, list[FrameAnswer]]:
    """{run id: answers in the flight's order}, of all frames or of those of `frame_indices`. track_name: of the track
    that they tell of (`localizations.run_track`).

    Raises InputError where a run has no answer by this method, naming the methods that it has.
    """
    votes: dict[int, dict[int, Estimate]] = {}  # by run, then frame
    runs_by_flight = {flight_id: runs.runs(session, flight_id) for flight_id in {run.flight_id for run in stored_runs}}
    places = {map_id: snapshots.search_map(session, map_id) for map_id in {run.search_map for run in stored_runs}}
    answers = {}
    for run in stored_runs:
        _check_method(session, run, method)
        results = runs.results(
            session, run.id, frame_indices, method=method, with_hits=with_hits, track_name=track_name
        )
        voters = runs.agreement_voters(run, runs_by_flight[run.flight_id])
        for voter in voters:
            if voter.id not in votes:
                estimates = localizations.estimates(session, voter.id, method, frame_indices)
                votes[voter.id] = {index: estimate for index, (estimate, _) in estimates.items()}
        errors = frame_errors(results, places[run.search_map])
        within_m = agreement_within_m(run)
        answers[run.id] = [
            FrameAnswer(
                result,
                _agreement(result, run, [voter.id for voter in voters], votes, within_m),
                error,
                fix_errors(result.fix.pose if result.fix else None, result.frame.truth),
                track_errors(result.track, result.frame.truth),
            )
            for result, error in zip(results, errors, strict=True)
        ]
    return answers


def agreement_within_m(run: StoredRun) -> float:
    return agreement_distance_m(run.reference_set.footprint_m, run.reference_set.overlap)


def first_hits(run: StoredRun, result: FrameResult) -> tuple[RankedTile, ...]:
    """The first k hits of a run's parameters: more may be stored, to reach k places."""
    return result.hits[: run.parameters["k"]]


def first_places(result: FrameResult, k: int) -> list[Place]:
    """The first k places of a frame."""
    return places_of(result.hits)[:k]


def nearest_result_m(truth: LonLat, results: Sequence[RankedTile]) -> float | None:
    """Metres from the truth to the nearest tile centre of the results, great circle; None without results."""
    centres = np.array([hit.tile.center for hit in results]).reshape(-1, 2)
    distances = geo.distance_m(*truth, centres[:, 0], centres[:, 1])
    return float(distances.min()) if len(distances) else None


def tile_verdict(truth: LonLat, tile: TileFacts) -> tuple[float, str]:
    """(metres from the truth to a tile's centre, its verdict)."""
    distance_m = float(geo.distance_m(*truth, *tile.center))
    return distance_m, metrics.verdict(bool(geo.inside(*truth, tile.bbox)), _side_m(tile), distance_m)


def _check_method(session: Session, run: StoredRun, method: str) -> None:
    methods = localizations.methods(session, run.id)
    if not methods:
        raise StoreError(f"run {run.id} has no answer stored: run the same `coarseloc search` again, it goes on")
    if method not in methods:
        raise InputError(f"run {run.id} has no answer by method {method!r}: it has {', '.join(methods)}")


def _agreement(
    result: FrameResult,
    run: StoredRun,
    voters: Sequence[int],
    votes: dict[int, dict[int, Estimate]],
    within_m: float,
) -> Agreement | None:
    index = result.frame.index
    voted = [voter for voter in voters if index in votes[voter]]
    if run.id not in voted:
        return None
    return agreements([votes[voter][index] for voter in voted], within_m)[voted.index(run.id)]


def frame_errors(results: Sequence[FrameResult], places: Floats) -> list[FrameErrors | None]:
    """Compare each estimate with the truth; None where either is missing. places: float64 [P, 6] that were searched."""
    located = [r for r in results if r.frame.truth.location is not None and r.estimate is not None]
    best = ranked_places([(r.frame.truth, r.estimate, ()) for r in located])
    on_map, nearest_m = metrics.map_coverage(best.truth_lon, best.truth_lat, places)
    columns = zip(
        located,
        metrics.error_m(best).tolist(),
        metrics.heading_error_deg(best).tolist(),
        metrics.right_place(best).tolist(),
        on_map.tolist(),
        nearest_m.tolist(),
        strict=True,
    )
    errors = {
        r.frame.index: FrameErrors(
            error_m,
            None if math.isnan(heading) else heading,
            inside,
            is_on_map,
            nearest,
            metrics.verdict(inside, _side_m(r.estimate.tile), error_m) if r.estimate and r.estimate.tile else None,
        )
        for r, error_m, heading, inside, is_on_map, nearest in columns
    }
    return [errors.get(r.frame.index) for r in results]


def fix_errors(pose: Pose2D | None, truth: Pose) -> FixErrors | None:
    """Compare a fix with the truth; None where either is missing."""
    if pose is None or truth.location is None:
        return None
    return FixErrors(
        float(geo.distance_m(*truth.location, *pose.ground)),
        None if pose.aircraft is None else float(geo.distance_m(*truth.location, *pose.aircraft)),
        _heading_error_deg(truth, pose.heading_deg),
    )


def track_errors(estimate: TrackEstimate | None, truth: Pose) -> TrackErrors | None:
    """Compare a track's estimate with the truth; None where either is missing."""
    if estimate is None or estimate.position is None or truth.location is None:
        return None
    return TrackErrors(
        float(geo.distance_m(*truth.location, *estimate.position)), _heading_error_deg(truth, estimate.heading_deg)
    )


def _heading_error_deg(truth: Pose, heading_deg: float | None) -> float | None:
    if truth.yaw_deg is None or heading_deg is None:
        return None
    return geo.heading_difference(truth.yaw_deg, heading_deg)


def _side_m(tile: TileFacts) -> float:
    return float(geo.distance_m(0.0, tile.bbox.south, 0.0, tile.bbox.north))
