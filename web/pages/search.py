"""Where is this image? One query, one backbone, facets; answered exactly by FAISS or filtered by Qdrant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import Any

from flask import Blueprint, jsonify, redirect, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core.errors import CoarselocError
from coarseloc.core.filters import Where, percent
from coarseloc.core.types import Estimate, Float32, RankedTile, UInt8
from coarseloc.imagery.decode import read_image
from coarseloc.localize.localizer import TileIndex, rank
from coarseloc.localize.places import best_place
from coarseloc.store import embeddings, flights, gallery, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search.mirror import Mirror, open_mirror
from web.language import _
from web.pages import address, page
from web.pages.frame import estimate_view, hit_view, share_scale
from web.pages.images import decode_upload, find_upload, frame_url, read_upload, save_upload, tile_url
from web.pages.map import map_frame
from web.problems import Problem, names_html
from web.safety import MAX_UPLOAD_BYTES, timed
from web.state import Embedded, Gallery, the_gallery

routes = Blueprint("search", __name__)

_QUERY = ("image", "flight", "frame")
_BESIDE = (*_QUERY, "model", "by", "lang", "theme", "words")  # what the address may say beside its filters


K = 10  # tiles shown


@dataclass(frozen=True, slots=True)
class Query:
    """The image that is looked for: an upload, or a frame."""

    name: str
    image: str  # its address, which names its content
    facts: Mapping[str, Any]
    pixels: Callable[[], UInt8]  # decoded when asked for: [H, W, 3]


@routes.post("/search")
def send() -> AnyResponse:
    """Take an image in, and go to the page that looks for it; the facets chosen so far stay."""
    here = the_gallery()
    form = given(request.form)
    where = Where.parse(form, beside=_BESIDE)
    sent = request.files.get("image")
    name = save_upload(here.uploads, sent.read() if sent else b"")
    chosen = {key: form[key] for key in _BESIDE if key in form and key not in _QUERY}
    found_at = address("search.search", {}, {**where.to_texts(), **chosen, "image": name})
    if names_html():
        return redirect(found_at, 303)
    answer = jsonify(image=name, url=found_at)
    answer.status_code, answer.headers["Location"] = 201, found_at
    return answer


@page(routes, "/search", "search")
def search_page() -> dict[str, Any]:
    """The facets with their counts, and, once there is an image, its ten best references."""
    here = the_gallery()
    with here.database.read() as session:
        sets = references.reference_sets(session)
        specs = embeddings.specs(session)
    where = where_of_address(sets, _BESIDE)
    of_tiles = replace(where, reference_sets=(), angles=(), altitude_m=None, overlap_pct=None)  # the rest is counted
    counts = here.until_written(("views", of_tiles), lambda session: gallery.views_by_set_and_angle(session, of_tiles))
    specs.sort(key=lambda spec: (here.place(spec.backbone), spec.id))
    models = [_model(here, spec, specs) for spec in specs]
    spec = _chosen_spec(here, specs)
    query = _query(here)
    values: dict[str, Any] = {
        "query": query and {"name": query.name, "image": query.image, **query.facts},
        "models": models,
        "model": spec and _key(spec, specs),
        "facets": facets(sets, counts, where),
        "where": where.to_json(),
        "by": request.args.get("by", "auto"),
        "map": _map(here, sets, where),
        "trouble": here.vectors.trouble,
        "max_upload": MAX_UPLOAD_BYTES,
        "answer": None,
        "problem": None,
    }
    if query and spec:
        try:
            values["answer"], trouble = _answer(here, query, spec, sets, where)
            values["trouble"] = trouble or values["trouble"]
        except CoarselocError as error:  # the facets stay, so that another backbone can be chosen
            values["problem"] = str(error)
    elif spec:
        here.encoders.warm(spec.embedding_spec)  # while the reader looks for an image
    return values


# --- what is asked ------------------------------------------------------------------------------


def _query(here: Gallery) -> Query | None:
    if name := request.args.get("image"):
        find_upload(here.uploads, name)
        image = url_for("images.upload", name=name)
        facts: dict[str, Any] = {"image_id": name, "image_full": f"{image}?size=full"}
        return Query(_("Your image"), image, facts, lambda: decode_upload(read_upload(here.uploads, name)))
    flight_id, index = request.args.get("flight"), request.args.get("frame", None, int)
    if flight_id is None or index is None:
        return None
    with here.database.read() as session:
        known = flight_id in flights.flight_ids(session)
        frames = flights.find_flight(session, flight_id).flight.frames if known else ()
    for frame in frames:
        if frame.index == index:
            facts = {"flight": flight_id, "frame": index, "image_full": frame_url(flight_id, frame, "full")}
            title = _("Frame {n} of flight {flight}", n=index, flight=flight_id)
            return Query(title, frame_url(flight_id, frame, "view"), facts, partial(read_image, frame.path))
    raise Problem(404, _("There is no frame {index} in flight {name}.", index=index, name=flight_id))


def _chosen_spec(here: Gallery, specs: Sequence[StoredSpec]) -> StoredSpec | None:
    """The spec that `?model=` names, else the smallest that can embed here, so that a first search is quick."""
    wanted = request.args.get("model")
    by_key = {_key(spec, specs): spec for spec in specs}
    if wanted in by_key:
        return by_key[wanted]
    able = [spec for spec in specs if here.encoders.missing(spec.embedding_spec) is None]
    return able[0] if able else specs[0] if specs else None


def _key(spec: StoredSpec, specs: Sequence[StoredSpec]) -> str:
    name = spec.backbone
    return name if sum(one.backbone == name for one in specs) == 1 else f"{name}~{spec.digest[:8]}"


def _model(here: Gallery, spec: StoredSpec, specs: Sequence[StoredSpec]) -> dict[str, Any]:
    row = here.backbones.get(spec.backbone)
    return {
        "key": _key(spec, specs),
        "backbone": spec.backbone,
        "params_m": row.params_m if row else None,
        "dim": spec.dim,
        "input_px": spec.input_px,
        "precision": spec.precision,
        "missing": here.encoders.missing(spec.embedding_spec),
    }


def _map(here: Gallery, sets: Sequence[StoredReferenceSet], where: Where) -> dict[str, Any] | None:
    """The ground of the set asked for, or of the largest that fits."""
    fitting = fitting_sets(sets, where)
    return map_frame(here, fitting[0]) if fitting else None


# --- the answer ---------------------------------------------------------------------------------


def _answer(
    here: Gallery, query: Query, spec: StoredSpec, sets: Sequence[StoredReferenceSet], where: Where
) -> tuple[dict[str, Any], str | None]:
    """The answer, and why Qdrant could not give it where FAISS stood in."""
    embedded, kept = _embedded(here, query, spec)
    wanted = request.args.get("by", "auto")
    filtered = where != Where(where.reference_sets)
    found, trouble = None, None
    if wanted == "qdrant" or (wanted != "faiss" and filtered):
        try:
            found = by_qdrant(here, spec, embedded.vector, where)
        except CoarselocError as error:
            trouble = str(error)
    if found is None:
        found = by_faiss(here, spec, embedded.vector, fitting_sets(sets, where), where)
    timed("embed", embedded.embed_ms)
    timed("search", found.search_ms)
    return {
        "by": found.by,
        "backend": found.backend,
        "filtered": filtered,
        "stood_in": trouble is not None,
        "references": found.references,
        "timing": {
            "load_ms": 0.0 if kept else embedded.load_ms,
            "embed_ms": embedded.embed_ms,
            "embedded_before": kept,
            "search_ms": found.search_ms,
            "total_ms": embedded.embed_ms + found.search_ms,
        },
        **answer_view(found),
    }, trouble


def _embedded(here: Gallery, query: Query, spec: StoredSpec) -> tuple[Embedded, bool]:
    """The query's embedding and whether it was made for an earlier question: facets change, the vector does not."""
    fresh = []

    def make() -> Embedded:
        fresh.append(True)
        return here.encoders.embed(spec.embedding_spec, query.pixels())

    embedded = here.memory.recall(("vector", query.image, spec.digest), make)
    return embedded, not fresh


