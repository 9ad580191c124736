"""Search runs: what was asked of which references, and what came back for each frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.errors import StoreError
from coarseloc.core.fixes import FrameFix
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Estimate, Frame, RankedTile, ReferenceSet, Timing
from coarseloc.store import localizations, seals, snapshots
from coarseloc.store.embeddings import StoredSpec, stored_spec
from coarseloc.store.flights import StoredFlight, frame_of
from coarseloc.store.localizations import BEST_PLACE, FIX, TRACK, TRACK_SMOOTHED, StoredLocalization
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.snapshots import TileSnapshot
from coarseloc.store.tables import FlightRow, FrameResultRow, FrameRow, HitRow, RunRow, SpecRow, now


@dataclass(frozen=True)
class StoredRun:
    """One SearchRun: what was asked (`parameters`), what answered (`environment`)."""

    id: int
    flight_id: str
    set_uids: tuple[str, ...]
    reference_sets: tuple[ReferenceSet, ...]  # as they were when it began; one search space
    search_map: int  # of the places searched, see `snapshots.search_map`
    spec: StoredSpec
    parameters: Mapping[str, Any]
    environment: Mapping[str, Any]
    index_build_ms: float
    references: int
    created_at: datetime
    finished_at: datetime | None

    @cached_property
    def reference_set(self) -> ReferenceSet:
        """What was searched as one: of several sets what they share, with the geometry of the coarsest."""
        return combine_reference_sets(self.reference_sets)

    @property
    def question(self) -> str:
        """Equal for runs whose answers can be held against each other: the same references, heading and filters."""
        conditions = {name: self.parameters.get(name) for name in ("angle_deg", "where")}
        return ids.digest({"sets": sorted(self.set_uids), **conditions})


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What a run found for one frame: hits, timing and the estimate, or the error."""

    frame: Frame
    timing: Timing | None
    hits: tuple[RankedTile, ...]  # () where they were not asked for, or there are none
    error: str | None
    estimate: Estimate | None  # by the method asked for
    best: TileSnapshot | None  # the estimate's tile
    fix: FrameFix | None = None  # None where the run was not verified
    track: TrackEstimate | None = None  # None where the run was not tracked
    tracked_by: StoredLocalization | None = None  # the track that this estimate is of


def combine_reference_sets(sets: Sequence[ReferenceSet]) -> ReferenceSet:
    """Describe several sets as one search space."""
    if len(sets) == 1:
        return sets[0]
    coarsest = max(sets, key=lambda member: (member.footprint_m or 0.0) * (1.0 - member.overlap))
    kinds, altitudes = {member.kind for member in sets}, {member.altitude_m for member in sets}
    return replace(
        coarsest,
        name=" + ".join(member.name for member in sets),
        kind=kinds.pop() if len(kinds) == 1 else "several",
        source="; ".join(member.source for member in sets),
        altitude_m=altitudes.pop() if len(altitudes) == 1 else None,
        angles=tuple(sorted({angle for member in sets for angle in member.angles})),
        parameters={},
    )


# --- as a run grows -------------------------------------------------------------------------------


def start_run(
    session: Session,
    flight: StoredFlight,
    sets: Sequence[StoredReferenceSet],
    search_map: int,
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    index_build_ms: float,
    references: int,
    fix_parameters: Mapping[str, Any] | None = None,
) -> tuple[int, int, set[int]]:
    """A new run with its best-place localization, or the unfinished one of the same question and environment; returns
    (run, localization, frame keys already done).

    fix_parameters: what its frames will be looked for on the map with; None where they will not. The run is unfinished
    while that answer is.

    Whoever calls puts the index's version among `parameters`: a run never mixes two states of the references, nor
    the times of two machines.
    """
    digest = ids.digest(parameters)
    searched = [{"uid": stored_set.uid, **asdict(stored_set.reference_set)} for stored_set in sets]
    candidates = session.scalars(
        select(RunRow)
        .where(
            RunRow.flight_pk == flight.id,
            RunRow.search_map_id == search_map,
            RunRow.spec_id == spec.id,
            RunRow.parameters_digest == digest,
        )
        .order_by(RunRow.id.desc())
    ).all()
    uids = [stored_set.uid for stored_set in sets]
    row = next(
        (
            row
            for row in candidates
            if _conditions(row.environment) == _conditions(environment)
            and [stored["uid"] for stored in row.reference_sets] == uids
            and _is_unfinished(session, row, fix_parameters)
        ),
        None,
    )
    if row is None:
        row = RunRow(flight_pk=flight.id, search_map_id=search_map, spec_id=spec.id)
        row.reference_sets, row.parameters, row.parameters_digest = searched, dict(parameters), digest
        row.environment, row.index_build_ms, row.references = dict(environment), index_build_ms, references
        session.add(row)
        session.flush()
    localization = localizations.start_localization(session, flight.id, BEST_PLACE, [row.id], row.reference_sets, {})
    if fix_parameters is not None:
        localizations.start_localization(session, flight.id, FIX, [row.id], row.reference_sets, fix_parameters)
    recorded_frames = select(FrameResultRow.frame_id).where(FrameResultRow.run_id == row.id)
    return row.id, localization, set(session.scalars(recorded_frames))


