"""Stored answers as CoarseLocalizationInfo: one frame of one run as other programs read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coarseloc.core.errors import StoreError
from coarseloc.core.marks import UNMARKED, FrameMarks
from coarseloc.core.types import Flight, Frame, Hit, Pose, RankedTile
from coarseloc.imagery.decode import thumbnail_path
from coarseloc.store import Database, flights, marks, runs
from coarseloc.store.localizations import BEST_PLACE, FIX
from coarseloc.store.runs import FrameResult, StoredRun
from search.answers import FrameAnswer, first_hits, frame_answers, nearest_result_m
from search.export.fix_infos import fix_info
from search.export.records import (
    SCHEMA_VERSION,
    AgreementInfo,
    CoarseLocalizationInfo,
    CovarianceInfo,
    ErrorsInfo,
    EstimateInfo,
    FrameFailure,
    Location,
    QueryInfo,
    ReferenceSetInfo,
    Result,
    TimingMs,
    TruthInfo,
)
from search.export.track_infos import track_info

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid

NO_HITS = "the references it was matched with are gone: search this flight again"


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """One frame of one run: the record, or the error where there is none."""

    run: StoredRun
    result: FrameResult
    info: CoarseLocalizationInfo | None
    marks: FrameMarks = UNMARKED

    @property
    def error(self) -> str | None:
        return self.result.error if self.info is None else None


def newest_runs(db: Database, flight_id: str, reference_set: str | None = None) -> list[StoredRun]:
    """A flight's newest finished run of each reference set, backbone spec, heading and filter.

    Raises StoreError where there is none.
    """
    with db.read() as session:
        flights.find_flight(session, flight_id)
        finished = runs.latest_runs(session, flight_id, reference_set)
    newest = {(run.spec.digest, run.question): run for run in finished}
    if not newest:
        of = f" against {reference_set!r}" if reference_set else ""
        raise StoreError(f"flight {flight_id} has no finished search{of}: run `coarseloc search` to its end first")
    return sorted(newest.values(), key=lambda run: run.id)


def group_by_question(stored_runs: Sequence[StoredRun]) -> list[list[StoredRun]]:
    """Group runs of the same question and references by different backbones: those that can agree."""
    groups: dict[str, list[StoredRun]] = {}
    for run in stored_runs:
        groups.setdefault(run.question, []).append(run)
    return list(groups.values())


def frame_infos(
    db: Database,
    thumbnails: Path,
    flight: Flight,
    stored_runs: Sequence[StoredRun],
    frame_indices: Sequence[int] | None = None,
    *,
    method: str = BEST_PLACE,
    grid: ProjectedGrid | None = None,
    track_name: str | None = None,
) -> Iterator[FrameInfo]:
    """Every frame (or those of `frame_indices`) of runs, run by run in the flight's order; positions in a grid too.
    track_name: of the track that records tell of."""
    with db.read() as session:
        answers = frame_answers(session, stored_runs, method=method, frame_indices=frame_indices, track_name=track_name)
        marked = marks.frame_marks(session, flight.flight_id, frame_indices)
    for run in stored_runs:
        for answer in answers.pop(run.id):
            result = answer.result
            if result.error is None and result.estimate is None:
                result = replace(result, error=_no_answer(result, method))
            on_frame = marked.get(result.frame.index, UNMARKED)
            info = None if result.error else _info(flight, run, answer, method, thumbnails, on_frame)
            yield FrameInfo(run, result, grid.in_record(info) if grid and info else info, on_frame)


def frame_failure(frame_info: FrameInfo) -> FrameFailure:
    """A frame that has no record, and why."""
    return FrameFailure(
        frame_index=frame_info.result.frame.index,
        filename=frame_info.result.frame.filename,
        encoder=frame_info.run.spec.backbone,
        reference_set=frame_info.run.reference_set.name,
        angle_deg=frame_info.run.parameters["angle_deg"],
        error=frame_info.error or "",
    )


def _no_answer(result: FrameResult, method: str) -> str:
    if method == FIX and result.fix and result.fix.reason:
        return f"{'not verified' if result.fix.match is None else 'no match'}: {result.fix.reason}"
    return NO_HITS


def to_hit(ranked: RankedTile, thumbnails: Path) -> Hit:
    """A ranked tile with its image file: the capture's own, or the thumbnail of a tile cut from an orthophoto."""
    tile = ranked.tile
    if ranked.path is not None:
        return Hit(ranked.rank, ranked.score, tile, ranked.path, Path(ranked.path).name)
    name, _, index = tile.tile_id.rpartition("/")
    thumbnail = thumbnail_path(thumbnails, ranked.content_digest)
    return Hit(ranked.rank, ranked.score, tile, str(thumbnail), f"{name}_{index}_{tile.angle_deg:03d}.jpg")


def hit_result(hit: Hit) -> Result:
    """A hit as the record's model."""
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
        reference_set=tile.reference_set,
        location=Location(**tile.center._asdict()),
        bbox=tile.bbox,
    )


