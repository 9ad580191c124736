"""Embeddings with their vectors, and the bookkeeping that lets the vector store follow behind.

Every write takes the next `generation`; `indexed_generation` is the one the vector store has. A row is
pending while it is behind. Deletes are marked, drained, then dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Row, Select, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.errors import StoreError
from coarseloc.core.types import BBox, EmbeddingSpec, Fit, Float32, LonLat, Point, TileFacts, batches
from coarseloc.store import seals, tallies
from coarseloc.store.tables import (
    VECTOR,
    EmbeddingRow,
    ReferenceSetRow,
    RotatedTileRow,
    SpecRow,
    TallyRow,
    TileRow,
    TileSnapshotRow,
    upsert,
)

Rows = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """An embedding spec as the database holds it: its row's key, and what it says."""

    id: int
    embedding_spec: EmbeddingSpec

    @property
    def backbone(self) -> str:
        return self.embedding_spec.backbone

    @property
    def input_px(self) -> int:
        return self.embedding_spec.input_px

    @property
    def precision(self) -> str:
        return self.embedding_spec.precision

    @property
    def fit(self) -> Fit:
        return self.embedding_spec.fit

    @property
    def how(self) -> str:
        return self.embedding_spec.how

    @property
    def dim(self) -> int:
        return self.embedding_spec.dim

    @property
    def digest(self) -> str:
        return self.embedding_spec.digest

    @property
    def collection(self) -> str:
        return self.embedding_spec.collection


@dataclass(frozen=True, slots=True)
class PendingEmbedding:
    """One embedding the vector store does not have in its present form."""

    id: int
    generation: int
    deleted: bool
    point: Point


# --- specs --------------------------------------------------------------------------------------


def save_spec(session: Session, spec: EmbeddingSpec) -> StoredSpec:
    row = session.scalar(select(SpecRow).where(SpecRow.digest == spec.digest))
    if row is None:
        row = SpecRow(digest=spec.digest, backbone=spec.backbone, dim=spec.dim, facts=spec.facts())
        session.add(row)
        session.flush()
    return StoredSpec(row.id, spec)


def specs(session: Session, reference_set_id: int | None = None) -> list[StoredSpec]:
    """List every spec, or those with live embeddings in a reference set, oldest first."""
    query = select(SpecRow).order_by(SpecRow.id)
    if reference_set_id is not None:
        has_live = (TallyRow.spec_id == SpecRow.id) & (TallyRow.reference_set_id == reference_set_id)
        query = query.join(TallyRow, has_live).where(TallyRow.live > 0)
    return [stored_spec(row) for row in session.scalars(query)]


def stored_spec(row: SpecRow) -> StoredSpec:
    facts: dict[str, Any] = dict(row.facts)
    return StoredSpec(row.id, EmbeddingSpec(**facts | {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}))


# --- writing ------------------------------------------------------------------------------------


def write_embeddings(session: Session, rows: Sequence[tuple[int, int, str, Float32]]) -> None:
    """Record (rotated tile, spec, content digest, vector float32 [D]) rows; they become pending."""
    if not rows:
        return
    generation = tallies.next_generation(session)
    written = {(rotated_tile, spec) for rotated_tile, spec, _, _ in rows}
    fresh = written - _live_embeddings(session, {rotated_tile for rotated_tile, _ in written})
    upsert(
        session,
        EmbeddingRow,
        [
            {
                "rotated_tile_id": rotated_tile,
                "spec_id": spec,
                "content_digest": content_digest,
                "vector": packed,
                "generation": generation,
                "deleted": False,
                "row_digest": seals.vector_digest(rotated_tile, spec, content_digest, packed),
            }
            for rotated_tile, spec, content_digest, vector in rows
            for packed in [np.ascontiguousarray(vector, VECTOR).tobytes()]
        ],
        ["rotated_tile_id", "spec_id"],
    )
    _update_tallies(session, generation, {key: int(key in fresh) for key in written})


