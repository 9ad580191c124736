"""What a reference set consists of, view by view, with digests that mean the same in every database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from coarseloc.core.types import BBox, LonLat
from coarseloc.store import embeddings, seals
from coarseloc.store.references import REMOVED
from coarseloc.store.tables import EmbeddingRow, RotatedTileRow, TileRow


@dataclass(frozen=True, slots=True)
class ViewDigests:
    """One rotated tile: where it is, its picture's SHA-256, and the BLAKE2b-128 of its vectors' bytes."""

    tile_index: int
    angle_deg: int
    place_id: str
    center: LonLat
    bbox: BBox
    content_digest: str
    vectors: tuple[str | None, ...]  # in the order of the specs asked for; None where it has none


def view_digests(session: Session, reference_set_id: int, spec_ids: Sequence[int]) -> Iterator[ViewDigests]:
    """Read a set's views by tile, then angle. Raises StoreError where rows are not as they were written."""
    seals.check(session, "set", reference_set_id)
    vectors = [_vector_digests(session, reference_set_id, spec_id) for spec_id in spec_ids]
    query = (
        select(RotatedTileRow.id, RotatedTileRow.angle_deg, RotatedTileRow.content_digest, TileRow)
        .join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        .where(TileRow.reference_set_id == reference_set_id, RotatedTileRow.stamp != REMOVED)
        .order_by(TileRow.index, RotatedTileRow.angle_deg)
    )
    for key, angle_deg, content_digest, tile in session.execute(query.execution_options(yield_per=2000)):
        yield ViewDigests(
            tile.index,
            angle_deg,
            tile.place_id,
            LonLat(tile.lon, tile.lat),
            BBox(tile.west, tile.south, tile.east, tile.north),
            content_digest,
            tuple(of_spec.get(key) for of_spec in vectors),
        )


def _vector_digests(session: Session, reference_set_id: int, spec_id: int) -> dict[int, str]:
    """{rotated tile: BLAKE2b-128 of its live vector, hexadecimal}"""
    columns = (EmbeddingRow.rotated_tile_id, EmbeddingRow.content_digest, EmbeddingRow.vector, EmbeddingRow.row_digest)
    query = (
        select(*columns)
        .join(RotatedTileRow, RotatedTileRow.id == EmbeddingRow.rotated_tile_id)
        .join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        .where(TileRow.reference_set_id == reference_set_id)
        .where(EmbeddingRow.spec_id == spec_id, EmbeddingRow.deleted.is_(False))
    )
    digests = {}
    for key, content_digest, vector, row_digest in session.execute(query.execution_options(yield_per=2000)):
        embeddings.check_vector(key, spec_id, content_digest, vector, row_digest)
        digests[key] = hashlib.blake2b(vector, digest_size=16).hexdigest()
    return digests
