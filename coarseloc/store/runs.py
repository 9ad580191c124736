"""Flights, their frames, search runs and hits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from coarseloc import ids
from coarseloc.errors import StoreError
from coarseloc.store.embeddings import StoredSpec, facts_by_key, stored_spec
from coarseloc.store.references import StoredReferenceSet, stored
from coarseloc.store.tables import (
    FlightRow,
    FrameResultRow,
    FrameRow,
    HitRow,
    ReferenceSetRow,
    RunRow,
    SpecRow,
    now,
)
from coarseloc.store.upsert import upsert
from coarseloc.types import Flight, Frame, LonLat, Pose, TileFacts, Timing


@dataclass(frozen=True, slots=True)
class StoredFlight:
    """A flight as the database holds it, with its frames' primary keys by frame index."""

    id: int
    flight: Flight
    frame_keys: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One SearchRun: what was asked (`parameters`), what answered (`environment`)."""

    id: int
    flight_id: str
    reference_set: StoredReferenceSet
    spec: StoredSpec
    parameters: Mapping[str, Any]
    environment: Mapping[str, Any]
    index_build_ms: float
    references: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredHit:
    """One ranked rotated tile of a frame, before its picture is located."""

    rank: int
    score: float
    rotated_tile: int
    tile: TileFacts
    path: str | None  # the capture's file; None for a cut tile
    content_digest: str  # names the thumbnail


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What a run found for one frame: hits and timing, or the error."""

    frame: Frame
    timing: Timing | None
    hits: tuple[StoredHit, ...]
    error: str | None


# --- flights ------------------------------------------------------------------------------------


def save_flight(session: Session, flight: Flight) -> StoredFlight:
    """Create or refresh a flight and its frames; frames no longer in the folder are dropped with their hits."""
    row = session.scalar(select(FlightRow).where(FlightRow.flight_id == flight.flight_id))
    row = row or FlightRow(flight_id=flight.flight_id)
    row.path, row.started_at, row.truth_source = str(flight.path), flight.started_at, flight.truth_source
    session.add(row)
    session.flush()
    upsert(session, FrameRow, (_frame_values(row.id, frame) for frame in flight.frames), ["flight_pk", "index"])
    keys = _frame_keys(session, row.id)
    gone = keys.keys() - {frame.index for frame in flight.frames}
    for index in gone:
        session.execute(delete(FrameRow).where(FrameRow.id == keys.pop(index)))
    return StoredFlight(row.id, flight, keys)


def _frame_values(flight_pk: int, frame: Frame) -> dict[str, Any]:
    location = frame.truth.location
    return {
        "flight_pk": flight_pk,
        "index": frame.index,
        "path": str(frame.path),
        "lon": location and location.lon,
        "lat": location and location.lat,
        "altitude_label_m": frame.truth.altitude_label_m,
        "yaw_deg": frame.truth.yaw_deg,
        "pitch_deg": frame.truth.pitch_deg,
        "roll_deg": frame.truth.roll_deg,
    }


def _frame_keys(session: Session, flight_pk: int) -> dict[int, int]:
    query = select(FrameRow.index, FrameRow.id).where(FrameRow.flight_pk == flight_pk).order_by(FrameRow.index)
    return {index: pk for index, pk in session.execute(query)}


def flight_ids(session: Session) -> list[str]:
    return list(session.scalars(select(FlightRow.flight_id).order_by(FlightRow.flight_id)))


def find_flight(session: Session, flight_id: str) -> StoredFlight:
    """Raises StoreError listing the flights there are."""
    row = session.scalar(select(FlightRow).where(FlightRow.flight_id == flight_id))
    if row is None:
        known = ", ".join(flight_ids(session)) or "none yet: search one with `coarseloc search FLIGHT_DIR`"
        raise StoreError(f"flight {flight_id!r} is not known: expected one of {known}")
    rows = session.scalars(select(FrameRow).where(FrameRow.flight_pk == row.id).order_by(FrameRow.index)).all()
    flight = Flight(row.flight_id, Path(row.path), tuple(map(_frame, rows)), row.started_at, row.truth_source)
    return StoredFlight(row.id, flight, {frame.index: frame.id for frame in rows})


def _frame(row: FrameRow) -> Frame:
    location = None if row.lon is None or row.lat is None else LonLat(row.lon, row.lat)
    pose = Pose(location, row.altitude_label_m, row.yaw_deg, row.pitch_deg, row.roll_deg)
    return Frame(row.index, Path(row.path), pose)


# --- runs ---------------------------------------------------------------------------------------


