"""All vectors of one reference set under one spec, as a mirror wants them: in order, and a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from coarseloc.core import filters, ids
from coarseloc.core.errors import StoreError
from coarseloc.core.filters import TileColumns
from coarseloc.core.types import Float32, ReferenceSet, Tile, TileFacts, batches
from coarseloc.store import embeddings, references, tallies
from coarseloc.store.tables import VECTOR, EmbeddingRow, ReferenceSetRow, RotatedTileRow, SpecRow, TileRow

PART = 4096  # vectors read at a time
_KEY = np.dtype([("tile", np.int64), ("angle_deg", np.int32), ("rotated_tile", np.int64), ("point_id", "S36")])


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """All live vectors of one reference set under one spec, by tile, then angle; of one state of the database."""

    version: str  # of that state, see `tallies.Tally`
    dim: int
    rotated_tile_ids: NDArray[np.int64]  # [N]
    point_ids: NDArray[np.uint64]  # [N, 2], the high and the low half of each; in halves they sort as their text does
    columns: TileColumns  # of N
    parts: Iterator[Float32]  # float32 [n, D], N rows in all; to be read once, while the session is open


def load_vectors(session: Session, reference_set_id: int, spec_id: int) -> StoredVectors:
    """Read everything but the vectors, which are read as `parts` is; a reading session sees one state throughout.

    Raises StoreError where the rows are not as many as their tally says.
    """
    tally = tallies.tally(session, reference_set_id, spec_id)
    keys = _keys(session, reference_set_id, spec_id)
    if len(keys) != tally.live:
        raise StoreError(
            f"the database counts {tally.live} embeddings of this reference set and backbone, and holds {len(keys)}: "
            "run `coarseloc reconcile`, which mends the count"
        )
    dim = session.scalars(select(SpecRow.dim).where(SpecRow.id == spec_id)).one()
    rotated_tiles = keys["rotated_tile"].copy()
    parts = _parts(session, spec_id, dim, rotated_tiles)
    columns = _columns(session, reference_set_id, keys)
    return StoredVectors(tally.version, dim, rotated_tiles, _halves(keys["point_id"]), columns, parts)


def _keys(session: Session, reference_set_id: int, spec_id: int) -> NDArray[np.void]:
    """Read each live embedding's tile, angle and rotated tile, sorted. No database sorts a million rows without its
    disk, numpy does."""
    query = (
        select(TileRow.index, RotatedTileRow.angle_deg, RotatedTileRow.id, RotatedTileRow.point_id)
        .join(RotatedTileRow, RotatedTileRow.tile_id == TileRow.id)
        .join(EmbeddingRow, EmbeddingRow.rotated_tile_id == RotatedTileRow.id)
        .where(
            TileRow.reference_set_id == reference_set_id,
            EmbeddingRow.spec_id == spec_id,
            EmbeddingRow.deleted.is_(False),
        )
    )
    rows = session.execute(query.execution_options(yield_per=10_000))
    keys = np.fromiter(map(tuple, rows), _KEY)
    return keys[np.lexsort((keys["angle_deg"], keys["tile"]))]


def _halves(point_ids: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    data = b"".join(bytes.fromhex(point.replace(b"-", b"").decode()) for point in point_ids.tolist())
    return np.frombuffer(data, ">u8").reshape(-1, 2).astype(np.uint64)


def _parts(session: Session, spec_id: int, dim: int, rotated_tiles: NDArray[np.int64]) -> Iterator[Float32]:
    for batch in batches(rotated_tiles.tolist(), PART):
        query = select(
            EmbeddingRow.rotated_tile_id, EmbeddingRow.content_digest, EmbeddingRow.vector, EmbeddingRow.row_digest
        )
        query = query.where(EmbeddingRow.rotated_tile_id.in_(batch), EmbeddingRow.spec_id == spec_id)
        vectors = {}
        for key, content_digest, vector, digest in session.execute(query):
            vectors[key] = vector
            if len(vector) != dim * VECTOR.itemsize:
                raise StoreError(
                    f"the embedding of rotated tile {key} has {len(vector)} bytes, expected {dim * VECTOR.itemsize}: "
                    "the database is damaged, run `coarseloc doctor`"
                )
            embeddings.check_vector(key, spec_id, content_digest, vector, digest)
        yield np.frombuffer(b"".join(vectors[key] for key in batch), VECTOR).reshape(len(batch), dim)


def _columns(session: Session, reference_set_id: int, keys: NDArray[np.void]) -> TileColumns:
    """Build the columns that filters read. All but the angle are the tile's, computed once for all its headings."""
    owner = references.reference_set_of(session.get_one(ReferenceSetRow, reference_set_id)).reference_set
    tiles = references.tiles(session, reference_set_id)
    of_tiles = filters.columns([_unturned(owner, tile) for tile in tiles])
    at = np.searchsorted(np.array([tile.index for tile in tiles]), keys["tile"])
    rows = {field.name: getattr(of_tiles, field.name)[at] for field in fields(TileColumns)}
    return TileColumns(**rows | {"angle_deg": keys["angle_deg"].copy()})


def _unturned(owner: ReferenceSet, tile: Tile) -> TileFacts:
    return TileFacts(
        point_id="",  # it is no point
        reference_set=owner.name,
        tile_id=ids.tile_id(owner.name, tile.index),
        place_id=ids.place_id(*tile.center),
        angle_deg=0,
        altitude_m=owner.altitude_m,
        overlap=owner.overlap,
        center=tile.center,
        bbox=tile.bbox,
    )
