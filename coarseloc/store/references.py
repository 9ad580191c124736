"""Reference sets, their tiles and rotated tiles, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.filters import Where
from coarseloc.core.types import BBox, Failure, LonLat, ReferenceSet, Tile, View, batches
from coarseloc.store import seals
from coarseloc.store.embeddings import mark_tiles_pending, mark_views_deleted
from coarseloc.store.tables import EmbeddingRow, FailureRow, ReferenceSetRow, RotatedTileRow, TileRow, new_uid, upsert

REMOVED = "removed"  # stamp of a rotated tile that its source no longer gives, until its points are deleted
_SAME_PLACE_DEG = 1e-7  # about a centimetre: less is rounding, more is another place


@dataclass(frozen=True, slots=True)
class StoredReferenceSet:
    """A reference set as the database holds it."""

    id: int
    uid: str
    point_key: str  # what its point ids are made with
    reference_set: ReferenceSet
    created_at: datetime

    @property
    def name(self) -> str:
        return self.reference_set.name


class StoredRotatedTile(NamedTuple):
    """What is known of a rotated tile before its picture is read again."""

    id: int
    source_fingerprint: str
    content_digest: str


@dataclass(frozen=True, slots=True)
class StoredCapture:
    """A capture's file with the tile that it shows, at one heading."""

    path: str
    tile: Tile
    angle_deg: int


def save_reference_set(session: Session, reference_set: ReferenceSet, tiles: Sequence[Tile] = ()) -> StoredReferenceSet:
    """Create the set, or widen the one of that name by new angles.

    Raises InputError where the set exists with another altitude, overlap or footprint, or of another source: tiles of
    two under one name would make every count and every recall wrong. A source that has moved, its old place empty and
    its `tiles` where they were, is the same one.
    """
    name = ids.label(reference_set.name)
    row = session.scalar(select(ReferenceSetRow).where(ReferenceSetRow.name == name))
    if row is None:
        renamed = session.scalar(select(ReferenceSetRow.id).where(ReferenceSetRow.point_key == name))
        key = name if renamed is None else new_uid()
        row = ReferenceSetRow(name=name, point_key=key, kind=reference_set.kind, altitude_m=reference_set.altitude_m)
        row.overlap, row.footprint_m = reference_set.overlap, reference_set.footprint_m
        row.angles, row.source, row.map_sd_m = [], reference_set.source, None
        session.add(row)
    for field in ("kind", "altitude_m", "overlap", "footprint_m"):
        before, now = getattr(row, field), getattr(reference_set, field)
        equal = before == now or (
            isinstance(before, float) and isinstance(now, float) and abs(before - now) <= 1e-3 * abs(before)
        )
        if not equal:
            raise InputError(
                f"reference set {name!r} was built with {field} {before}, and this ingest has {now}. "
                f"Give the new build another name (`--reference-set NAME`), or `coarseloc references delete {name}` "
                "first."
            )
    if row.source != reference_set.source and not _has_moved(session, row, tiles):
        raise InputError(
            f"reference set {name!r} is known already: it was built from {row.source}, and this source is "
            f"{reference_set.source}. Name the new one with --reference-set, such as "
            f"`--reference-set {_alternative_name(reference_set)}`, or `coarseloc references delete {name}` first."
        )
    row.source = reference_set.source
    row.parameters = dict(reference_set.parameters)
    if reference_set.map_sd_m is not None:
        row.map_sd_m = reference_set.map_sd_m
    row.angles = sorted({*row.angles, *reference_set.angles})
    if row.id is not None and session.is_modified(row):
        seals.unseal(session, "set", row.id)
    session.flush()
    return reference_set_of(row)


def _has_moved(session: Session, row: ReferenceSetRow, tiles: Sequence[Tile]) -> bool:
    """Test whether the source file has moved: nothing is left at its old path, and every tile has its old position."""
    if Path(row.source).exists():
        return False
    stored_tiles = {tile.index: tile for _, tile in _tile_rows(session, row.id)}
    source_tiles = {tile.index: tile for tile in tiles}
    shared = stored_tiles.keys() & source_tiles.keys()
    return bool(shared) and not any(_differs(stored_tiles[index], source_tiles[index]) for index in shared)


def _alternative_name(reference_set: ReferenceSet) -> str:
    return ids.label(f"{reference_set.name}-{Path(reference_set.source).parent.name or 'new'}").replace(" ", "-")