def start_run(
    session: Session,
    flight: StoredFlight,
    reference_set: StoredReferenceSet,
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    index_build_ms: float,
    references: int,
) -> tuple[int, set[int]]:
    """A new run, or the unfinished one of the same parameters and environment; returns (run, frame keys already done).

    Whoever calls puts the index's version among `parameters`: a run never mixes two states of the references, nor
    the times of two machines.
    """
    asked = ids.digest(parameters)
    unfinished = session.scalars(
        select(RunRow)
        .where(
            RunRow.flight_pk == flight.id,
            RunRow.reference_set_id == reference_set.id,
            RunRow.spec_id == spec.id,
            RunRow.parameters_digest == asked,
            RunRow.finished_at.is_(None),
        )
        .order_by(RunRow.id.desc())
    )
    row = next((row for row in unfinished if row.environment == dict(environment)), None)
    if row is None:
        row = RunRow(flight_pk=flight.id, reference_set_id=reference_set.id, spec_id=spec.id)
        row.parameters, row.parameters_digest = dict(parameters), asked
        row.environment, row.index_build_ms, row.references = dict(environment), index_build_ms, references
        session.add(row)
        session.flush()
    done = select(FrameResultRow.frame_id).where(FrameResultRow.run_id == row.id)
    return row.id, set(session.scalars(done))


def save_frame_result(
    session: Session,
    run: int,
    frame_key: int,
    timing: Timing | None,
    hits: Iterable[tuple[int, float]],
    error: str | None = None,
) -> None:
    """Record one frame: (rotated tile, score) in rank order, or the error."""
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
        HitRow(run_id=run, frame_id=frame_key, rank=rank, rotated_tile_id=tile, score=score)
        for rank, (tile, score) in enumerate(hits, start=1)
    )


def finish_run(session: Session, run: int) -> None:
    session.get_one(RunRow, run).finished_at = now()


def runs(session: Session, flight_id: str | None = None) -> list[StoredRun]:
    """Every run, or a flight's; oldest first."""
    query = (
        select(RunRow, FlightRow.flight_id, ReferenceSetRow, SpecRow)
        .join(FlightRow, FlightRow.id == RunRow.flight_pk)
        .join(ReferenceSetRow, ReferenceSetRow.id == RunRow.reference_set_id)
        .join(SpecRow, SpecRow.id == RunRow.spec_id)
        .order_by(RunRow.id)
    )
    if flight_id is not None:
        query = query.where(FlightRow.flight_id == flight_id)
    return [
        StoredRun(
            id=run.id,
            flight_id=flight,
            reference_set=stored(reference_set),
            spec=stored_spec(spec),
            parameters=run.parameters,
            environment=run.environment,
            index_build_ms=run.index_build_ms,
            references=run.references,
            created_at=run.created_at,
            finished_at=run.finished_at,
        )
        for run, flight, reference_set, spec in session.execute(query)
    ]


def latest_runs(session: Session, flight_id: str, reference_set: str | None = None) -> list[StoredRun]:
    """A flight's newest finished run of each (reference set, backbone spec, what was asked), oldest first.

    "What was asked" leaves out the index's version: a run against newer references replaces the older one.
    """
    newest: dict[str, StoredRun] = {}
    for run in runs(session, flight_id):
        if run.finished_at is None or (reference_set is not None and run.reference_set.name != reference_set):
            continue
        asked = {name: value for name, value in run.parameters.items() if name != "index_version"}
        newest[ids.digest({"set": run.reference_set.name, "spec": run.spec.spec.digest, "asked": asked})] = run
    return sorted(newest.values(), key=lambda run: run.id)


def results(session: Session, run: int, frame_indices: Sequence[int] | None = None) -> list[FrameResult]:
    """A run's results in frame order, for all frames or some."""
    query = (
        select(FrameRow, FrameResultRow)
        .join(FrameResultRow, FrameResultRow.frame_id == FrameRow.id)
        .where(FrameResultRow.run_id == run)
        .order_by(FrameRow.index)
    )
    if frame_indices is not None:
        query = query.where(FrameRow.index.in_(frame_indices))
    rows = session.execute(query).all()
    hits_of = _hits(session, run, [frame.id for frame, _ in rows] if frame_indices is not None else None)
    return [
        FrameResult(_frame(frame), _timing(result), tuple(hits_of.get(frame.id, ())), result.error)
        for frame, result in rows
    ]


def _hits(session: Session, run: int, frame_keys: Sequence[int] | None) -> dict[int, list[StoredHit]]:
    query = select(HitRow.frame_id, HitRow.rank, HitRow.score, HitRow.rotated_tile_id).where(HitRow.run_id == run)
    if frame_keys is not None:
        query = query.where(HitRow.frame_id.in_(frame_keys))
    rows = session.execute(query.order_by(HitRow.frame_id, HitRow.rank)).all()
    facts = facts_by_key(session, sorted({row.rotated_tile_id for row in rows}))
    found: dict[int, list[StoredHit]] = {}
    for row in rows:
        found.setdefault(row.frame_id, []).append(
            StoredHit(row.rank, row.score, row.rotated_tile_id, *facts[row.rotated_tile_id])
        )
    return found


def _timing(row: FrameResultRow) -> Timing | None:
    if row.decode_ms is None or row.embed_ms is None or row.search_ms is None:
        return None
    return Timing(row.decode_ms, row.embed_ms, row.search_ms)