def mark_tiles_pending(session: Session, tile_keys: Iterable[int]) -> None:
    """Make all points of these tiles pending: their payload in the vector store is out of date."""
    for batch in batches(tile_keys, 500):
        generation = tallies.next_generation(session)
        rotated = select(RotatedTileRow.id).where(RotatedTileRow.tile_id.in_(batch))
        touched = session.execute(
            update(EmbeddingRow)
            .where(EmbeddingRow.rotated_tile_id.in_(rotated))
            .values(generation=generation)
            .returning(EmbeddingRow.rotated_tile_id, EmbeddingRow.spec_id)
        )
        _update_tallies(session, generation, dict.fromkeys(touched, 0))


def mark_deleted(session: Session, reference_set_id: int) -> int:
    """Mark a reference set's embeddings for deletion; return how many."""
    return _mark_deleted(session, reference_set_id, _live(reference_set_id))


def mark_views_deleted(session: Session, reference_set_id: int, rotated_tiles: Sequence[int]) -> int:
    """Mark the embeddings of a reference set's rotated tiles for deletion; return how many."""
    live = _live(reference_set_id).where(EmbeddingRow.rotated_tile_id.in_(rotated_tiles))
    return _mark_deleted(session, reference_set_id, live)


def _mark_deleted(session: Session, reference_set_id: int, live: Rows) -> int:
    generation = tallies.next_generation(session)
    marked = session.scalars(
        update(EmbeddingRow)
        .where(EmbeddingRow.id.in_(live.with_only_columns(EmbeddingRow.id)))
        .values(deleted=True, generation=generation)
        .returning(EmbeddingRow.spec_id)
    )
    by_spec = Counter(marked)
    tallies.record(session, generation, {(reference_set_id, spec): -count for spec, count in by_spec.items()})
    return by_spec.total()


def _live_embeddings(session: Session, rotated_tiles: Iterable[int]) -> set[tuple[int, int]]:
    """Read (rotated tile, spec) of every live embedding of these rotated tiles."""
    live: set[tuple[int, int]] = set()
    for batch in batches(rotated_tiles, 5000):
        query = select(EmbeddingRow.rotated_tile_id, EmbeddingRow.spec_id)
        query = query.where(EmbeddingRow.rotated_tile_id.in_(batch), EmbeddingRow.deleted.is_(False))
        live.update((rotated_tile, spec) for rotated_tile, spec in session.execute(query))
    return live


def _update_tallies(session: Session, generation: int, changed: Mapping[tuple[int, int], int]) -> None:
    """Add a write to the tallies. changed: {(rotated tile, spec): live embeddings more or less}."""
    owners: dict[int, int] = {}
    for batch in batches({rotated_tile for rotated_tile, _ in changed}, 5000):
        query = select(RotatedTileRow.id, TileRow.reference_set_id).join(TileRow).where(RotatedTileRow.id.in_(batch))
        owners.update((rotated_tile, owner) for rotated_tile, owner in session.execute(query))
    changes: Counter[tuple[int, int]] = Counter()
    for (rotated_tile, spec), change in changed.items():
        changes[owners[rotated_tile], spec] += change
    tallies.record(session, generation, changes)


# --- what is missing, what is pending -----------------------------------------------------------


def embedded_contents(session: Session, reference_set_id: int, spec_id: int) -> dict[int, str]:
    """Read {rotated tile: content digest that its live embedding was made from}."""
    query = _live(reference_set_id).with_only_columns(EmbeddingRow.rotated_tile_id, EmbeddingRow.content_digest)
    return {pk: content for pk, content in session.connection().execute(query.where(EmbeddingRow.spec_id == spec_id))}


def pending_counts(session: Session) -> dict[str, int]:
    """Count {collection: embeddings the vector store is behind by}; empty when it is up to date."""
    query = (
        select(EmbeddingRow.spec_id, func.count())
        .where(EmbeddingRow.indexed_generation < EmbeddingRow.generation)
        .group_by(EmbeddingRow.spec_id)
    )
    counts = {spec_id: count for spec_id, count in session.execute(query)}
    return {stored.collection: counts[stored.id] for stored in specs(session) if stored.id in counts}