# --- facets -------------------------------------------------------------------------------------


def where_of_address(sets: Sequence[StoredReferenceSet], beside: Collection[str]) -> Where:
    """The filters of the address, whose other keys may be those `beside`. Raises InputError for what they cannot be,
    Problem 404 for an unknown set."""
    where = Where.parse(given(request.args), beside=beside)
    for name in where.reference_sets:
        if all(name != one.name for one in sets):
            raise Problem(404, _("There is no reference set {name}.", name=name))
    return where


def given(texts: MultiDict[str, str]) -> dict[str, list[str]]:
    """Every text of a query or a form; a field that was left blank is none."""
    lists = {name: [text for text in values if text] for name, values in texts.lists()}
    return {name: values for name, values in lists.items() if values}


def facets(
    sets: Sequence[StoredReferenceSet], counts: Mapping[tuple[int, int], int], where: Where
) -> dict[str, list[dict[str, Any]]]:
    """Of each facet its values, each with how many references it would leave, all other facets as they are."""

    def count(asked: Where) -> int:
        fitting = {one.id for one in fitting_sets(sets, asked)}
        among = asked.angles or {angle for _set, angle in counts}
        return sum(n for (of_set, angle), n in counts.items() if of_set in fitting and angle in among)

    def value(of: Any, asked: Where, on: bool) -> dict[str, Any]:
        return {"value": of, "count": count(asked), "on": on}

    angles = sorted({angle for _set, angle in counts})
    altitudes = sorted({one.reference_set.altitude_m for one in sets if one.reference_set.altitude_m is not None})
    overlaps = sorted({percent(one.reference_set.overlap) for one in sets})
    return {
        "set": [
            value(one.name, replace(where, reference_sets=(one.name,)), one.name in where.reference_sets)
            for one in sets
        ],
        "angle": [value(angle, replace(where, angles=(angle,)), angle in where.angles) for angle in angles],
        "altitude": [value(at, replace(where, altitude_m=(at, at)), where.altitude_m == (at, at)) for at in altitudes],
        "overlap": [value(at, replace(where, overlap_pct=at), where.overlap_pct == at) for at in overlaps],
        "matching": [value("matching", where, True)],
    }


def fitting_sets(sets: Sequence[StoredReferenceSet], where: Where) -> list[StoredReferenceSet]:
    """The sets that may answer as a whole; headings and places are asked of their tiles."""
    return list(compress(sets, where.admits([one.reference_set for one in sets])))


# --- who answers --------------------------------------------------------------------------------


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
    return _rank(here.workspace.filtered_index(store, spec, where), vector, "qdrant", store.backend, None)


def by_faiss(
    here: Gallery, spec: StoredSpec, vector: Float32, sets: Sequence[StoredReferenceSet], where: Where
) -> LookupAnswer:
    """The mirrors of the sets that fit and are embedded by this spec are searched exactly as one, filters and all."""
    with here.database.read() as session:
        embedded = [one for one in sets if any(held.id == spec.id for held in embeddings.specs(session, one.id))]
    index = here.workspace.exact_index(embedded, spec, where, lambda one: _mirror(here, one, spec))
    return _rank(index, vector, "faiss", index.backend, index.count)


def _rank(index: TileIndex, vector: Float32, by: str, backend: str, references: int | None) -> LookupAnswer:
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
