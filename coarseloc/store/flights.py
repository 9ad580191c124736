"""Flights and their frames.

A flight has an id for good and a label, which is its user's name for it. A frame is a file below the flight's folder:
its number, once given, stays its own whatever files come and go beside it, and its results stay when it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from sqlalchemy import delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.clock import FlightClock, TimeSource
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.types import AltitudeDatum, Flight, Frame, LonLat, Pose
from coarseloc.store import marks, seals
from coarseloc.store.tables import (
    FlightRow,
    FrameEstimateRow,
    FrameFixRow,
    FrameResultRow,
    FrameRow,
    HitRow,
    LocalizationRow,
    RunRow,
    SearchMapRow,
    TileSnapshotRow,
    TrackEstimateRow,
)

_SAME_POSE = 1e-9  # degrees and metres: less is rounding


@dataclass(frozen=True, slots=True)
class StoredFlight:
    """A flight as the database holds it: its frames in order, those that are gone from the folder included."""

    id: int
    uid: str
    flight: Flight
    frame_keys: Mapping[int, int]  # {frame index: primary key}
    missing: frozenset[int] = frozenset()  # indices of frames that are no longer in the folder
    notices: tuple[str, ...] = ()  # what saving has changed and its user should know


def save_flight(session: Session, flight: Flight) -> StoredFlight:
    """Create a flight, or bring what is known of it up to date.

    Returns the frames of the folder, each with the number that is its own. Frames that have gone keep their results.
    Raises InputError where another flight has this label: results of two would come under one name.
    """
    label = ids.label(flight.flight_id)
    row = session.scalar(select(FlightRow).where(FlightRow.flight_id == label))
    notices: list[str] = []
    if row is None:
        namesakes = session.scalars(select(FlightRow.flight_id).where(FlightRow.path == str(flight.path))).all()
        if namesakes:
            notices.append(
                f"this folder is flight {namesakes[0]} already: --flight-id {namesakes[0]} goes on with that one"
            )
        row = FlightRow(flight_id=label)
        session.add(row)
    else:
        if not seals.is_sound(session, "flight", row.id):
            notices.append(
                f"the database is damaged: {seals.damage_text(session, 'flight', row.id)}. They are read anew now; "
                "hold the frames' numbers against earlier exports"
            )
        seals.unseal(session, "flight", row.id)
        if row.path != str(flight.path):
            notices.append(_move_notice(session, row, flight))
    row.path, row.started_at, row.truth_source = str(flight.path), flight.started_at, flight.truth_source
    row.truth_sd_m = flight.truth_sd_m
    row.time_source, row.utc_offset_s = flight.clock.source, flight.clock.utc_offset_s
    row.interval_s = flight.clock.interval_s
    session.flush()
    stored_rows = _frame_rows(session, row.id)
    notices += _change_notices(stored_rows, flight)
    numbers = frame_indices(flight.frames, {frame_row.relative_path: frame_row.index for frame_row in stored_rows})
    frames = tuple(replace(frame, index=numbers[frame.relative_path]) for frame in flight.frames)
    _write_frames(session, row.id, stored_rows, frames)
    seals.seal(session, "flight", row.id)
    keys = {frame_row.index: frame_row.id for frame_row in _frame_rows(session, row.id)}
    in_folder = {frame.index for frame in frames}
    stored = replace(flight, flight_id=label, frames=frames)
    return StoredFlight(row.id, row.uid, stored, keys, frozenset(keys.keys() - in_folder), tuple(notices))


def frame_indices(frames: Sequence[Frame], stored: Mapping[str, int]) -> dict[str, int]:
    """Number frames, {relative path: index}: the stored index, else the frame's own if unused, else the next free."""
    indices = {frame.relative_path: stored[frame.relative_path] for frame in frames if frame.relative_path in stored}
    used = set(stored.values())
    for frame in frames:
        if frame.relative_path not in indices:
            index = frame.index if frame.index not in used else max(used) + 1
            indices[frame.relative_path] = index
            used.add(index)
    return indices


def flight_ids(session: Session) -> list[str]:
    return list(session.scalars(select(FlightRow.flight_id).order_by(FlightRow.flight_id)))


def frame_numbers(session: Session, flight_id: str) -> list[int]:
    """The indices of a flight's frames, in its order."""
    query = select(FrameRow.index).join(FlightRow, FlightRow.id == FrameRow.flight_pk)
    query = query.where(FlightRow.flight_id == ids.label(flight_id)).order_by(FrameRow.sequence, FrameRow.index)
    return list(session.scalars(query))


