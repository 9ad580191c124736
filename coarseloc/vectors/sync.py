"""Bring the vector store up to the database: drain, reconcile, rebuild, delete.

SQL is the truth. A row counts as indexed only after the store made it durable, so a kill at any moment
leaves work to repeat (upserts and deletes are idempotent) and nothing to repair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from coarseloc.core.types import Float32, Progress, batches
from coarseloc.store import Database, embeddings, references, tallies
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.tallies import Tally
from coarseloc.vectors.protocol import VectorStore

BATCH = 500  # points per upsert
PER_FLUSH = 10_000  # embeddings per flush: reaching the disk costs more than writing does
VECTOR_TOLERANCE = 1e-5


@dataclass(slots=True)
class DrainSummary:
    """What one drain brought over."""

    upserted: int = 0
    deleted: int = 0
    rebuilt: list[str] = field(default_factory=list)  # collections that were lost and replayed


@dataclass(frozen=True, slots=True)
class Difference:
    """How one collection differs from the database, apart from what is still pending."""

    collection: str
    missing: tuple[str, ...]  # in SQL, not in the store
    orphaned: tuple[str, ...]  # in the store, not in SQL
    differing: tuple[str, ...]  # another vector in the store, among those sampled
    compared: int


@dataclass(frozen=True, slots=True)
class Miscount:
    """A tally that its rows contradicted, and that says what they say now."""

    reference_set: str
    collection: str
    found: Tally
    rows: Tally


def drain(
    db: Database, store: VectorStore, progress: Progress | None = None, *, spec: StoredSpec | None = None
) -> DrainSummary:
    """Write every pending embedding, or those of one spec, to the store and record that they are there."""
    summary = DrainSummary()
    with db.read() as session:
        specs = embeddings.specs(session) if spec is None else [spec]
        pending = embeddings.pending_counts(session)
    total = sum(pending.get(stored.collection, 0) for stored in specs)
    for stored in specs:
        if is_lost(db, store, stored):
            summary.rebuilt.append(stored.collection)
            with db.write() as session:
                embeddings.forget_indexed(session, stored.id)
        _drain_spec(db, store, stored, summary, progress, total)
    if summary.deleted:
        with db.write() as session:
            references.drop_removed(session)
    return summary


def is_lost(db: Database, store: VectorStore, spec: StoredSpec) -> bool:
    """Test whether the database has points in a collection that the store lacks."""
    if store.has(spec.collection):
        return False
    with db.read() as session:
        return embeddings.has_indexed(session, spec.id)


def _drain_spec(
    db: Database, store: VectorStore, spec: StoredSpec, result: DrainSummary, progress: Progress | None, total: int
) -> None:
    collection = spec.collection
    while True:
        with db.read() as session:
            pending = embeddings.take_pending(session, spec, PER_FLUSH)
        if not pending:
            return
        store.ensure(collection, spec.dim)
        for batch in batches(pending, BATCH):
            points = [row.point for row in batch if not row.deleted]
            deleted = [row.point.id for row in batch if row.deleted]
            if points:
                store.upsert(collection, points)
            if deleted:
                store.delete(collection, deleted)
            result.upserted += len(points)
            result.deleted += len(deleted)
            if progress:
                progress(result.upserted + result.deleted, total, "points")
        store.flush(collection)
        with db.write() as session:
            embeddings.mark_indexed(session, pending)


def reconcile(db: Database, store: VectorStore, sample: int = 1000) -> list[Difference]:
    """Compare all ids, and the vectors of up to `sample` points per collection, evenly spread.

    Pending embeddings are not differences: the store is behind by them and knows it.
    """
    with db.read() as session:
        specs = embeddings.specs(session)
    spec_collections = {spec.collection for spec in specs}
    differences = [_compare(db, store, spec, sample) for spec in specs]
    differences += [
        Difference(name, (), tuple(store.ids(name)), (), 0)
        for name in store.collections()
        if name not in spec_collections
    ]
    return differences


def _compare(db: Database, store: VectorStore, spec: StoredSpec, sample: int) -> Difference:
    collection = spec.collection
    with db.read() as session:
        indexed = embeddings.indexed_points(session, spec.id)
        live = set(embeddings.point_ids(session, spec.id))
    stored = set(store.ids(collection)) if store.has(collection) else set()
    missing = sorted(indexed - stored)
    orphaned = sorted(stored - live)
    shared = sorted(indexed & stored)
    sampled = shared[:: max(1, len(shared) // sample)] if shared else []
    with db.read() as session:
        truth = embeddings.vectors(session, spec.id, sampled)
    differing = tuple(_differing_points(store, collection, sampled, truth))
    return Difference(collection, tuple(missing), tuple(orphaned), differing, len(sampled))


def _differing_points(
    store: VectorStore, collection: str, sampled: list[str], truth: dict[str, Float32]
) -> Iterable[str]:
    for start in range(0, len(sampled), BATCH):
        batch = sampled[start : start + BATCH]
        stored = store.vectors(collection, batch)
        yield from (p for p in batch if not np.allclose(stored[p], truth[p], rtol=0, atol=VECTOR_TOLERANCE))


def recount(db: Database) -> list[Miscount]:
    """Compare every tally with the count of its rows and correct the wrong ones; returns those."""
    with db.read() as session:
        if not tallies.miscounts(session):  # the rule, and a reader keeps no writer waiting
            return []
    with db.write() as session:
        names = {stored.id: stored.name for stored in references.reference_sets(session)}
        collections = {stored.id: stored.collection for stored in embeddings.specs(session)}
        mended = tallies.correct_miscounts(session)
    return [Miscount(names[owner], collections[spec], *counts) for (owner, spec), counts in mended.items()]


def rebuild(db: Database, store: VectorStore, progress: Progress | None = None) -> DrainSummary:
    """Drop every collection and replay the database into new ones."""
    store.drop_all()
    with db.write() as session:
        for spec in embeddings.specs(session):
            embeddings.forget_indexed(session, spec.id)
    return drain(db, store, progress)


def delete_reference_set(db: Database, store: VectorStore, name: str) -> int:
    """Delete a reference set everywhere: marked, drained, then dropped. Returns the embeddings deleted.

    Stopped half-way it stays marked, and the same command goes on.
    """
    with db.write() as session:
        stored = references.find_reference_set(session, name)
        marked = embeddings.mark_deleted(session, stored.id)
    drain(db, store)
    with db.write() as session:
        references.delete_reference_set(session, stored.id)
    return marked