def take_pending(session: Session, stored: StoredSpec, limit: int) -> list[PendingEmbedding]:
    """Read up to `limit` of a spec's pending embeddings, oldest row first."""
    query = _with_facts(select(EmbeddingRow)).where(
        EmbeddingRow.spec_id == stored.id, EmbeddingRow.indexed_generation < EmbeddingRow.generation
    )
    rows = session.execute(query.order_by(EmbeddingRow.id).limit(limit)).all()
    for row in rows:
        embedding: EmbeddingRow = row.EmbeddingRow
        check_vector(
            embedding.rotated_tile_id, stored.id, embedding.content_digest, embedding.vector, embedding.row_digest
        )
    return [
        PendingEmbedding(
            row.EmbeddingRow.id,
            row.EmbeddingRow.generation,
            row.EmbeddingRow.deleted,
            Point(tile_facts(row), _vector(row.EmbeddingRow.vector)),
        )
        for row in rows
    ]


def mark_indexed(session: Session, drained: Sequence[PendingEmbedding]) -> None:
    """Record that the vector store durably has these generations; drop the rows whose deletion it has.
    A row written again meanwhile has a higher generation and stays pending."""
    indexed = [{"row": p.id, "seen": p.generation} for p in drained if not p.deleted]
    if indexed:
        session.connection().execute(
            update(EmbeddingRow.__table__)  # type: ignore[arg-type]
            .where(EmbeddingRow.id == bindparam("row"))
            .values(indexed_generation=bindparam("seen")),
            indexed,
        )
    deleted = [{"row": p.id, "seen": p.generation} for p in drained if p.deleted]
    if deleted:
        session.connection().execute(
            delete(EmbeddingRow.__table__).where(  # type: ignore[arg-type]
                EmbeddingRow.id == bindparam("row"), EmbeddingRow.generation == bindparam("seen")
            ),
            deleted,
        )


def forget_indexed(session: Session, spec_id: int) -> None:
    """Make every embedding of a spec pending: its collection was lost or dropped."""
    session.execute(update(EmbeddingRow).where(EmbeddingRow.spec_id == spec_id).values(indexed_generation=0))


def check_vector(rotated_tile: int, spec: int, content_digest: str, vector: bytes, digest: int | None) -> None:
    """Raise StoreError where an embedding's row is not as it was written."""
    if digest is not None and seals.vector_digest(rotated_tile, spec, content_digest, vector) != digest:
        raise StoreError(
            f"the embedding of rotated tile {rotated_tile} is not as it was written: the database is damaged, "
            "`coarseloc doctor --deep` says where and how to mend it"
        )


# --- reading vectors ----------------------------------------------------------------------------


def point_ids(session: Session, spec_id: int) -> set[str]:
    """Read the ids of a spec's live points."""
    return set(session.scalars(_points(spec_id)))


def indexed_points(session: Session, spec_id: int) -> set[str]:
    """Read the ids of a spec's live points that the vector store should have in their present form."""
    return set(session.scalars(_points(spec_id).where(EmbeddingRow.indexed_generation == EmbeddingRow.generation)))


def has_indexed(session: Session, spec_id: int) -> bool:
    """Whether the vector store was ever given points of this spec that are still live."""
    query = select(EmbeddingRow.id).where(
        EmbeddingRow.spec_id == spec_id, EmbeddingRow.indexed_generation > 0, EmbeddingRow.deleted.is_(False)
    )
    return session.scalar(query.limit(1)) is not None


def vectors(session: Session, spec_id: int, points: Sequence[str]) -> dict[str, Float32]:
    """Read {point id: vector float32 [D]} of these live points of a spec. Raises StoreError where a row is not as it
    was written."""
    columns = (EmbeddingRow.rotated_tile_id, EmbeddingRow.content_digest, EmbeddingRow.vector, EmbeddingRow.row_digest)
    vectors_by_point = {}
    for batch in batches(points, 500):
        query = _points(spec_id).add_columns(*columns).where(RotatedTileRow.point_id.in_(batch))
        for point, rotated_tile, content_digest, data, digest in session.execute(query):
            check_vector(rotated_tile, spec_id, content_digest, data, digest)
            vectors_by_point[point] = _vector(data)
    return vectors_by_point


