"""Search for one image with one backbone and facets: exactly by FAISS, or filtered by Qdrant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from flask import Blueprint, redirect, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core.errors import CoarselocError
from coarseloc.core.filters import Where, WhereJson, percent
from coarseloc.core.types import UInt8
from coarseloc.localize.places import best_place
from coarseloc.store import embeddings, flights, gallery, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from web.language import _
from web.lookups import K, chosen_spec, filled_fields, is_filtered, rank_query, spec_key, where_of_address
from web.models import AnswerModel, EstimateView, GroundMap, HitView, Url, estimate_view, hit_views, json_response
from web.pages import address, page
from web.pages.images import decoded_file, decoded_upload, find_upload, frame_url, read_upload, save_upload, tile_url
from web.pages.map import ground_map
from web.problems import Problem, accepts_html, without_folders
from web.safety import MAX_UPLOAD_BYTES, add_timing
from web.state import EmbeddedQuery, WebState, current_state

_QUERY = ("image", "flight", "frame")
_BESIDE = (*_QUERY, "model", "by", "layer", "lang", "theme", "words")  # what the address may say beside its filters

routes = Blueprint("search", __name__)


class UploadReceipt(AnswerModel):
    """An image that was taken in: its id, and the page that looks for it. `/search.json` answers the same query."""

    image: str = Field(pattern="^[0-9a-f]{32}$")
    url: str = Url


class UploadedImage(AnswerModel):
    name: str
    image: str = Url
    image_id: str
    image_full: str = Url


class FlightImage(AnswerModel):
    name: str
    image: str = Url
    flight: str
    frame: int
    image_full: str = Url


class SearchBackbone(AnswerModel):
    key: str
    backbone: str
    params_m: int | float | None
    dim: int
    input_px: int
    precision: str
    missing: str | None = Field(description="why it cannot embed here and what to do; null where it can")


class FacetValue(AnswerModel):
    value: str | int | float
    count: int = Field(ge=0, description="references it would leave, all other facets as they are")
    on: bool


class Facets(AnswerModel):
    set: list[FacetValue]
    angle: list[FacetValue]
    altitude: list[FacetValue]
    overlap: list[FacetValue]
    matching: list[FacetValue]


class LookupTiming(AnswerModel):
    """Milliseconds; `total_ms` is embed + search."""

    load_ms: float = Field(ge=0, description="loading the model, where it was not")
    embed_ms: float = Field(ge=0)
    embedded_before: bool
    search_ms: float = Field(ge=0)
    total_ms: float = Field(ge=0)


class LookupAnswer(AnswerModel):
    by: Literal["faiss", "qdrant"]
    backend: str
    filtered: bool
    stood_in: bool = Field(description="FAISS answered what Qdrant could not")
    references: int | None = Field(description="how many were looked at, where that is known")
    timing: LookupTiming
    hits: list[HitView] = Field(description="best first, ten at most")
    estimate: EstimateView | None


class SearchPage(AnswerModel):
    """The facets with their counts and, once an image is named, its ten best references."""

    query: UploadedImage | FlightImage | None
    models: list[SearchBackbone]
    model: str | None
    facets: Facets
    where: WhereJson
    by: str
    map: GroundMap | None
    trouble: str | None = Field(description="why the vector store cannot be had")
    max_upload: int = Field(description="bytes")
    answer: LookupAnswer | None
    problem: str | None = Field(description="why there is no answer")


@dataclass(frozen=True, slots=True)
class SearchedImage:
    """The image that is looked for: an upload, or a frame."""

    view: UploadedImage | FlightImage
    pixels: Callable[[], AbstractContextManager[UInt8]]  # decoded while it is open: [H, W, 3]


@routes.post("/search")
def send() -> AnyResponse:
    """Take an image in, and go to the page that looks for it; the facets chosen so far stay."""
    form = filled_fields(request.form)
    where = Where.parse(form, beside=_BESIDE)
    upload = request.files.get("image")
    name = save_upload(current_state().uploads, upload.read() if upload else b"")
    choices = {key: form[key] for key in _BESIDE if key in form and key not in _QUERY}
    page_url = address("search.search", {}, {**where.to_texts(), **choices, "image": name})
    if accepts_html():
        return redirect(page_url, 303)
    response = json_response(UploadReceipt(image=name, url=page_url))
    response.status_code, response.headers["Location"] = 201, page_url
    return response


@page(routes, "/search", "search")
def search_page() -> SearchPage:
    """The facets with their counts, and, once there is an image, its ten best references."""
    state = current_state()
    with state.database.read() as session:
        sets = references.reference_sets(session)
        specs = embeddings.specs(session)
    where = where_of_address(sets, _BESIDE)
    of_tiles = replace(where, reference_sets=(), angles=(), altitude_m=None, overlap_pct=None)  # the rest is counted
    counts = state.remember_until_write(
        ("views", of_tiles), lambda session: gallery.views_by_set_and_angle(session, of_tiles)
    )
    specs.sort(key=lambda spec: (state.backbone_order(spec.backbone), spec.id))
    backbones = [_backbone(state, spec, specs) for spec in specs]
    spec = chosen_spec(state, specs, request.args.get("model"))
    query = _query(state)
    store_trouble = state.vectors.trouble
    answer, trouble, problem = None, None, None
    if query and spec:
        try:
            answer, trouble = _answer(state, query, spec, where)
        except CoarselocError as error:  # the facets stay, so that another backbone can be chosen
            problem = without_folders(str(error))
    elif spec:
        state.encoders.warm(spec.embedding_spec)  # while the reader looks for an image
    fitting = references.fitting_sets(sets, where)
    return SearchPage(
        query=query.view if query else None,
        models=backbones,
        model=spec_key(spec, specs) if spec else None,
        facets=facets(sets, counts, where),
        where=where.to_json(),
        by=request.args.get("by", "auto"),
        map=ground_map(state, fitting),
        trouble=None if (trouble := trouble or store_trouble) is None else without_folders(trouble),
        max_upload=MAX_UPLOAD_BYTES,
        answer=answer,
        problem=problem,
    )


# --- the query ----------------------------------------------------------------------------------


def _query(state: WebState) -> SearchedImage | None:
    if name := request.args.get("image"):
        find_upload(state.uploads, name)
        url = url_for("images.upload", name=name)
        view = UploadedImage(name=_("Your image"), image=url, image_id=name, image_full=f"{url}?size=full")
        return SearchedImage(view, lambda: decoded_upload(read_upload(state.uploads, name)))
    flight_id, index = request.args.get("flight"), request.args.get("frame", None, int)
    if flight_id is None or index is None:
        return None
    with state.database.read() as session:
        is_stored = flight_id in flights.flight_ids(session)
        frames = flights.find_flight(session, flight_id).flight.frames if is_stored else ()
    for frame in frames:
        if frame.index == index:
            image = FlightImage(
                name=_("Frame {n} of flight {flight}", n=index, flight=flight_id),
                image=frame_url(flight_id, frame, "view"),
                flight=flight_id,
                frame=index,
                image_full=frame_url(flight_id, frame, "full"),
            )
            return SearchedImage(image, partial(decoded_file, frame.path))
    raise Problem(404, _("There is no frame {index} in flight {name}.", index=index, name=flight_id))


def _backbone(state: WebState, spec: StoredSpec, specs: Sequence[StoredSpec]) -> SearchBackbone:
    row = state.backbones.get(spec.backbone)
    return SearchBackbone(
        key=spec_key(spec, specs),
        backbone=spec.backbone,
        params_m=row.params_m if row else None,
        dim=spec.dim,
        input_px=spec.input_px,
        precision=spec.precision,
        missing=(missing := state.encoders.missing(spec.embedding_spec)) and without_folders(missing),
    )


# --- facets -------------------------------------------------------------------------------------


def facets(sets: Sequence[StoredReferenceSet], counts: Mapping[tuple[int, int], int], where: Where) -> Facets:
    """Of each facet its values, each with how many references it would leave, all other facets as they are."""

    def value(of: Any, condition: Where, on: bool) -> FacetValue:
        fitting = {stored.id for stored in references.fitting_sets(sets, condition)}
        among = condition.angles or {angle for _set, angle in counts}
        count = sum(n for (of_set, angle), n in counts.items() if of_set in fitting and angle in among)
        return FacetValue(value=of, count=count, on=on)

    angles = sorted({angle for _set, angle in counts})
    altitudes = sorted({a for stored in sets if (a := stored.reference_set.altitude_m) is not None})
    overlaps = sorted({percent(stored.reference_set.overlap) for stored in sets})
    return Facets(
        set=[
            value(stored.name, replace(where, reference_sets=(stored.name,)), stored.name in where.reference_sets)
            for stored in sets
        ],
        angle=[value(angle, replace(where, angles=(angle,)), angle in where.angles) for angle in angles],
        altitude=[value(at, replace(where, altitude_m=(at, at)), where.altitude_m == (at, at)) for at in altitudes],
        overlap=[value(at, replace(where, overlap_pct=at), where.overlap_pct == at) for at in overlaps],
        matching=[value("matching", where, True)],
    )


# --- the answer ---------------------------------------------------------------------------------


def _answer(state: WebState, query: SearchedImage, spec: StoredSpec, where: Where) -> tuple[LookupAnswer, str | None]:
    """The answer, and why Qdrant could not give it where FAISS stood in."""
    embedded, embedded_before = _embed(state, query, spec)
    ranking, trouble = rank_query(state, spec, embedded.vector, where)
    add_timing("embed", embedded.embed_ms)
    add_timing("search", ranking.search_ms)
    (hits,) = hit_views([ranking.hits[:K]], None, tile_url, state.settings.thumbnails)
    estimate = best_place(ranking.hits)
    return LookupAnswer(
        by=ranking.by,
        backend=ranking.backend,
        filtered=is_filtered(where),
        stood_in=trouble is not None,
        references=ranking.references,
        timing=LookupTiming(
            load_ms=0.0 if embedded_before else embedded.load_ms,
            embed_ms=embedded.embed_ms,
            embedded_before=embedded_before,
            search_ms=ranking.search_ms,
            total_ms=embedded.embed_ms + ranking.search_ms,
        ),
        hits=hits,
        estimate=estimate_view(estimate) if estimate else None,
    ), trouble


def _embed(state: WebState, query: SearchedImage, spec: StoredSpec) -> tuple[EmbeddedQuery, bool]:
    """The query's embedding and whether it was made for an earlier question: facets change, the vector does not."""
    fresh = []

    def make() -> EmbeddedQuery:
        fresh.append(True)
        return state.encoders.embed(spec.embedding_spec, query.pixels)

    embedded = state.memory.recall(("vector", query.view.image, spec.digest), make)
    return embedded, not fresh
