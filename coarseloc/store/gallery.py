"""Reading for people who look: the few columns a page shows, of a whole run at once.

`runs.results` gives everything of a frame; a page over 500 frames and six runs wants a thin table instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import case, false, func, or_, select
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import BBox
from coarseloc.store import filters
from coarseloc.store.tables import (
    CounterRow,
    EmbeddingRow,
    FlightRow,
    FrameRow,
    RotatedTileRow,
    TileRow,
)


class FlightCard(NamedTuple):
    """A flight as a list shows it."""

    flight_id: str
    path: str
    truth_source: str
    frames: int


class TilePicture(NamedTuple):
    """Where a rotated tile's picture is."""

    content_digest: str  # names the thumbnail
    path: str | None  # the capture's file, None for a cut tile


class GroundTile(NamedTuple):
    """A tile at one heading, with where its picture is."""

    bbox: BBox
    rotated_tile: int
    content_digest: str
    path: str | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """A reference set in numbers: what there is at which angle, and what was embedded of it."""

    tiles: int
    views: dict[int, int]  # {angle: rotated tiles}
    embedded: dict[int, dict[int, int]]  # {spec: {angle: embeddings}}


def flight_cards(session: Session, limit: int, offset: int = 0) -> list[FlightCard]:
    """List flights with their number of frames, newest id first."""
    frames = func.count(FrameRow.id)
    query = (
        select(FlightRow.flight_id, FlightRow.path, FlightRow.truth_source, frames)
        .outerjoin(FrameRow, FrameRow.flight_pk == FlightRow.id)
        .group_by(FlightRow.id)
        .order_by(FlightRow.flight_id.desc())
    )
    return [FlightCard(*row) for row in session.execute(query.limit(limit).offset(offset))]


def count_flights(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(FlightRow)) or 0


def frame_path(session: Session, flight_id: str, index: int) -> str | None:
    """Read the path of a frame's file, None where there is no such frame."""
    query = select(FrameRow.path).join(FlightRow, FlightRow.id == FrameRow.flight_pk)
    return session.scalar(query.where(FlightRow.flight_id == ids.label(flight_id), FrameRow.index == index))


def frame_files(session: Session, indices_by_flight: Mapping[str, Collection[int]]) -> dict[tuple[str, int], str]:
    """Read {(flight, frame's index): path of its file} of some frames."""
    conditions = [
        (FlightRow.flight_id == flight_id) & FrameRow.index.in_(indices)
        for flight_id, indices in indices_by_flight.items()
    ]
    query = select(FlightRow.flight_id, FrameRow.index, FrameRow.path).join(
        FrameRow, FrameRow.flight_pk == FlightRow.id
    )
    return {(flight, index): path for flight, index, path in session.execute(query.where(or_(false(), *conditions)))}


def picture(session: Session, rotated_tile: int) -> TilePicture | None:
    """Read where a rotated tile's picture is, by its primary key; None where there is no such tile."""
    query = select(RotatedTileRow.content_digest, RotatedTileRow.path).where(RotatedTileRow.id == rotated_tile)
    row = session.execute(query).one_or_none()
    return TilePicture(*row) if row else None


def tiles_at_heading(session: Session, reference_set_id: int, angle_deg: int) -> list[GroundTile]:
    """List a set's tiles at one heading, in index order."""
    query = (
        select(
            TileRow.west,
            TileRow.south,
            TileRow.east,
            TileRow.north,
            RotatedTileRow.id,
            RotatedTileRow.content_digest,
            RotatedTileRow.path,
        )
        .join(RotatedTileRow, RotatedTileRow.tile_id == TileRow.id)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.angle_deg == angle_deg)
        .order_by(TileRow.index)
    )
    return [GroundTile(BBox(*row[:4]), *row[4:]) for row in session.execute(query)]


def views_by_set_and_angle(session: Session, where: Where = ALL_TILES) -> dict[tuple[int, int], int]:
    """Count the rotated tiles that match, {(reference set, angle): number}."""
    query = select(TileRow.reference_set_id, RotatedTileRow.angle_deg, func.count()).join(
        TileRow, TileRow.id == RotatedTileRow.tile_id
    )
    query = query.where(*filters.conditions(where))
    grouped = query.group_by(TileRow.reference_set_id, RotatedTileRow.angle_deg)
    return {(of_set, angle): count for of_set, angle, count in session.execute(grouped)}


def extent(session: Session, reference_set_id: int) -> BBox | None:
    """Compute the bounds of a set's tiles, across the antimeridian where they lie so; None without tiles."""
    turned_west, turned_east = (case((lon < 0, lon + 360.0), else_=lon) for lon in (TileRow.west, TileRow.east))
    query = select(
        *(func.min(TileRow.west), func.min(TileRow.south), func.max(TileRow.east), func.max(TileRow.north)),
        *(func.min(turned_west), func.max(turned_east)),
    )
    bounds = session.execute(query.where(TileRow.reference_set_id == reference_set_id)).one()
    if bounds[0] is None:
        return None
    west, south, east, north, first, last = bounds
    across = east - west > 180.0 and last - first < east - west
    return BBox(first, south, last - 360.0, north) if across else BBox(west, south, east, north)


def coverage(session: Session, reference_set_id: int) -> Coverage:
    """Count a set's tiles, views and embeddings from the database's indexes alone: rows with vectors are too wide
    to read for this. Embeddings that are marked for deletion count until they are deleted."""
    of_set = TileRow.reference_set_id == reference_set_id
    angle = RotatedTileRow.angle_deg
    views = select(angle, func.count()).join(TileRow).where(of_set).group_by(angle).order_by(angle)
    embedded = (
        select(EmbeddingRow.spec_id, angle, func.count())
        .select_from(TileRow)
        .join(RotatedTileRow, RotatedTileRow.tile_id == TileRow.id)
        .join(EmbeddingRow, EmbeddingRow.rotated_tile_id == RotatedTileRow.id)
        .where(of_set)
        .group_by(EmbeddingRow.spec_id, angle)
        .order_by(EmbeddingRow.spec_id, angle)
    )
    counts: dict[int, dict[int, int]] = {}
    for spec, at, count in session.execute(embedded):
        counts.setdefault(spec, {})[at] = count
    return Coverage(
        tiles=session.scalar(select(func.count()).select_from(TileRow).where(of_set)) or 0,
        views={at: count for at, count in session.execute(views)},
        embedded=counts,
    )


def generation(session: Session) -> int:
    """Read the number of the latest write to embeddings: what was read at the same number is still valid."""
    return session.scalar(select(CounterRow.value).where(CounterRow.name == "generation")) or 0


def tracks(session: Session, flight_ids: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Read {flight: track [(lon, lat)]} of frames whose position is known."""
    query = (
        select(FlightRow.flight_id, FrameRow.lon, FrameRow.lat)
        .join(FrameRow, FrameRow.flight_pk == FlightRow.id)
        .where(FlightRow.flight_id.in_(flight_ids), FrameRow.lon.is_not(None), FrameRow.lat.is_not(None))
        .order_by(FlightRow.flight_id, FrameRow.sequence)
    )
    tracks_by_flight: dict[str, list[tuple[float, float]]] = {}
    for flight, lon, lat in session.execute(query):
        tracks_by_flight.setdefault(flight, []).append((lon, lat))  # type: ignore[arg-type]  # not null, by the query
    return tracks_by_flight
