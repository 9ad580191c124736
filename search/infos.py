"""From SearchRuns to CoarseLocalizationInfo: hits, the place they amount to, and how far off it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coarseloc import ids
from coarseloc.errors import StoreError
from coarseloc.scoring import metrics
from coarseloc.store import Database, runs
from coarseloc.store.runs import FrameResult, StoredRun
from coarseloc.types import Flight, Hit, Pose
from search import localize
from search.hits import recorded_hit
from search.localize import Candidate, Estimate
from search.records import (
    SCHEMA_VERSION,
    Agreement,
    CoarseLocalizationInfo,
    Errors,
    EstimateInfo,
    Location,
    Query,
    ReferenceSetInfo,
    Result,
    TimingMs,
    Truth,
)

NO_HITS = "the references it was matched with are gone: search this flight again"


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """One frame of one run: the record, or why there is none."""

    run: StoredRun
    result: FrameResult
    info: CoarseLocalizationInfo | None

    @property
    def error(self) -> str | None:
        return self.result.error if self.info is None else None


def newest_runs(db: Database, flight_id: str, reference_set: str | None = None) -> list[StoredRun]:
    """A flight's newest finished run of each reference set, backbone spec, heading and filter.

    Raises StoreError where there is none.
    """
    with db.read() as session:
        runs.find_flight(session, flight_id)
        finished = runs.latest_runs(session, flight_id, reference_set)
    newest = {(run.reference_set.name, run.spec.spec.digest, _asked(run)): run for run in finished}
    if not newest:
        of = f" against {reference_set!r}" if reference_set else ""
        raise StoreError(f"flight {flight_id} has no finished search{of}: run `coarseloc search` to its end first")
    return sorted(newest.values(), key=lambda run: run.id)


def comparable(found: Sequence[StoredRun]) -> list[list[StoredRun]]:
    """Runs that were asked the same of the same references, by different backbones: those that can agree."""
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run in found:
        groups.setdefault((run.reference_set.name, _asked(run)), []).append(run)
    return list(groups.values())


def _asked(run: StoredRun) -> str:
    return ids.digest({name: run.parameters.get(name) for name in ("angle_deg", "where")})


def frame_infos(
    db: Database,
    thumbnails: Path,
    flight: Flight,
    group: Sequence[StoredRun],
    frame_indices: Sequence[int] | None = None,
) -> Iterator[FrameInfo]:
    """Every frame (or some) of comparable runs, run by run in frame order."""
    with db.read() as session:
        results = [runs.results(session, run.id, frame_indices) for run in group]
    places = [[localize.candidates(result.hits) for result in of_run] for of_run in results]
    agreements = _agreements(group, results, places)
    for run, of_run, of_run_places in zip(group, results, places, strict=True):
        errors = _errors([(result.frame.truth, found) for result, found in zip(of_run, of_run_places, strict=True)])
        for result, found, error in zip(of_run, of_run_places, errors, strict=True):
            info = None
            if result.error is None and result.timing is not None and (estimate := localize.estimate(found)):
                info = _info(flight, run, result, estimate, agreements[run.id, result.frame.index], error, thumbnails)
            yield FrameInfo(run, result if info or result.error else _without_hits(result), info)


def _without_hits(result: FrameResult) -> FrameResult:
    return FrameResult(result.frame, result.timing, (), NO_HITS)


def _agreements(
    group: Sequence[StoredRun],
    results: Sequence[Sequence[FrameResult]],
    places: Sequence[Sequence[Sequence[Candidate]]],
) -> dict[tuple[int, int], Agreement]:
    """{(run, frame index): how many of the group's backbones agree}; neighbouring tiles still do."""
    facts = group[0].reference_set.reference_set
    within_m = localize.stride_m(facts.footprint_m, facts.overlap)
    of_frame: dict[int, dict[int, Estimate | None]] = {}
    for run, of_run, of_run_places in zip(group, results, places, strict=True):
        for result, found in zip(of_run, of_run_places, strict=True):
            of_frame.setdefault(result.frame.index, {})[run.id] = localize.estimate(found)
    agreements = {}
    for index, estimates in of_frame.items():
        counts = localize.agreement(list(estimates.values()), within_m)
        for run_id, count in zip(estimates, counts, strict=True):
            agreements[run_id, index] = Agreement(backbones=count, of=len(estimates), within_m=within_m)
    return agreements


def _errors(frames: Sequence[tuple[Pose, Sequence[Candidate]]]) -> list[Errors | None]:
    """Against the truth; None where it is unknown."""
    ranked = localize.ranked(frames)
    figures = zip(
        metrics.error_m(ranked),
        metrics.best_error_m(ranked),
        metrics.heading_error_deg(ranked),
        metrics.right_place(ranked),
        strict=True,
    )
    return [
        None
        if pose.location is None
        else Errors(
            error_m=_or_none(error),
            best_error_m=_or_none(best),
            heading_error_deg=_or_none(heading),
            inside_footprint=bool(inside),
        )
        for (pose, _), (error, best, heading, inside) in zip(frames, figures, strict=True)
    ]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _info(
    flight: Flight,
    run: StoredRun,
    result: FrameResult,
    estimate: Estimate,
    agreement: Agreement,
    errors: Errors | None,
    thumbnails: Path,
) -> CoarseLocalizationInfo:
    timing = result.timing
    assert timing is not None  # noqa: S101 - the caller has looked
    return CoarseLocalizationInfo(
        encoder=run.spec.spec.backbone,
        backend=run.environment["backend"],
        dim=run.spec.spec.dim,
        metric="ip",
        topk=run.parameters["k"],
        timing_ms=TimingMs(
            embed=timing.embed_ms, search=timing.search_ms, total=timing.total_ms, decode=timing.decode_ms
        ),
        results=[_result(recorded_hit(hit, thumbnails)) for hit in result.hits],
        index_build_ms=run.index_build_ms,
        schema_version=SCHEMA_VERSION,
        flight_id=flight.flight_id,
        frame_index=result.frame.index,
        query=_query(run, result),
        reference_set=_reference_set(run),
        estimate=EstimateInfo(
            location=Location(**estimate.location._asdict()),
            heading_deg=estimate.heading_deg,
            place_id=estimate.place_id,
            score=estimate.score,
            margin=estimate.margin,
            method=estimate.method,
            agreement=agreement,
        ),
        truth=_truth(flight, result),
        errors=errors,
    )


def _result(hit: Hit) -> Result:
    tile = hit.tile
    return Result(
        rank=hit.rank,
        path=hit.path,
        filename=hit.filename,
        score=hit.score,
        tile_id=tile.tile_id,
        place_id=tile.place_id,
        angle_deg=tile.angle_deg,
        altitude_m=tile.altitude_m,
        overlap=tile.overlap,
        location=Location(**tile.center._asdict()),
        bbox=tile.bbox,
    )


def _query(run: StoredRun, result: FrameResult) -> Query:
    spec = run.spec.spec
    return Query(
        run=run.id,
        path=str(result.frame.path),
        filename=result.frame.filename,
        spec_digest=spec.digest,
        input_px=spec.input_px,
        precision=spec.precision,
        batch=run.parameters["batch"],
        angle_deg=run.parameters["angle_deg"],
        where=run.parameters["where"],
        device=run.environment["device"],
    )


def _reference_set(run: StoredRun) -> ReferenceSetInfo:
    facts = run.reference_set.reference_set
    return ReferenceSetInfo(
        name=facts.name,
        kind=facts.kind,
        altitude_m=facts.altitude_m,
        overlap=facts.overlap,
        footprint_m=facts.footprint_m,
        angles=list(facts.angles),
        references=run.references,
    )


def _truth(flight: Flight, result: FrameResult) -> Truth | None:
    pose = result.frame.truth
    if pose.location is None:
        return None
    yaw = None if pose.yaw_deg is None else pose.yaw_deg % 360.0
    heading = 0.0 if yaw == 360.0 else yaw  # the remainder of a tiny negative angle is 360 itself
    return Truth(location=Location(**pose.location._asdict()), heading_deg=heading, source=flight.truth_source)
