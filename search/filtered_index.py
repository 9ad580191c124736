"""The vector store as an index of tiles: its points scored once more and joined with their facts from SQL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.errors import StoreError, VectorStoreError, VectorStoreUnavailable
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import Float32, RankedTile
from coarseloc.localize.localizer import MOST_HEADINGS
from coarseloc.store import Database, embeddings, references, seals
from coarseloc.store.embeddings import StoredSpec
from coarseloc.vectors.protocol import VectorStore
from search.neighbors import best_rows, float32_error

_log = logging.getLogger("coarseloc")
_SPARE = 32  # points queried beyond k: the store's rounding may order the last points differently
_MAX_POINTS = 10_000  # queried at most, to order points of equal score
_checked: WeakSet[Database] = WeakSet()  # databases whose indexes were held against their tables by this process


@dataclass
class FilteredIndex:
    """A `TileIndex` answered by the vector store, among the tiles that match.

    The store rounds scores in its own way, so a few points more than k are queried, and scored once more in float64
    with their vectors from SQL: both kinds of index return the same tiles in the same order. Calls `notice` when the
    store is behind the database, when it has lost points (which are written again), and when more points have equal
    scores than were queried.
    """

    store: VectorStore
    db: Database
    spec: StoredSpec
    drain: Callable[[], object]  # brings the store up to the database
    where: Where = ALL_TILES
    notice: Callable[[str], None] = _log.warning

    @property
    def backend(self) -> str:
        return self.store.backend

    @property
    def headings(self) -> int:
        """See `TileIndex`."""
        return len(self.where.angles) or MOST_HEADINGS

    def search(self, queries: Float32, k: int) -> tuple[Float32, NDArray[np.str_]]:
        """See `TileIndex`; keys are point ids.

        Raises VectorStoreUnavailable saying what is down and what goes on without it, VectorStoreError where the store
        holds nothing of this backbone yet.
        """
        answers = [self._nearest(query, k) for query in queries]
        if pending := self._pending():
            self.notice(
                f"{pending} embeddings of {self.spec.backbone} are not in the vector store yet: it may miss references"
            )
        width = min((len(points) for _, points in answers), default=0)
        scores = np.array([scores[:width] for scores, _ in answers], np.float32)
        return scores, np.array([points[:width] for _, points in answers], np.str_)

    def tiles(self, scores: Float32, keys: NDArray[Any]) -> list[RankedTile]:
        """See `TileIndex`."""
        points = [str(key) for key in keys]
        with self.db.read() as session:
            rows = embeddings.facts_by_point(session, points)
            for name in {facts.reference_set for _, facts, *_ in rows.values()}:
                seals.check(session, "set", references.find_reference_set(session, name).id)
        live = [(float(score), *rows[point]) for score, point in zip(scores, points, strict=True) if point in rows]
        return [
            RankedTile(rank, score, tile, path, digest, key)
            for rank, (score, key, tile, path, digest) in enumerate(live, start=1)
        ]

    def _nearest(self, query: Float32, k: int) -> tuple[Float32, list[str]]:
        """(scores, point ids) of the k best, by score, then point id."""
        error = float32_error(len(query))
        limit = k + _SPARE
        while True:
            candidates = self._query(query, limit)
            if len(candidates) < limit and self._restore_lost_points(len(candidates)):
                candidates = self._query(query, limit)
            scores, points = self._best_points(query, k, [point for point, _ in candidates])
            certain = len(scores) >= k and scores[k - 1] > candidates[-1][1] + error
            if certain or len(candidates) < limit:
                break  # no other point can be among the k best
            if limit >= _MAX_POINTS:
                self.notice(f"more than {limit} references are equal to the last shown: others may stand in its place")
                break
            limit = min(4 * limit, _MAX_POINTS)
        return scores, points

    def _query(self, query: Float32, k: int) -> list[tuple[str, float]]:
        collection = self.spec.collection
        try:
            if not self.store.has(collection):
                raise VectorStoreError(
                    f"the vector store {self.store.location} holds nothing of {self.spec.backbone} yet, "
                    f"{self._pending()} embeddings are pending: run `coarseloc ingest` or `coarseloc rebuild`"
                )
            return [(point.id, point.score) for point in self.store.query(collection, query, k, self.where)]
        except VectorStoreUnavailable as error:
            raise VectorStoreUnavailable(
                f"filtered look-up needs the vector store, which is down: {error} "
                "Exact search (`coarseloc search`) goes on without it and takes the same filters."
            ) from error

    def _pending(self) -> int:
        with self.db.read() as session:
            return embeddings.pending_counts(session).get(self.spec.collection, 0)

    def _restore_lost_points(self, found_points: int) -> bool:
        """Write all points again if the store has lost any; returns whether it had. found_points: for the notice."""
        with self.db.read() as session:
            expected = len(embeddings.indexed_points(session, self.spec.id))
        stored = self.store.count(self.spec.collection)
        if stored >= expected:
            return False
        self.notice(
            f"the vector store holds {stored} of {expected} references of {self.spec.backbone}, so that only "
            f"{found_points} were found: the rest is written again from the database"
        )
        with self.db.write() as session:
            embeddings.forget_indexed(session, self.spec.id)
        self.drain()
        return True

    def _tell_unknown(self, count: int) -> None:
        """Say that points are left out. Raises StoreError where the database has lost them: an index that is damaged
        hides rows that are there."""
        if self.db not in _checked:
            if damage := self.db.damage(thorough=True):
                raise StoreError(
                    f"{self.db.location} is damaged ({damage}): stop everything that uses it and restore a back-up, "
                    "see docs/operations.md"
                )
            _checked.add(self.db)
        self.notice(
            f"the vector store holds {count} references of {self.spec.backbone} that the database does not know: they "
            "were deleted a moment ago, or `coarseloc reconcile` tells more"
        )

    def _best_points(self, query: Float32, k: int, points: list[str]) -> tuple[Float32, list[str]]:
        """(scores, point ids) of the k best of these points, without those deleted since; see `best_rows`."""
        with self.db.read() as session:
            vectors = embeddings.vectors(session, self.spec.id, points)
            absent = sorted(set(points) - vectors.keys())
            unknown = embeddings.count_unknown(session, self.spec.id, absent) if absent else 0
        if unknown:
            self._tell_unknown(unknown)
        live = sorted(vectors)  # so that equal scores come by ascending point id
        matrix = np.array([vectors[point] for point in live], np.float32).reshape(len(live), len(query))
        scores, rows = best_rows(matrix, query[None], np.arange(len(live))[None], k)
        return scores[0], [live[row] for row in rows[0]]
