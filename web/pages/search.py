"""Where is this image? One query, one backbone, facets; answered exactly by FAISS or filtered by Qdrant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flask import Blueprint, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core.errors import CoarselocError
from coarseloc.core.filters import Where
from coarseloc.core.types import UInt8
from coarseloc.imagery.decode import read_image
from coarseloc.store import embeddings, flights, gallery, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from web import uploads
from web.answers import answer_view, by_faiss, by_qdrant
from web.encoders import Embedded
from web.facets import facets, fitting_sets, given, where_of_address
from web.language import _
from web.pages import address, page
from web.pages.images import frame_url
from web.pages.map import map_frame
from web.problems import Problem, names_html
from web.safety import MAX_UPLOAD_BYTES, timed
from web.state import Gallery, the_gallery

routes = Blueprint("search", __name__)

_QUERY = ("image", "flight", "frame")
_BESIDE = (*_QUERY, "model", "by", "lang", "theme", "words")  # what the address may say beside its filters


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
    name = uploads.save(here.uploads, sent.read() if sent else b"")
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
        uploads.find(here.uploads, name)
        image = url_for("images.upload", name=name)
        facts: dict[str, Any] = {"image_id": name, "image_full": f"{image}?size=full"}
        return Query(_("Your image"), image, facts, lambda: uploads.decode(uploads.read(here.uploads, name)))
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
