"""Frames and answers as columns, for pages that show thousands of frames at once.

Positions and answers are checked against their seals first: StoreError where a row is not as it was written. Every
array is in the flight's order, [frames]; numbers that are not there are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.types import Floats
from coarseloc.store import seals
from coarseloc.store.tables import (
    FlightRow,
    FrameEstimateRow,
    FrameFixRow,
    FrameResultRow,
    FrameRow,
    TileSnapshotRow,
    TrackEstimateRow,
)

Texts = NDArray[np.object_]  # of str, None where there is none
Columns = dict[str, NDArray[Any]]  # {name: float64 [frames], or Texts}

_POINT = ("lon", "lat", "cov_east_east_m2", "cov_east_north_m2", "cov_north_north_m2")
_AIRCRAFT = tuple(f"aircraft_{name}" for name in _POINT)


def frame_columns(session: Session, flight_id: str) -> Columns:
    """id, index, lon, lat, yaw_deg of every frame, and its time in seconds after the first that has one."""
    names = ("id", "index", "lon", "lat", "yaw_deg", "taken_at")
    flight = session.scalar(select(FlightRow.id).where(FlightRow.flight_id == ids.label(flight_id)))
    if flight is not None:
        seals.check(session, "flight", flight)
    query = select(*(getattr(FrameRow, name) for name in names)).where(FrameRow.flight_pk == flight)
    query = query.order_by(FrameRow.sequence)
    rows = session.connection().execute(query).all()
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    times = columns.pop("taken_at")
    first = min((time for time in times if time is not None), default=None)
    seconds = [None if time is None or first is None else (time - first).total_seconds() for time in times]
    return {name: np.array(values, np.float64) for name, values in columns.items()} | {
        "seconds": np.array(seconds, np.float64)
    }


def frame_columns_by_flight(session: Session) -> dict[str, Columns]:
    """{flight: id, index, lon, lat, yaw_deg of its frames} of all flights."""
    names = ("id", "index", "lon", "lat", "yaw_deg")
    for flight in session.scalars(select(FlightRow.id)).all():
        seals.check(session, "flight", flight)
    query = (
        select(FlightRow.flight_id, *(getattr(FrameRow, name) for name in names))
        .join(FrameRow, FrameRow.flight_pk == FlightRow.id)
        .order_by(FlightRow.flight_id, FrameRow.sequence, FrameRow.index)
    )
    columns = {}
    for flight_id, rows in groupby(session.connection().execute(query), itemgetter(0)):
        _, *by_column = zip(*rows, strict=True)
        columns[flight_id] = {name: np.array(values, np.float64) for name, values in zip(names, by_column, strict=True)}
    return columns


def best_place_columns(session: Session, localization: int, frame_keys: Floats, *, with_tiles: bool = True) -> Columns:
    """Of an answer by best places: position, score, margin; with tiles also heading, state, and the best tile's box."""
    seals.check(session, "localization", localization)
    row, tile = FrameEstimateRow, TileSnapshotRow
    names = ["lon", "lat", "score", "margin", "margin_at_least"]
    if not with_tiles:
        query = select(row.frame_id, *(getattr(row, name) for name in names))
    else:
        names += ["heading_deg", "probability", "state", "snapshot_id"]
        box = ["west", "south", "east", "north"]
        query = select(row.frame_id, *(getattr(row, name) for name in names), *(getattr(tile, name) for name in box))
        query, names = query.outerjoin(tile, tile.id == row.snapshot_id), names + box
    return _aligned(session, query.where(row.localization_id == localization), names, frame_keys, texts=("state",))


def fix_columns(session: Session, localization: int, frame_keys: Floats) -> Columns:
    """Of fixes: whether a frame matches the map (1, 0; NaN where it was not verified), and where the match is."""
    seals.check(session, "localization", localization)
    names = ("match", "reason", "score", "margin", "probability", "heading_deg", *_POINT, *_AIRCRAFT)
    query = select(FrameFixRow.frame_id, *(getattr(FrameFixRow, name) for name in names))
    return _aligned(
        session, query.where(FrameFixRow.localization_id == localization), names, frame_keys, texts=("reason",)
    )


def verify_ms(session: Session, localization: int) -> Floats:
    """float64 [verified]: the milliseconds that looking for a frame on the map took."""
    query = select(FrameFixRow.conditions["verify_ms"].as_float()).where(FrameFixRow.localization_id == localization)
    times = session.connection().execute(query.where(FrameFixRow.conditions.is_not(None))).all()
    return np.array([ms for (ms,) in times], np.float64)


def track_columns(session: Session, localization: int, frame_keys: Floats) -> Columns:
    """Of a track: its state, probability and heading, and the position where the state claims one."""
    seals.check(session, "localization", localization)
    names = ("state", "probability", "heading_deg", *_POINT, *_AIRCRAFT)
    query = select(TrackEstimateRow.frame_id, *(getattr(TrackEstimateRow, name) for name in names))
    query = query.where(TrackEstimateRow.localization_id == localization)
    return _aligned(session, query, names, frame_keys, texts=("state",))


def timing_columns(session: Session, run: int, frame_keys: Floats) -> Columns:
    """Of a run: milliseconds of each part, and why a frame could not be read."""
    names = ("embed_ms", "search_ms", "error")
    query = select(FrameResultRow.frame_id, *(getattr(FrameResultRow, name) for name in names))
    return _aligned(session, query.where(FrameResultRow.run_id == run), names, frame_keys, texts=("error",))


def _aligned(
    session: Session, query: Select[Any], names: Sequence[str], frame_keys: Floats, texts: Sequence[str]
) -> Columns:
    """Columns in the frames' order, and `is_there`: which frames have a row. The query's first column is the frame's
    key; every frame with a row is one of `frame_keys`."""
    rows = session.connection().execute(query).cursor.fetchall()  # the driver's tuples: there are tens of thousands
    columns: Columns = {"is_there": np.zeros(len(frame_keys), np.bool_)}
    by_column = list(zip(*rows, strict=True)) if rows else [()] * (len(names) + 1)
    order = np.argsort(frame_keys)
    at = order[np.searchsorted(frame_keys[order], np.array(by_column[0], np.float64))]
    columns["is_there"][at] = True
    for name, values in zip(names, by_column[1:], strict=True):
        column = np.full(len(frame_keys), None if name in texts else np.nan, object if name in texts else np.float64)
        column[at] = np.array(values, column.dtype)
        columns[name] = column
    return columns