def count_unknown(session: Session, spec_id: int, points: Sequence[str]) -> int:
    """Of points that the vector store holds and that are not live here, how many the database does not know at all.

    Those that wait for their deletion are pending. Raises StoreError where a row is not as it was written: a flipped
    bit can take it out of its spec, or mark it as deleted.
    """
    known: set[str] = set()
    for batch in batches(points, 500):
        query = select(RotatedTileRow.point_id, EmbeddingRow).join(RotatedTileRow)
        for point, row in session.execute(query.where(RotatedTileRow.point_id.in_(batch))):
            check_vector(row.rotated_tile_id, row.spec_id, row.content_digest, row.vector, row.row_digest)
            if row.spec_id == spec_id:
                known.add(point)
                if row.deleted and row.indexed_generation >= row.generation:
                    raise StoreError(
                        f"the embedding of rotated tile {row.rotated_tile_id} is marked as deleted and was not: the "
                        "database is damaged, `coarseloc doctor --deep` says where and how to mend it"
                    )
    return len(set(points) - known)


def _points(spec_id: int) -> Rows:
    return (
        select(RotatedTileRow.point_id)
        .join(EmbeddingRow, EmbeddingRow.rotated_tile_id == RotatedTileRow.id)
        .where(EmbeddingRow.spec_id == spec_id, EmbeddingRow.deleted.is_(False))
    )


def facts_by_point(session: Session, point_ids: Sequence[str]) -> dict[str, tuple[int, TileFacts, str | None, str]]:
    """Read {point id: (rotated tile, its facts, the capture's file or None, content digest)}."""
    query = _facts_query().where(RotatedTileRow.point_id.in_(point_ids))
    return {row.point_id: (row.rotated_tile, tile_facts(row), row.path, row.content) for row in session.execute(query)}


def facts_by_key(session: Session, keys: Sequence[int]) -> dict[int, tuple[TileFacts, str | None, str]]:
    """Read {rotated tile: (its facts, the capture's file or None, content digest)}."""
    facts: dict[int, tuple[TileFacts, str | None, str]] = {}
    for batch in batches(keys, 5000):
        for row in session.execute(_facts_query().where(RotatedTileRow.id.in_(batch))):
            facts[row.rotated_tile] = (tile_facts(row), row.path, row.content)
    return facts


def _facts_query() -> Rows:
    return (
        select(
            RotatedTileRow.id.label("rotated_tile"),
            RotatedTileRow.path,
            RotatedTileRow.content_digest.label("content"),
        )
        .add_columns(*_FACTS)
        .join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        .join(ReferenceSetRow, ReferenceSetRow.id == TileRow.reference_set_id)
    )


_FACTS = (
    RotatedTileRow.point_id,
    RotatedTileRow.angle_deg,
    TileRow.index.label("tile_index"),
    TileRow.place_id,
    TileRow.lon,
    TileRow.lat,
    TileRow.west,
    TileRow.south,
    TileRow.east,
    TileRow.north,
    ReferenceSetRow.name.label("reference_set"),
    ReferenceSetRow.altitude_m,
    ReferenceSetRow.overlap,
)


def _with_facts(query: Rows) -> Rows:
    return (
        query.add_columns(*_FACTS)
        .select_from(EmbeddingRow)
        .join(RotatedTileRow, RotatedTileRow.id == EmbeddingRow.rotated_tile_id)
        .join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        .join(ReferenceSetRow, ReferenceSetRow.id == TileRow.reference_set_id)
    )


def tile_facts(row: Row[Any] | TileSnapshotRow) -> TileFacts:
    """Build the facts of a row that joins a rotated tile with its tile and set, or of a snapshot of all three."""
    return TileFacts(
        point_id=row.point_id,
        reference_set=row.reference_set,
        tile_id=ids.tile_id(row.reference_set, row.tile_index),
        place_id=row.place_id,
        angle_deg=row.angle_deg,
        altitude_m=row.altitude_m,
        overlap=row.overlap,
        center=LonLat(row.lon, row.lat),
        bbox=BBox(row.west, row.south, row.east, row.north),
    )


def _vector(data: bytes) -> Float32:
    return np.frombuffer(data, VECTOR).astype(np.float32)


def _live(reference_set_id: int) -> Rows:
    return (
        select(EmbeddingRow)
        .join(RotatedTileRow, RotatedTileRow.id == EmbeddingRow.rotated_tile_id)
        .join(TileRow, TileRow.id == RotatedTileRow.tile_id)
        .where(TileRow.reference_set_id == reference_set_id, EmbeddingRow.deleted.is_(False))
    )
