"""Rotated tiles and searched places as they were when a search answered: never changed, never deleted.

Results point here and not at the live tiles, so that they stay what they were when tiles are moved, taken in again or
deleted. Equal snapshots are one row, found by their digest.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.types import RankedTile, TileFacts, batches
from coarseloc.store.embeddings import tile_facts
from coarseloc.store.tables import MAP_PLACE, SearchMapRow, TileSnapshotRow, upsert


@dataclass(frozen=True, slots=True)
class TileSnapshot:
    """A rotated tile as it was."""

    id: int
    tile: TileFacts
    path: str | None  # the capture's file; None for a cut tile
    content_digest: str  # names the thumbnail


def save_snapshots(session: Session, tiles: Iterable[RankedTile], set_uids: Mapping[str, str]) -> dict[str, int]:
    """Write tiles as a search saw them; return {point id: snapshot}. set_uids: {reference set's name: uid}."""
    rows = {}
    for ranked in tiles:
        facts = _facts(ranked, set_uids)
        rows[ids.digest(facts)] = facts
    upsert(session, TileSnapshotRow, [{"digest": digest, **facts} for digest, facts in rows.items()], ["digest"])
    keys: dict[str, int] = {}
    for batch in batches(rows, 5000):
        query = select(TileSnapshotRow.point_id, TileSnapshotRow.id).where(TileSnapshotRow.digest.in_(batch))
        keys.update((point, pk) for point, pk in session.execute(query))
    return keys


def _facts(ranked: RankedTile, set_uids: Mapping[str, str]) -> dict[str, Any]:
    tile = ranked.tile
    return {
        "reference_set_uid": set_uids[tile.reference_set],
        "reference_set": tile.reference_set,
        "tile_index": int(tile.tile_id.rpartition("/")[2]),
        "point_id": tile.point_id,
        "place_id": tile.place_id,
        "angle_deg": tile.angle_deg,
        "altitude_m": tile.altitude_m,
        "overlap": tile.overlap,
        **tile.center._asdict(),
        **tile.bbox._asdict(),
        "path": ranked.path,
        "content_digest": ranked.content_digest,
    }


def snapshots(session: Session, keys: Iterable[int]) -> dict[int, TileSnapshot]:
    """Read {key: snapshot of a tile}."""
    snapshots_by_key: dict[int, TileSnapshot] = {}
    for batch in batches(sorted(set(keys)), 5000):
        query = select(TileSnapshotRow).where(TileSnapshotRow.id.in_(batch))
        snapshots_by_key.update((row.id, _snapshot(row)) for row in session.scalars(query))
    return snapshots_by_key


def _snapshot(row: TileSnapshotRow) -> TileSnapshot:
    return TileSnapshot(row.id, tile_facts(row), row.path, row.content_digest)


# --- the places that a run searched -----------------------------------------------------------------


def save_search_map(session: Session, places: NDArray[np.float64]) -> int:
    """Write a map of places; return its key. places: float64 [P, 6], lon, lat, west, south, east, north in degrees."""
    packed = np.ascontiguousarray(places, MAP_PLACE).tobytes()
    row: Mapping[str, Any] = {
        "digest": hashlib.sha256(packed).hexdigest(),
        "places": len(places),
        "data": zlib.compress(packed),
    }
    upsert(session, SearchMapRow, [dict(row)], ["digest"])
    return session.scalars(select(SearchMapRow.id).where(SearchMapRow.digest == row["digest"])).one()


def search_map(session: Session, key: int) -> NDArray[np.float64]:
    """Read a map, float64 [P, 6], as `save_search_map` takes it."""
    row = session.get_one(SearchMapRow, key)
    return np.frombuffer(zlib.decompress(row.data), MAP_PLACE).reshape(row.places, 6)