def reference_set_of(row: ReferenceSetRow) -> StoredReferenceSet:
    facts = ReferenceSet(
        name=row.name,
        kind=row.kind,
        source=row.source,
        altitude_m=row.altitude_m,
        overlap=row.overlap,
        footprint_m=row.footprint_m,
        angles=tuple(row.angles),
        parameters=row.parameters,
        map_sd_m=row.map_sd_m,
    )
    return StoredReferenceSet(row.id, row.uid, row.point_key, facts, row.created_at)


def reference_sets(session: Session) -> list[StoredReferenceSet]:
    return [reference_set_of(row) for row in session.scalars(select(ReferenceSetRow).order_by(ReferenceSetRow.name))]


def fitting_sets(sets: Sequence[StoredReferenceSet], where: Where) -> list[StoredReferenceSet]:
    """The sets that may answer as a whole; headings and places are asked of their tiles."""
    return list(compress(sets, where.admits([stored.reference_set for stored in sets])))


def find_reference_set(session: Session, name: str | None) -> StoredReferenceSet:
    """Read the set of that name, or the only one there is. Raises StoreError listing the sets."""
    stored_sets = reference_sets(session)
    names = ", ".join(stored_set.name for stored_set in stored_sets)
    if not stored_sets:
        raise StoreError("there is no reference set yet: make one with `coarseloc ingest captures` or `orthophoto`")
    if name is None:
        if len(stored_sets) > 1:
            raise StoreError(f"there are {len(stored_sets)} reference sets ({names}): say which with --reference-set")
        return stored_sets[0]
    for stored_set in stored_sets:
        if stored_set.name == ids.label(name):
            return stored_set
    raise StoreError(f"reference set {name!r} is not known: expected one of {names}")


def rename_reference_set(session: Session, name: str, new_name: str) -> None:
    """Give a set another name; its points become pending, since the vector store holds the name. Runs made against it
    keep the old one. Raises StoreError where it is not known, InputError where the new one is taken."""
    stored = find_reference_set(session, name)
    taken = [other.name for other in reference_sets(session)]
    free = ids.free_label(new_name, taken)
    seals.check(session, "set", stored.id)
    seals.unseal(session, "set", stored.id)
    session.execute(update(ReferenceSetRow).where(ReferenceSetRow.id == stored.id).values(name=free))
    seals.seal(session, "set", stored.id)
    tiles = session.scalars(select(TileRow.id).where(TileRow.reference_set_id == stored.id)).all()
    mark_tiles_pending(session, tiles)


def delete_reference_set(session: Session, reference_set_id: int) -> None:
    """Drop the set with its tiles, embeddings and failures; runs made against it stay, with what they found. The
    vector store must have lost its points before: nothing remembers them afterwards."""
    seals.unseal(session, "set", reference_set_id)
    session.execute(delete(ReferenceSetRow).where(ReferenceSetRow.id == reference_set_id))


def save_tiles(session: Session, reference_set_id: int, tiles: Iterable[Tile]) -> dict[int, int]:
    """Create or move tiles; returns {tile index: primary key}. A moved tile's points become pending again."""
    stored_tiles = {tile.index: (pk, tile) for pk, tile in _tile_rows(session, reference_set_id)}
    new, moved = [], []
    for tile in tiles:
        old = stored_tiles.get(tile.index)
        if old is None or _differs(old[1], tile):
            new.append(_tile_values(reference_set_id, tile))
            if old:
                moved.append(old[0])
    if new:
        seals.unseal(session, "set", reference_set_id)
    upsert(session, TileRow, new, ["reference_set_id", "index"])
    mark_tiles_pending(session, moved)
    keys = select(TileRow.index, TileRow.id).where(TileRow.reference_set_id == reference_set_id)
    return {index: pk for index, pk in session.execute(keys)}


def _tile_rows(session: Session, reference_set_id: int) -> Iterable[tuple[int, Tile]]:
    columns = (TileRow.id, TileRow.index, TileRow.lon, TileRow.lat)
    bounds = (TileRow.west, TileRow.south, TileRow.east, TileRow.north)
    query = select(*columns, *bounds).where(TileRow.reference_set_id == reference_set_id).order_by(TileRow.index)
    for pk, index, lon, lat, west, south, east, north in session.execute(query):
        yield pk, Tile(index, LonLat(lon, lat), BBox(west, south, east, north))


