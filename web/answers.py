"""Who answers a query vector: FAISS, exactly, from the mirrors; or Qdrant, filtered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from coarseloc.errors import StoreError, VectorStoreError
from coarseloc.store import embeddings, gallery
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.types import Float32, TileFacts, Where
from search import localize
from search.index import backend
from search.mirror import Mirror, open_mirror
from web import summaries
from web.gallery import Gallery
from web.images import tile_url

K = 10


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: (tile, its primary key, its picture's content, score), best first, and who gave it."""

    hits: Sequence[tuple[TileFacts, int, str, float]]
    by: str  # "faiss" or "qdrant"
    backend: str
    search_ms: float
    references: int | None  # how many were looked at, where that is known


def by_qdrant(here: Gallery, spec: StoredSpec, vector: Float32, where: Where) -> Found:
    store = here.vectors.store()
    if spec.spec.collection not in store.collections():
        raise VectorStoreError(
            f"the vector store {store.location} holds nothing of {spec.spec.backbone} yet: it is brought up to date "
            "in the background"
        )
    started = time.perf_counter()
    points = store.query(spec.spec.collection, vector, K, where)
    search_ms = (time.perf_counter() - started) * 1e3
    with here.database.read() as session:
        rows = embeddings.facts_by_point(session, [point.id for point in points])
    hits = [
        (facts, key, content, point.score)
        for point in points
        if point.id in rows  # others were deleted just now
        for key, facts, _path, content in [rows[point.id]]
    ]
    hits.sort(key=lambda hit: (-hit[3], hit[0].tile_id, hit[0].angle_deg))
    return Found(hits, "qdrant", store.backend, search_ms, None)


def by_faiss(
    here: Gallery, spec: StoredSpec, vector: Float32, sets: Sequence[StoredReferenceSet], where: Where
) -> Found:
    """Each fitting set's mirror is searched exactly, filters and all; the answers are merged."""
    mirrors = list(_mirrors(here, sets, spec))
    if not mirrors:
        return Found([], "faiss", backend(), 0.0, 0)
    asked = [(mirror, mirror.selection(replace(where, reference_set=None))) for mirror in mirrors]
    started = time.perf_counter()
    answers = [mirror.index.search(vector[None], K, selection) for mirror, selection in asked]
    search_ms = (time.perf_counter() - started) * 1e3
    ranked = [
        (int(mirror.rotated_tile_ids[row]), float(score))
        for (mirror, _selection), (scores, rows) in zip(asked, answers, strict=True)
        for row, score in zip(rows[0], scores[0], strict=True)
    ]
    ranked.sort(key=lambda one: -one[1])
    with here.database.read() as session:
        rows_of = embeddings.facts_by_key(session, [key for key, _score in ranked[:K]])
    hits = [(rows_of[key][0], key, rows_of[key][2], score) for key, score in ranked[:K] if key in rows_of]
    looked_at = sum(mirror.index.count if selection is None else len(selection) for mirror, selection in asked)
    return Found(hits, "faiss", mirrors[0].index.backend, search_ms, looked_at)


def _mirrors(here: Gallery, sets: Sequence[StoredReferenceSet], spec: StoredSpec) -> Iterator[Mirror]:
    """Those of the sets that are embedded by this spec."""
    for one in sets:
        with suppress(StoreError):  # this set has no embeddings of it
            yield _mirror(here, one, spec)


def _mirror(here: Gallery, one: StoredReferenceSet, spec: StoredSpec) -> Mirror:
    """Opened once for each state of the embeddings."""
    with here.database.read() as session:
        generation = gallery.generation(session)
    key = ("mirror", one.id, one.created_at, spec.id, generation)
    return here.memory.recall(key, lambda: open_mirror(here.database, here.settings.mirrors, one, spec))


def shown_hits(found: Found) -> list[dict[str, Any]]:
    top = found.hits[0][3] if found.hits else 0.0
    largest = top - found.hits[-1][3] if found.hits else 0.0
    return [
        {
            "rank": rank,
            "score": score,
            "drop": top - score,
            "kept": 1.0 - (top - score) / largest if largest > 0 else 1.0,
            "rotated_tile": key,
            "tile_id": facts.tile_id,
            "place_id": facts.place_id,
            "reference_set": facts.reference_set,
            "angle_deg": facts.angle_deg,
            "altitude_m": facts.altitude_m,
            "location": facts.center._asdict(),
            "bbox": list(facts.bbox),
            "image": tile_url(key, content),
            "image_full": tile_url(key, content, "full"),
            "distance_m": None,
            "verdict": None,
        }
        for rank, (facts, key, content, score) in enumerate(found.hits, start=1)
    ]


@dataclass(frozen=True, slots=True)
class _Ranked:
    rank: int
    score: float
    tile: TileFacts


def estimate(found: Found) -> dict[str, Any] | None:
    """The place the hits amount to, as a frame's estimate is."""
    hits = [_Ranked(rank, score, tile) for rank, (tile, _key, _content, score) in enumerate(found.hits, start=1)]
    best = localize.estimate(localize.candidates(hits))
    if best is None:
        return None
    elsewhere = None if best.margin is None else best.score - best.margin
    margin = summaries.margin(best.score, elsewhere, hits[-1].score)
    return {
        "location": best.location._asdict(),
        "heading_deg": best.heading_deg,
        "score": best.score,
        "margin": {"score": margin.score, "at_least": margin.at_least},
        "error_m": None,
        "heading_error_deg": None,
    }
