"""Who answers a query vector: FAISS, exactly, from the mirrors; or Qdrant, filtered. Both by the one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coarseloc.core.filters import Where
from coarseloc.core.types import Estimate, Float32, RankedTile
from coarseloc.localize.localizer import TileIndex, rank
from coarseloc.localize.places import best_place
from coarseloc.store import embeddings, gallery
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search.mirror import Mirror, open_mirror
from web.pages.frame import estimate_view, hit_view, share_scale
from web.pages.images import tile_url
from web.state import Gallery

K = 10


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """Ranked tiles and where they put the image, and who answered."""

    hits: Sequence[RankedTile]
    estimate: Estimate | None
    by: str  # "faiss" or "qdrant"
    backend: str
    search_ms: float
    references: int | None  # how many were looked at, where that is known


def by_qdrant(here: Gallery, spec: StoredSpec, vector: Float32, where: Where) -> LookupAnswer:
    store = here.vectors.store()
    return _answer(here.workspace.filtered_index(store, spec, where), vector, "qdrant", store.backend, None)


def by_faiss(
    here: Gallery, spec: StoredSpec, vector: Float32, sets: Sequence[StoredReferenceSet], where: Where
) -> LookupAnswer:
    """The mirrors of the sets that fit and are embedded by this spec are searched exactly as one, filters and all."""
    with here.database.read() as session:
        embedded = [one for one in sets if any(held.id == spec.id for held in embeddings.specs(session, one.id))]
    index = here.workspace.exact_index(embedded, spec, where, lambda one: _mirror(here, one, spec))
    return _answer(index, vector, "faiss", index.backend, index.count)


def _answer(index: TileIndex, vector: Float32, by: str, backend: str, references: int | None) -> LookupAnswer:
    (hits,), search_ms = rank(vector[None], index, K)
    return LookupAnswer(hits, best_place(hits), by, backend, search_ms, references)


def _mirror(here: Gallery, one: StoredReferenceSet, spec: StoredSpec) -> Mirror:
    """Opened once for each state of the embeddings."""
    with here.database.read() as session:
        generation = gallery.generation(session)
    key = ("mirror", one.uid, spec.id, generation)
    return here.memory.recall(key, lambda: open_mirror(here.database, here.settings.mirrors, one, spec))


def answer_view(answer: LookupAnswer) -> dict[str, Any]:
    hits = [hit_view(hit, answer.hits[0].score, None, tile_url) for hit in answer.hits[:K]]
    share_scale([hits])
    return {"hits": hits, "estimate": estimate_view(answer.estimate) if answer.estimate else None}