def _differs(a: Tile, b: Tile) -> bool:
    return any(abs(x - y) > _SAME_PLACE_DEG for x, y in zip((*a.center, *a.bbox), (*b.center, *b.bbox), strict=True))


def _tile_values(reference_set_id: int, tile: Tile) -> dict[str, object]:
    return {
        "reference_set_id": reference_set_id,
        "index": tile.index,
        "place_id": ids.place_id(*tile.center),
        **tile.center._asdict(),
        **tile.bbox._asdict(),
    }


def tiles(session: Session, reference_set_id: int) -> list[Tile]:
    """List the set's unturned tiles in index order."""
    return [tile for _, tile in _tile_rows(session, reference_set_id)]


def rotated_tiles(session: Session, reference_set_id: int) -> dict[tuple[int, int], StoredRotatedTile]:
    """Read {(tile index, angle): stored rotated tile}."""
    stored = (RotatedTileRow.id, RotatedTileRow.stamp, RotatedTileRow.content_digest)
    query = (
        select(TileRow.index, RotatedTileRow.angle_deg, *stored)
        .join_from(RotatedTileRow, TileRow)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.stamp != REMOVED)
    )
    # Of the connection, not of the session: there may be 100,000.
    rows = session.connection().execute(query)
    return {(index, angle): StoredRotatedTile(key, stamp, content) for index, angle, key, stamp, content in rows}


def captures(session: Session, reference_set_id: int) -> list[StoredCapture]:
    """List a set's captures at the heading that most of its tiles have, in index order."""
    query = (
        select(RotatedTileRow.tile_id, RotatedTileRow.angle_deg, RotatedTileRow.path)
        .join(TileRow)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.path.is_not(None))
        .where(RotatedTileRow.stamp != REMOVED)
        .order_by(TileRow.index)
    )
    rows = session.execute(query).all()
    tiles_by_key = dict(_tile_rows(session, reference_set_id)) if rows else {}  # an orthophoto's set has none
    stored = [StoredCapture(path, tiles_by_key[key], angle) for key, angle, path in rows if path is not None]
    counts = Counter(capture.angle_deg for capture in stored)
    heading = min(counts, key=lambda angle: (-counts[angle], angle), default=None)
    return [capture for capture in stored if capture.angle_deg == heading]


def save_views(
    session: Session,
    point_key: str,
    tile_keys: Mapping[int, int],
    views: Sequence[tuple[Tile, View, str]],
) -> dict[tuple[int, int], int]:
    """Record (tile, view, source fingerprint) rows; returns {(tile index, angle): primary key}.

    point_key: of the reference set.
    """
    if views:
        seals.unseal(session, "set", _owner_of(session, next(iter(tile_keys.values()))))
    points = {
        (tile.index, view.angle_deg): str(ids.point_id(point_key, tile.index, view.angle_deg))
        for tile, view, _ in views
    }
    upsert(
        session,
        RotatedTileRow,
        [
            {
                "tile_id": tile_keys[tile.index],
                "angle_deg": view.angle_deg,
                "point_id": points[tile.index, view.angle_deg],
                "stamp": fingerprint,
                "content_digest": view.content_digest,
                "ground_fraction": view.ground_fraction,
                "path": str(view.path) if view.path else None,
            }
            for tile, view, fingerprint in views
        ],
        ["tile_id", "angle_deg"],
    )
    query = select(RotatedTileRow.point_id, RotatedTileRow.id).where(RotatedTileRow.point_id.in_(points.values()))
    primary = {point: pk for point, pk in session.execute(query)}
    return {key: primary[point] for key, point in points.items()}


def _owner_of(session: Session, tile_key: int) -> int:
    return session.scalars(select(TileRow.reference_set_id).where(TileRow.id == tile_key)).one()


def remove_views(session: Session, reference_set_id: int, rotated_tiles: Iterable[int]) -> None:
    """Mark rotated tiles and their embeddings for deletion, which a drain completes (`drop_removed`); finished runs
    keep what they found. The set loses the angles of which no view is left."""
    before = count_views(session, reference_set_id)
    for batch in batches(rotated_tiles, 500):
        session.execute(update(RotatedTileRow).where(RotatedTileRow.id.in_(batch)).values(stamp=REMOVED))
        mark_views_deleted(session, reference_set_id, batch)
    lost = before.keys() - count_views(session, reference_set_id).keys()
    if lost:
        seals.unseal(session, "set", reference_set_id)
        row = session.get_one(ReferenceSetRow, reference_set_id)
        row.angles = [angle for angle in row.angles if angle not in lost]