def find_flight(session: Session, flight_id: str, frame_indices: Sequence[int] | None = None) -> StoredFlight:
    """Read a flight with its frames, all or some. Raises StoreError listing the flights there are."""
    row = session.get_one(FlightRow, _flight_key(session, flight_id))
    seals.check(session, "flight", row.id, frame_indices)
    rows = _frame_rows(session, row.id, frame_indices)
    flight = Flight(
        row.flight_id,
        Path(row.path),
        tuple(map(frame_of, rows)),
        row.started_at,
        row.truth_source,
        truth_sd_m=row.truth_sd_m,
        clock=FlightClock(cast(TimeSource | None, row.time_source), row.utc_offset_s, row.interval_s),
    )
    keys = {frame_row.index: frame_row.id for frame_row in rows}
    return StoredFlight(
        row.id, row.uid, flight, keys, frozenset(frame_row.index for frame_row in rows if frame_row.missing)
    )


def _flight_key(session: Session, flight_id: str) -> int:
    key = session.scalar(select(FlightRow.id).where(FlightRow.flight_id == ids.label(flight_id)))
    if key is None:
        expected = ", ".join(flight_ids(session)) or "none yet: search one with `coarseloc search FLIGHT_DIR`"
        raise StoreError(f"flight {flight_id!r} is not known: expected one of {expected}")
    return key


def rename_flight(session: Session, flight_id: str, new_name: str) -> None:
    """Give a flight another label. Raises StoreError where it is not known, InputError where the new one is taken."""
    stored, free = find_flight(session, flight_id), ids.free_label(new_name, flight_ids(session))
    seals.unseal(session, "flight", stored.id)
    session.execute(update(FlightRow).where(FlightRow.id == stored.id).values(flight_id=free))
    seals.seal(session, "flight", stored.id)


def delete_flight(session: Session, flight_id: str) -> None:
    """Delete a flight with its frames, their tags and notes and all answers for it, and what no answer refers to any
    more. Raises StoreError where it is not known."""
    session.execute(delete(FlightRow).where(FlightRow.id == _flight_key(session, flight_id)))
    best = select(FrameEstimateRow.snapshot_id).where(FrameEstimateRow.snapshot_id.is_not(None))
    unused = TileSnapshotRow.id.not_in(select(HitRow.snapshot_id)) & TileSnapshotRow.id.not_in(best)
    session.execute(delete(TileSnapshotRow).where(unused))
    session.execute(delete(SearchMapRow).where(SearchMapRow.id.not_in(select(RunRow.search_map_id))))
    seals.drop_orphans(session)


def flight_results(session: Session, flight_id: str) -> dict[str, int]:
    """Count what is deleted with a flight, {"runs", "hits", "answers": methods' answers, tracks among them, "marked":
    frames with tags or a note}."""
    flight_pk = _flight_key(session, flight_id)
    of_flight = select(RunRow.id).where(RunRow.flight_pk == flight_pk)
    counts = {
        "runs": select(func.count()).select_from(RunRow).where(RunRow.flight_pk == flight_pk),
        "hits": select(func.count()).select_from(HitRow).where(HitRow.run_id.in_(of_flight)),
        "answers": select(func.count()).select_from(LocalizationRow).where(LocalizationRow.flight_pk == flight_pk),
    }
    return {name: session.scalar(query) or 0 for name, query in counts.items()} | {
        "marked": marks.count_marked(session, flight_pk)
    }


def frame_of(row: FrameRow) -> Frame:
    location = None if row.lon is None or row.lat is None else LonLat(row.lon, row.lat)
    datum = cast(AltitudeDatum, row.altitude_datum)
    pose = Pose(location, row.altitude_label_m, row.yaw_deg, row.pitch_deg, row.roll_deg, datum)
    return Frame(row.index, Path(row.path), row.relative_path, pose, row.taken_at, row.fingerprint)


# --- what is said of changes ----------------------------------------------------------------------


def _move_notice(session: Session, row: FlightRow, flight: Flight) -> str:
    """Say that the flight's folder has moved; raises InputError where it is another flight of the same name."""
    stored_fingerprints = {frame_row.relative_path: frame_row.fingerprint for frame_row in _frame_rows(session, row.id)}
    fingerprints = {frame.relative_path: frame.fingerprint for frame in flight.frames}
    shared = stored_fingerprints.keys() & fingerprints.keys()
    changed = [
        name
        for name in shared
        if stored_fingerprints[name] is not None and stored_fingerprints[name] != fingerprints[name]
    ]
    if Path(row.path).is_dir() or changed or 2 * len(shared) < len(stored_fingerprints):
        alternative = ids.label(f"{flight.path.parent.name}-{flight.path.name}")
        raise InputError(
            f"flight {row.flight_id!r} is known already: its {len(stored_fingerprints)} frames are in {row.path}, "
            f"and these {len(fingerprints)} are in {flight.path}. Name this one with --flight-id, such as "
            f"`--flight-id {alternative}`"
        )
    return f"flight {row.flight_id} has moved from {row.path} to {flight.path}: its earlier runs stay its own"