def _conditions(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What an unfinished run must share: all but the way of searching, which a trial may settle otherwise."""
    return {name: value for name, value in environment.items() if name != "search_way"}


def _is_unfinished(session: Session, row: RunRow, fix_parameters: Mapping[str, Any] | None) -> bool:
    if row.finished_at is None:
        return True
    return fix_parameters is not None and localizations.is_unfinished(session, row.id, FIX, fix_parameters)


def save_frame_result(
    session: Session,
    run: int,
    frame_key: int,
    timing: Timing | None,
    hits: Iterable[tuple[int, float]],
    error: str | None = None,
) -> None:
    """Record one frame: (snapshot, score) in rank order, or the error."""
    seals.unseal(session, "run", run)
    session.add(
        FrameResultRow(
            run_id=run,
            frame_id=frame_key,
            decode_ms=timing and timing.decode_ms,
            embed_ms=timing and timing.embed_ms,
            search_ms=timing and timing.search_ms,
            error=error,
        )
    )
    session.add_all(
        HitRow(run_id=run, frame_id=frame_key, rank=rank, snapshot_id=snapshot, score=score)
        for rank, (snapshot, score) in enumerate(hits, start=1)
    )


def finish_run(session: Session, run: int) -> None:
    row = session.get_one(RunRow, run)
    row.finished_at = row.finished_at or now()
    seals.seal(session, "run", run)


# --- reading --------------------------------------------------------------------------------------


def runs(session: Session, flight_id: str | None = None) -> list[StoredRun]:
    """List every run, or a flight's, oldest first."""
    return _runs(session, true() if flight_id is None else FlightRow.flight_id == ids.label(flight_id))


def find_run(session: Session, run_id: int) -> StoredRun:
    """Read a run. Raises StoreError saying how to list the runs there are."""
    for run in _runs(session, RunRow.id == run_id):
        return run
    raise StoreError(f"search run {run_id} is not known: `coarseloc flights --json` lists the runs there are")


def _runs(session: Session, condition: ColumnElement[bool]) -> list[StoredRun]:
    query = (
        select(RunRow, FlightRow.flight_id, SpecRow)
        .join(FlightRow, FlightRow.id == RunRow.flight_pk)
        .join(SpecRow, SpecRow.id == RunRow.spec_id)
        .where(condition)
        .order_by(RunRow.id)
    )
    return [
        StoredRun(
            id=run.id,
            flight_id=flight,
            set_uids=tuple(stored["uid"] for stored in run.reference_sets),
            reference_sets=tuple(map(_reference_set, run.reference_sets)),
            search_map=run.search_map_id,
            spec=stored_spec(spec),
            parameters=run.parameters,
            environment=run.environment,
            index_build_ms=run.index_build_ms,
            references=run.references,
            created_at=run.created_at,
            finished_at=run.finished_at,
        )
        for run, flight, spec in session.execute(query)
    ]


def _reference_set(stored: Mapping[str, Any]) -> ReferenceSet:
    facts: dict[str, Any] = {name: value for name, value in stored.items() if name != "uid"}
    return ReferenceSet(**facts | {"angles": tuple(facts["angles"])})


def latest_runs(session: Session, flight_id: str, reference_set: str | None = None) -> list[StoredRun]:
    """List a flight's newest finished run of each (references, backbone spec, parameters), oldest first.

    Parameters leave out the index's version: a run against newer references replaces the older one.
    """
    name = None if reference_set is None else ids.label(reference_set)
    return newest_runs(run for run in runs(session, flight_id) if name in (None, run.reference_set.name))


def newest_runs(of_flight: Iterable[StoredRun]) -> list[StoredRun]:
    """Choose of a flight's runs, oldest first, those that `latest_runs` lists."""
    newest: dict[str, StoredRun] = {}
    for run in of_flight:
        if run.finished_at is None:
            continue
        parameters = {name: value for name, value in run.parameters.items() if name != "index_version"}
        newest[ids.digest({"sets": sorted(run.set_uids), "spec": run.spec.digest, "asked": parameters})] = run
    return sorted(newest.values(), key=lambda run: run.id)


def agreement_voters(run: StoredRun, of_flight: Iterable[StoredRun]) -> list[StoredRun]:
    """The runs whose agreement with this one says something: of each backbone spec the newest finished one among
    `of_flight` that answers the same question, this run for its own spec. Never a spec twice: a run agrees with its
    repetition."""
    comparable = [
        candidate for candidate in of_flight if candidate.finished_at is not None and candidate.question == run.question
    ]
    newest = newest_by_spec(comparable) | {run.spec.digest: run}
    return sorted(newest.values(), key=lambda voter: voter.id)


def newest_by_spec(runs: Iterable[StoredRun]) -> dict[str, StoredRun]:
    """Choose the newest run of each spec, {spec's digest: run}."""
    return {run.spec.digest: run for run in sorted(runs, key=lambda run: run.id)}


def results(
    session: Session,
    run: int,
    frame_indices: Sequence[int] | None = None,
    *,
    method: str = BEST_PLACE,
    with_hits: bool = True,
    track_name: str | None = None,
) -> list[FrameResult]:
    """Read a run's results in the flight's order with the estimates of a method, for all frames or some, and those of a
    track (`localizations.run_track`).

    Raises StoreError where its rows are not as they were written.
    """
    seals.check(session, "run", run, frame_indices)
    query = (
        select(FrameRow, FrameResultRow)
        .join(FrameResultRow, FrameResultRow.frame_id == FrameRow.id)
        .where(FrameResultRow.run_id == run)
        .order_by(FrameRow.sequence, FrameRow.index)
    )
    if frame_indices is not None:
        query = query.where(FrameRow.index.in_(frame_indices))
    rows = session.execute(query).all()
    keys = [frame.id for frame, _ in rows] if frame_indices is not None else None
    hits = _hits(session, run, keys) if with_hits else {}
    estimates = localizations.estimates(session, run, method, frame_indices, track_name)
    fixes = localizations.frame_fixes(session, run, frame_indices)
    track_method = method if method in (TRACK, TRACK_SMOOTHED) else None
    tracked_by = localizations.run_track(session, run, track_method, track_name)
    tracked = localizations.frame_tracks(session, tracked_by, frame_indices)
    return [
        FrameResult(
            frame_of(frame),
            _timing(result),
            tuple(hits.get(frame.id, ())),
            result.error,
            estimate=estimate,
            best=best,
            fix=fixes.get(frame.index),
            track=tracked.get(frame.index),
            tracked_by=tracked_by,
        )
        for frame, result in rows
        for estimate, best in [estimates.get(frame.index, (None, None))]
    ]


def _hits(session: Session, run: int, frame_keys: Sequence[int] | None) -> dict[int, list[RankedTile]]:
    query = select(HitRow.frame_id, HitRow.rank, HitRow.score, HitRow.snapshot_id).where(HitRow.run_id == run)
    if frame_keys is not None:
        query = query.where(HitRow.frame_id.in_(frame_keys))
    rows = session.execute(query.order_by(HitRow.frame_id, HitRow.rank)).all()
    tiles = snapshots.snapshots(session, (row.snapshot_id for row in rows))
    hits: dict[int, list[RankedTile]] = {}
    for row in rows:
        snapshot = tiles[row.snapshot_id]
        hits.setdefault(row.frame_id, []).append(
            RankedTile(row.rank, row.score, snapshot.tile, snapshot.path, snapshot.content_digest, snapshot.id)
        )
    return hits


def _timing(row: FrameResultRow) -> Timing | None:
    if row.decode_ms is None or row.embed_ms is None or row.search_ms is None:
        return None
    return Timing(row.decode_ms, row.embed_ms, row.search_ms)
