"""One image looked up among the references, for pages and programs: who may answer, by what filters, and who ranks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from flask import request
from werkzeug.datastructures import MultiDict

from coarseloc.core.errors import CoarselocError
from coarseloc.core.filters import Where
from coarseloc.core.types import Float32, RankedTile
from coarseloc.localize.localizer import TileIndex, rank
from coarseloc.store import gallery
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search.mirror import Mirror, open_mirror
from web.language import _
from web.problems import Problem
from web.state import WebState

K = 10  # tiles shown


@dataclass(frozen=True, slots=True)
class Ranking:
    """The tiles most like a query, and who ranked them."""

    hits: Sequence[RankedTile]
    by: Literal["faiss", "qdrant"]
    backend: str
    search_ms: float
    references: int | None  # how many were looked at, where that is known


def chosen_spec(state: WebState, specs: Sequence[StoredSpec], key: str | None) -> StoredSpec | None:
    """The spec of that key, else the smallest that can embed here, so that a first search is quick."""
    by_key = {spec_key(spec, specs): spec for spec in specs}
    if key in by_key:
        return by_key[key]
    able = [spec for spec in specs if state.encoders.missing(spec.embedding_spec) is None]
    return able[0] if able else specs[0] if specs else None


def spec_key(spec: StoredSpec, specs: Sequence[StoredSpec]) -> str:
    name = spec.backbone
    return name if [stored.backbone for stored in specs].count(name) == 1 else long_key(spec)


def long_key(spec: StoredSpec) -> str:
    """A spec's key where several are of its backbone."""
    return f"{spec.backbone}~{spec.digest[:8]}"


def where_of_address(sets: Sequence[StoredReferenceSet], beside: Collection[str]) -> Where:
    """The filters of the address, whose other keys may be those `beside`. Raises InputError for what they cannot be,
    Problem 404 for an unknown set."""
    where = Where.parse(filled_fields(request.args), beside=beside)
    names = {stored.name for stored in sets}
    for name in where.reference_sets:
        if name not in names:
            raise Problem(404, _("There is no reference set {name}.", name=name))
    return where


def filled_fields(texts: MultiDict[str, str]) -> dict[str, list[str]]:
    """Every text of a query or a form; a field that was left blank is none."""
    lists = {name: [text for text in values if text] for name, values in texts.lists()}
    return {name: values for name, values in lists.items() if values}


def rank_query(state: WebState, spec: StoredSpec, vector: Float32, where: Where) -> tuple[Ranking, str | None]:
    """(the references most like a vector; why Qdrant could not answer, where FAISS stood in). `?by=` names who answers,
    by default Qdrant where there are filters."""
    by, trouble = request.args.get("by", "auto"), None
    if by == "qdrant" or (by != "faiss" and is_filtered(where)):
        try:
            return rank_by_qdrant(state, spec, vector, where), None
        except CoarselocError as error:
            trouble = str(error)
    return rank_by_faiss(state, spec, vector, where), trouble


def is_filtered(where: Where) -> bool:
    return where != Where(where.reference_sets)


def rank_by_qdrant(state: WebState, spec: StoredSpec, vector: Float32, where: Where) -> Ranking:
    store = state.vectors.store()
    return _rank(state.workspace.filtered_index(store, spec, where), vector, "qdrant", store.backend, None)


def rank_by_faiss(state: WebState, spec: StoredSpec, vector: Float32, where: Where) -> Ranking:
    """The mirrors of the sets that fit and are embedded by this spec are searched exactly as one, filters and all."""
    embedded = state.workspace.sets_embedded_by(spec, where)
    index = state.workspace.exact_index(embedded, spec, where, lambda stored: _mirror(state, stored, spec))
    return _rank(index, vector, "faiss", index.backend, index.count)


def _rank(
    index: TileIndex, vector: Float32, by: Literal["faiss", "qdrant"], backend: str, references: int | None
) -> Ranking:
    (hits,), search_ms = rank(vector[None], index, K)
    return Ranking(hits, by, backend, search_ms, references)


def _mirror(state: WebState, stored: StoredReferenceSet, spec: StoredSpec) -> Mirror:
    """Opened once for each state of the embeddings; those of earlier states are let go."""
    with state.database.read() as session:
        generation = gallery.generation(session)
    key = ("mirror", stored.uid, spec.id)
    return state.memory.recall(
        key, lambda: open_mirror(state.database, state.settings.mirrors, stored, spec), generation
    )