def drop_removed(session: Session) -> None:
    """Drop removed rotated tiles whose points the vector store no longer has, and tiles that are left without any."""
    is_embedded = select(EmbeddingRow.id).where(EmbeddingRow.rotated_tile_id == RotatedTileRow.id).exists()
    query = select(RotatedTileRow.id, RotatedTileRow.tile_id).where(RotatedTileRow.stamp == REMOVED, ~is_embedded)
    removed = session.execute(query).all()
    owners = set()
    for batch in batches(removed, 500):
        owners |= set(
            session.scalars(select(TileRow.reference_set_id).where(TileRow.id.in_({r.tile_id for r in batch})))
        )
    for owner in owners:
        seals.check(session, "set", owner)
        seals.unseal(session, "set", owner)
    for batch in batches(removed, 500):
        session.execute(delete(RotatedTileRow).where(RotatedTileRow.id.in_(row.id for row in batch)))
        is_viewed = select(RotatedTileRow.id).where(RotatedTileRow.tile_id == TileRow.id).exists()
        session.execute(delete(TileRow).where(TileRow.id.in_({row.tile_id for row in batch}), ~is_viewed))
    for owner in owners:
        seals.seal(session, "set", owner)


def restore_views(session: Session, reference_set_id: int, views: Collection[tuple[int, int]]) -> None:
    """Take back that rotated tiles, given as (tile index, angle), were removed: their source gives them again."""
    query = (
        select(TileRow.index.label("tile_index"), RotatedTileRow.angle_deg, RotatedTileRow.id)
        .join(TileRow)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.stamp == REMOVED)
    )
    returned = [row.id for row in session.execute(query) if (row.tile_index, row.angle_deg) in views]
    for batch in batches(returned, 500):
        session.execute(update(RotatedTileRow).where(RotatedTileRow.id.in_(batch)).values(stamp=""))


def count_views(session: Session, reference_set_id: int) -> dict[int, int]:
    """Count rotated tiles, {angle: number}."""
    query = (
        select(RotatedTileRow.angle_deg, func.count())
        .join(TileRow)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.stamp != REMOVED)
        .group_by(RotatedTileRow.angle_deg)
        .order_by(RotatedTileRow.angle_deg)
    )
    return {angle: count for angle, count in session.execute(query)}


def count_embedded(session: Session, reference_set_id: int, spec_id: int) -> int:
    """Count rotated tiles whose content, as it was when their file was last looked at, is embedded under a spec."""
    is_embedded = (EmbeddingRow.rotated_tile_id == RotatedTileRow.id) & (EmbeddingRow.spec_id == spec_id)
    query = (
        select(func.count())
        .select_from(RotatedTileRow)
        .join(TileRow)
        .join(EmbeddingRow, is_embedded)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.stamp.not_in((REMOVED, "")))
        .where(EmbeddingRow.deleted.is_(False), EmbeddingRow.content_digest == RotatedTileRow.content_digest)
    )
    return session.scalars(query).one()


# --- failures -----------------------------------------------------------------------------------


def save_failures(session: Session, reference_set_id: int, failures: Iterable[Failure]) -> None:
    rows = {(f.item, f.stage): f for f in failures}.values()
    upsert(
        session,
        FailureRow,
        [
            {
                "reference_set_id": reference_set_id,
                "item": f.item,
                "stage": f.stage,
                "kind": f.kind,
                "message": f.message,
            }
            for f in rows
        ],
        ["reference_set_id", "item", "stage"],
    )


def clear_failures(session: Session, reference_set_id: int) -> None:
    """Delete a set's failures: an ingest records those that remain."""
    session.execute(delete(FailureRow).where(FailureRow.reference_set_id == reference_set_id))


def failures(session: Session, reference_set: str | None = None) -> list[tuple[str, Failure]]:
    """List (reference set's name, failure) in order of recording."""
    query = select(ReferenceSetRow.name, FailureRow).join(ReferenceSetRow).order_by(FailureRow.id)
    if reference_set is not None:
        query = query.where(ReferenceSetRow.name == ids.label(reference_set))
    return [(name, Failure(row.item, row.stage, row.kind, row.message)) for name, row in session.execute(query)]
