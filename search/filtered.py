"""Filtered look-up: one query vector answered by the vector store, the rows joined from SQL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from coarseloc.errors import VectorStoreError, VectorStoreUnavailable
from coarseloc.store import Database, embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.types import Float32, Hit, VectorStore, Where
from coarseloc.where import ANYTHING
from search.hits import as_hit

_log = logging.getLogger("coarseloc")


def lookup(
    store: VectorStore,
    db: Database,
    spec: StoredSpec,
    vector: Float32,
    k: int,
    where: Where = ANYTHING,
    *,
    thumbnails: Path,
    notice: Callable[[str], None] = _log.warning,
) -> list[Hit]:
    """The k best references among those that match, best first; vector: float32 [D], unit norm.

    Says by `notice` when the store is behind the database and may therefore miss references. Raises
    VectorStoreUnavailable saying what is down and what goes on without it, VectorStoreError where the store holds
    nothing of this backbone yet.
    """
    with db.read() as session:
        pending = embeddings.pending_counts(session).get(spec.spec.collection, 0)
    try:
        if spec.spec.collection not in store.collections():
            raise VectorStoreError(
                f"the vector store {store.location} holds nothing of {spec.spec.backbone} yet, {pending} embeddings "
                "are pending: run `coarseloc ingest` or `coarseloc rebuild`"
            )
        found = store.query(spec.spec.collection, vector, k, where)
    except VectorStoreUnavailable as error:
        raise VectorStoreUnavailable(
            f"filtered look-up needs the vector store, which is down: {error} "
            "Exact search (`coarseloc search`) goes on without it and takes the same filters."
        ) from error
    if pending:
        notice(f"{pending} embeddings of {spec.spec.backbone} are not in the vector store yet: it may miss references")
    with db.read() as session:
        rows = embeddings.facts_by_point(session, [point.id for point in found])
    known = [(point.score, *rows[point.id][1:]) for point in found if point.id in rows]  # others were deleted just now
    known.sort(key=lambda row: (-row[0], row[1].tile_id, row[1].angle_deg))  # equal scores: the exact index's order
    return [
        as_hit(rank, score, tile, path, digest, thumbnails)
        for rank, (score, tile, path, digest) in enumerate(known, start=1)
    ]