def _info(
    flight: Flight, run: StoredRun, answer: FrameAnswer, method: str, thumbnails: Path, on_frame: FrameMarks
) -> CoarseLocalizationInfo | None:
    timing, estimate, fix = answer.result.timing, estimate_info(answer, method), answer.result.fix
    if timing is None or estimate is None:
        return None
    return CoarseLocalizationInfo(
        encoder=run.spec.backbone,
        backend=run.environment["backend"],
        dim=run.spec.dim,
        metric="ip",
        topk=run.parameters["k"],
        timing_ms=TimingMs(
            embed=timing.embed_ms,
            search=timing.search_ms,
            total=timing.total_ms,
            decode=timing.decode_ms,
            verify=fix.conditions.verify_ms if fix and fix.conditions else None,
        ),
        results=[hit_result(to_hit(hit, thumbnails)) for hit in first_hits(run, answer.result)],
        index_build_ms=run.index_build_ms,
        schema_version=SCHEMA_VERSION,
        flight_id=flight.flight_id,
        frame_index=answer.result.frame.index,
        query=_query(flight, run, answer.result),
        reference_set=_reference_set(run),
        estimate=estimate,
        truth=truth_info(answer.result.frame.truth, flight.truth_source),
        errors=errors_info(run, answer),
        tags=list(on_frame.tags) or None,
        note=on_frame.note or None,
    )


def estimate_info(answer: FrameAnswer, method: str) -> EstimateInfo | None:
    """The record's estimate; None where the frame has no answer."""
    estimate, agreement = answer.result.estimate, answer.agreement
    if estimate is None or agreement is None:
        return None
    covariance = estimate.covariance_m2
    same_fields = {name: getattr(estimate, name) for name in EstimateInfo.model_fields if hasattr(estimate, name)}
    return EstimateInfo(
        **same_fields
        | {
            "location": Location(**estimate.location._asdict()),
            "margin": None if estimate.margin_at_least else estimate.margin,
            "margin_at_least": estimate.margin if estimate.margin_at_least else None,
            "covariance_m2": covariance and CovarianceInfo(**covariance._asdict()),
            "method": method,
            "agreement": AgreementInfo(**asdict(agreement)),
            "fix": fix_info(answer.result.fix),
            "track": answer.result.track and track_info(answer.result.track, answer.result.tracked_by),
        }
    )


def errors_info(run: StoredRun, answer: FrameAnswer) -> ErrorsInfo | None:
    errors, fix_errors = answer.errors, answer.fix_errors
    truth = answer.result.frame.truth.location
    if errors is None or truth is None:
        return None
    return ErrorsInfo(
        error_m=errors.error_m,
        best_error_m=nearest_result_m(truth, first_hits(run, answer.result)),
        heading_error_deg=errors.heading_error_deg,
        inside_footprint=errors.inside_footprint,
        on_map=errors.on_map,
        fix_ground_m=fix_errors.ground_m if fix_errors else None,
        fix_aircraft_m=fix_errors.aircraft_m if fix_errors else None,
        track_m=answer.track_errors.location_m if answer.track_errors else None,
    )


def frame_facts(flight: Flight, frame: Frame) -> dict[str, Any]:
    """The keys of FrameFactsInfo."""
    pose, clock = frame.truth, flight.clock
    return {
        "taken_at": frame.time,
        "time_source": clock.source,
        "utc_offset_s": clock.utc_offset_s,
        "altitude_label_m": pose.altitude_label_m,
        "altitude_datum": None if pose.altitude_label_m is None else pose.altitude_datum,
        "yaw_deg": pose.yaw_deg,
        "pitch_deg": pose.pitch_deg,
        "roll_deg": pose.roll_deg,
    }


def _query(flight: Flight, run: StoredRun, result: FrameResult) -> QueryInfo:
    spec = run.spec
    return QueryInfo(
        **frame_facts(flight, result.frame),
        run=run.id,
        path=str(result.frame.path),
        filename=result.frame.filename,
        relative_path=result.frame.relative_path,
        spec_digest=spec.digest,
        input_px=spec.input_px,
        precision=spec.precision,
        fit=spec.fit,
        batch=run.parameters["batch"],
        angle_deg=run.parameters["angle_deg"],
        where=run.parameters["where"],
        device=run.environment["device"],
        threads=run.environment.get("threads"),
    )


def _reference_set(run: StoredRun) -> ReferenceSetInfo:
    facts = run.reference_set
    return ReferenceSetInfo(
        name=facts.name,
        kind=facts.kind,
        altitude_m=facts.altitude_m,
        overlap=facts.overlap,
        footprint_m=facts.footprint_m,
        angles=list(facts.angles),
        references=run.references,
    )


def truth_info(pose: Pose, source: str) -> TruthInfo | None:
    """What a flight's labels say of a frame; None where they do not place it."""
    if pose.location is None:
        return None
    yaw = None if pose.yaw_deg is None else pose.yaw_deg % 360.0
    heading = 0.0 if yaw == 360.0 else yaw  # the remainder of a tiny negative angle is 360 itself
    return TruthInfo(location=Location(**pose.location._asdict()), heading_deg=heading, source=source)
