"""Answers as columns: what a table over all flights needs of each frame, without an object for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coarseloc.core.types import Floats
from coarseloc.store.localizations import FIX, TRACK, TRACK_SMOOTHED
from coarseloc.store.tables import (
    FlightRow,
    FrameEstimateRow,
    FrameFixRow,
    FrameRow,
    LocalizationRow,
    LocalizationRunRow,
    TileSnapshotRow,
    TrackEstimateRow,
)

Strings = NDArray[np.object_]
Keys = NDArray[np.int64]

_FIX_STATES = {True: "match", False: "no-match", None: "unverified"}


@dataclass(frozen=True, slots=True)
class FrameColumns:
    """A flight's F frames in its order; NaN where the truth is not known."""

    key: Keys  # [F]
    index: Keys  # [F]
    lon: Floats  # [F]
    lat: Floats  # [F]
    yaw_deg: Floats  # [F]

    @property
    def digest(self) -> int:
        """Equal for the same frames with the same truth, within one process."""
        return hash(tuple(column.tobytes() for column in (self.key, self.lon, self.lat, self.yaw_deg)))


@dataclass(frozen=True, slots=True)
class LocalizationColumns:
    """One answer's N frames; NaN where there is no number. The position is a fix's or a track's aircraft where that is
    known, else the ground."""

    frame: Keys  # [N], a frame's key
    state: Strings  # [N], of an estimate and a track as stored; of a fix match, no-match or unverified
    lon: Floats  # [N]
    lat: Floats  # [N]
    heading_deg: Floats  # [N]
    score: Floats  # [N]
    margin: Floats  # [N]
    probability: Floats  # [N]
    bbox: Floats  # [N, 4], footprint of the best tile: west, south, east, north
    snapshot: Keys  # [N], key of the best tile; 0 where there is none


@dataclass(frozen=True, slots=True)
class NewestLocalization:
    """A run's newest answer by a method."""

    run: int
    method: str
    localization: int
    finished_at: datetime | None


def frame_columns(session: Session) -> dict[str, FrameColumns]:
    """Read {flight: its frames} of all flights."""
    query = (
        select(FlightRow.flight_id, FrameRow.id, FrameRow.index, FrameRow.lon, FrameRow.lat, FrameRow.yaw_deg)
        .join(FrameRow, FrameRow.flight_pk == FlightRow.id)
        .order_by(FlightRow.flight_id, FrameRow.sequence, FrameRow.index)
    )
    rows_by_flight: dict[str, list[Sequence[Any]]] = {}
    for flight_id, *cells in session.connection().execute(query):
        rows_by_flight.setdefault(flight_id, []).append(cells)
    columns: dict[str, FrameColumns] = {}
    for flight_id, rows in rows_by_flight.items():
        key, index, lon, lat, yaw_deg = zip(*rows, strict=True)
        columns[flight_id] = FrameColumns(_keys(key), _keys(index), _floats(lon), _floats(lat), _floats(yaw_deg))
    return columns


def newest_localizations(session: Session) -> list[NewestLocalization]:
    """List each run's newest answer by each method."""
    newest = (
        select(LocalizationRunRow.run_id, func.max(LocalizationRow.id).label("id"))
        .join(LocalizationRow, LocalizationRow.id == LocalizationRunRow.localization_id)
        .group_by(LocalizationRunRow.run_id, LocalizationRow.method)
        .subquery()
    )
    query = select(newest.c.run_id, LocalizationRow.method, LocalizationRow.id, LocalizationRow.finished_at)
    rows = session.execute(query.join(LocalizationRow, LocalizationRow.id == newest.c.id).order_by(newest.c.run_id))
    return [NewestLocalization(*row) for row in rows]


def localization_columns(session: Session, localization: int, method: str) -> LocalizationColumns:
    """Read an answer by its key."""
    if method == FIX:
        return _fix_columns(session, localization)
    if method in (TRACK, TRACK_SMOOTHED):
        return _track_columns(session, localization)
    query = (
        select(
            *(FrameEstimateRow.frame_id, FrameEstimateRow.state, FrameEstimateRow.lon, FrameEstimateRow.lat),
            *(FrameEstimateRow.heading_deg, FrameEstimateRow.score, FrameEstimateRow.margin),
            *(FrameEstimateRow.probability, FrameEstimateRow.snapshot_id),
            *(TileSnapshotRow.west, TileSnapshotRow.south, TileSnapshotRow.east, TileSnapshotRow.north),
        )
        .outerjoin(TileSnapshotRow, TileSnapshotRow.id == FrameEstimateRow.snapshot_id)
        .where(FrameEstimateRow.localization_id == localization)
    )
    frame, state, *numbers, snapshot, west, south, east, north = _columns(session, query, 13)
    bbox = np.stack([_floats(edge) for edge in (west, south, east, north)], axis=-1)
    return _answer(frame, state, numbers, bbox, _keys(key or 0 for key in snapshot))


def _fix_columns(session: Session, localization: int) -> LocalizationColumns:
    lon, lat = (
        func.coalesce(FrameFixRow.aircraft_lon, FrameFixRow.lon),
        func.coalesce(FrameFixRow.aircraft_lat, FrameFixRow.lat),
    )
    numbers = (FrameFixRow.heading_deg, FrameFixRow.score, FrameFixRow.margin, FrameFixRow.probability)
    query = select(FrameFixRow.frame_id, FrameFixRow.match, lon, lat, *numbers)
    frame, match, *columns = _columns(session, query.where(FrameFixRow.localization_id == localization), 8)
    return _answer(frame, [_FIX_STATES[value] for value in match], columns)


def _track_columns(session: Session, localization: int) -> LocalizationColumns:
    lon, lat = (
        func.coalesce(TrackEstimateRow.aircraft_lon, TrackEstimateRow.lon),
        func.coalesce(TrackEstimateRow.aircraft_lat, TrackEstimateRow.lat),
    )
    query = select(
        *(TrackEstimateRow.frame_id, TrackEstimateRow.state, lon, lat),
        *(TrackEstimateRow.heading_deg, TrackEstimateRow.probability),
    )
    condition = TrackEstimateRow.localization_id == localization
    frame, state, lons, lats, heading_deg, probability = _columns(session, query.where(condition), 6)
    unknown = [None] * len(frame)
    return _answer(frame, state, [lons, lats, heading_deg, unknown, unknown, probability])


def _answer(
    frame: Sequence[int],
    state: Sequence[str],
    numbers: Sequence[Sequence[Any]],
    bbox: Floats | None = None,
    snapshot: Keys | None = None,
) -> LocalizationColumns:
    """numbers: lon, lat, heading, score, margin, probability."""
    lon, lat, heading_deg, score, margin, probability = map(_floats, numbers)
    return LocalizationColumns(
        frame=_keys(frame),
        state=np.array(state, np.object_),
        lon=lon,
        lat=lat,
        heading_deg=heading_deg,
        score=score,
        margin=margin,
        probability=probability,
        bbox=np.full((len(frame), 4), np.nan) if bbox is None else bbox,
        snapshot=np.zeros(len(frame), np.int64) if snapshot is None else snapshot,
    )


def _columns(session: Session, query: Any, width: int) -> list[Sequence[Any]]:
    rows = session.connection().execute(query).all()  # without the ORM's loading, which takes as long again
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _keys(values: Any) -> Keys:
    return np.fromiter(values, np.int64)


def _floats(values: Sequence[Any]) -> Floats:
    return np.array(values, np.float64)  # None becomes NaN
