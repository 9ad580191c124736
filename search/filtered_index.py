"""Filtered look-up: query vectors answered by the vector store, scored once more and joined from SQL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.errors import VectorStoreError, VectorStoreUnavailable
from coarseloc.core.filters import ANYTHING, Where
from coarseloc.core.types import Float32, RankedTile
from coarseloc.localize.localizer import MOST_HEADINGS
from coarseloc.store import Database, embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.vectors.protocol import VectorStore
from search.neighbors import float32_error

_log = logging.getLogger("coarseloc")
_SPARE = 32  # points asked for beyond k: the store's rounding, and equals, may order the last ones otherwise
_MOST = 10_000  # points looked at so that equals come in order


@dataclass
class FilteredIndex:
    """A `TileIndex` answered by the vector store, among the tiles that match.

    The store rounds scores in its own way, so a few points more than k are asked for and scored once more in float64
    from SQL: both kinds of index give the same tiles in the same order. Says by `notice` when the store is behind the
    database, when it has lost points (and mends that), and when more tiles are equal than were looked at.
    """

    store: VectorStore
    db: Database
    spec: StoredSpec
    drain: Callable[[], object]  # brings the store up to the database
    where: Where = ANYTHING
    notice: Callable[[str], None] = _log.warning

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
        known = [(float(score), *rows[point]) for score, point in zip(scores, points, strict=True) if point in rows]
        return [
            RankedTile(rank, score, tile, path, digest, key)
            for rank, (score, key, tile, path, digest) in enumerate(known, start=1)
        ]

    def _nearest(self, query: Float32, k: int) -> tuple[Float32, list[str]]:
        """(scores, point ids) of the k best, by score, then point id."""
        error = float32_error(len(query))
        asked = k + _SPARE
        while True:
            proposed = self._query(query, asked)
            if len(proposed) < asked and self._mended(len(proposed)):
                proposed = self._query(query, asked)
            scores, points = self._scored(query, [point for point, _ in proposed])
            sure = len(scores) >= k and scores[k - 1] > proposed[-1][1] + error
            if sure or len(proposed) < asked:
                break  # what was not proposed cannot be among the k best
            if asked >= _MOST:
                self.notice(f"more than {asked} references are equal to the last shown: others may stand in its place")
                break
            asked = min(4 * asked, _MOST)
        return scores[:k], points[:k]

    def _query(self, query: Float32, k: int) -> list[tuple[str, float]]:
        collection = self.spec.collection
        try:
            if collection not in self.store.collections():
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

    def _mended(self, found: int) -> bool:
        """Whether the store had lost points, and has them again."""
        with self.db.read() as session:
            expected = len(embeddings.indexed_points(session, self.spec.id))
        held = self.store.count(self.spec.collection)
        if held >= expected:
            return False
        self.notice(
            f"the vector store holds {held} of {expected} references of {self.spec.backbone}, so that only "
            f"{found} were found: the rest is written again from the database"
        )
        with self.db.write() as session:
            embeddings.forget_indexed(session, self.spec.id)
        self.drain()
        return True

    def _scored(self, query: Float32, points: list[str]) -> tuple[Float32, list[str]]:
        """Scores in float64, rounded once, of points that are live; by score, then point id."""
        with self.db.read() as session:
            vectors = embeddings.vectors(session, self.spec.id, points)
        live = sorted(vectors)
        matrix = np.array([vectors[point] for point in live], np.float64).reshape(len(live), len(query))
        scores = np.vecdot(matrix, query.astype(np.float64)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        return scores[order], [live[i] for i in order]