def _change_notices(stored_rows: Sequence[FrameRow], flight: Flight) -> list[str]:
    frames_by_path = {frame.relative_path: frame for frame in flight.frames}
    shared = [
        (frame_row, frames_by_path[frame_row.relative_path])
        for frame_row in stored_rows
        if frame_row.relative_path in frames_by_path
    ]
    notices = []
    missing = sum(frame_row.relative_path not in frames_by_path and not frame_row.missing for frame_row in stored_rows)
    if missing:
        notices.append(f"{missing} frames are no longer in {flight.path}: their results stay")
    files = sum(frame_row.fingerprint not in (None, frame.fingerprint) for frame_row, frame in shared)
    if files:
        notices.append(f"the files of {files} frames have changed: earlier runs answered for the earlier pictures")
    truths = sum(not _same_pose(frame_of(frame_row).truth, frame.truth) for frame_row, frame in shared)
    if truths:
        notices.append(
            f"the truth of {truths} frames has changed (it now comes from {flight.truth_source}): "
            "errors of earlier runs are measured against it from now on"
        )
    return notices


def _same_pose(a: Pose, b: Pose) -> bool:
    return all(
        x == y or (x is not None and y is not None and abs(x - y) <= _SAME_POSE)
        for x, y in zip(_numbers(a), _numbers(b), strict=True)
    )


def _numbers(pose: Pose) -> tuple[float | None, ...]:
    lon, lat = pose.location or (None, None)
    return lon, lat, pose.altitude_label_m, pose.yaw_deg, pose.pitch_deg, pose.roll_deg


# --- rows ---------------------------------------------------------------------------------------


def _frame_rows(session: Session, flight_pk: int, indices: Sequence[int] | None = None) -> Sequence[FrameRow]:
    query = select(FrameRow).where(FrameRow.flight_pk == flight_pk).order_by(FrameRow.sequence, FrameRow.index)
    if indices is not None:
        query = query.where(FrameRow.index.in_(indices))
    return session.scalars(query.execution_options(populate_existing=True)).all()


def _write_frames(session: Session, flight_pk: int, stored_rows: Sequence[FrameRow], frames: Sequence[Frame]) -> None:
    """Write frames in order. Frames missing from the folder stay after their predecessor, or are deleted if they have
    no results."""
    in_folder = {frame.relative_path for frame in frames}
    has_results = or_(
        exists().where(FrameResultRow.frame_id == FrameRow.id),
        exists().where(FrameFixRow.frame_id == FrameRow.id),
        exists().where(TrackEstimateRow.frame_id == FrameRow.id),
    )
    session.execute(
        delete(FrameRow).where(
            FrameRow.id.in_([frame_row.id for frame_row in stored_rows if frame_row.relative_path not in in_folder]),
            ~has_results,
        )
    )
    stored_rows = _frame_rows(session, flight_pk)
    order = [frame.relative_path for frame in frames]
    previous: str | None = None
    for frame_row in stored_rows:
        if frame_row.relative_path not in in_folder:
            order.insert(0 if previous is None else order.index(previous) + 1, frame_row.relative_path)
        previous = frame_row.relative_path
    sequence = {name: number for number, name in enumerate(order, start=1)}
    stored = {frame_row.relative_path: frame_row.id for frame_row in stored_rows}
    frame_values = [_values(flight_pk, frame, sequence[frame.relative_path]) for frame in frames]
    inserted = [row for row in frame_values if row["relative_path"] not in stored]
    updated = [{"id": stored[row["relative_path"]], **row} for row in frame_values if row["relative_path"] in stored]
    missing = [
        {"id": frame_row.id, "missing": True, "sequence": sequence[frame_row.relative_path]}
        for frame_row in stored_rows
        if frame_row.relative_path not in in_folder
    ]
    if inserted:
        session.bulk_insert_mappings(FrameRow, inserted)
    for rows in (updated, missing):
        if rows:
            session.execute(update(FrameRow), rows)


def _values(flight_pk: int, frame: Frame, sequence: int) -> dict[str, Any]:
    location = frame.truth.location
    return {
        "flight_pk": flight_pk,
        "index": frame.index,
        "relative_path": frame.relative_path,
        "sequence": sequence,
        "fingerprint": frame.fingerprint,
        "missing": False,
        "taken_at": frame.time,
        "path": str(frame.path),
        "lon": location and location.lon,
        "lat": location and location.lat,
        "altitude_label_m": frame.truth.altitude_label_m,
        "altitude_datum": frame.truth.altitude_datum,
        "yaw_deg": frame.truth.yaw_deg,
        "pitch_deg": frame.truth.pitch_deg,
        "roll_deg": frame.truth.roll_deg,
    }
