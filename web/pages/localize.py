"""`POST /localize`: one image in, one JSON out, for programs. Nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Blueprint, request
from pydantic import Field

from coarseloc.core.filters import WhereJson
from coarseloc.core.types import UInt8
from coarseloc.localize.places import best_place
from coarseloc.store import embeddings, references
from search.export.infos import hit_result, to_hit
from search.export.records import Result
from web.language import _
from web.lookups import K, chosen_spec, long_key, rank_query, where_of_address
from web.models import AnswerModel, EstimateView, estimate_view
from web.pages import as_json
from web.pages.images import decoded_upload
from web.problems import Problem
from web.safety import add_timing
from web.state import current_state

_BESIDE = ("model", "by", "lang")

routes = Blueprint("localize", __name__)


class LocalizationTiming(AnswerModel):
    """Milliseconds; `total_ms` is embed + search, as in every record."""

    decode_ms: float = Field(ge=0)
    load_ms: float = Field(ge=0, description="loading the model, where it was not; in no other time")
    embed_ms: float = Field(ge=0)
    search_ms: float = Field(ge=0)
    total_ms: float = Field(ge=0)


class ImageLocalization(AnswerModel):
    """Where an image was taken, by one backbone: the best place, and the tiles that it is told from."""

    backbone: str
    input_px: int
    precision: str
    backend: str = Field(description='what ranked the references, such as "faiss-cpu"')
    stood_in: str | None = Field(description="why FAISS answered what Qdrant was asked; null otherwise")
    where: WhereJson
    references: int | None = Field(description="how many were looked at, where that is known")
    estimate: EstimateView | None = Field(description="null where no reference matches")
    hits: list[Result] = Field(description="best first, ten at most")
    timing_ms: LocalizationTiming


@routes.post("/localize")
@as_json
def localize() -> ImageLocalization:
    """The image is the request's body, or the part `image` of a form; filters and `model` are in the address."""
    state = current_state()
    with state.database.read() as session:
        sets = references.reference_sets(session)
        specs = embeddings.specs(session)
    where = where_of_address(sets, _BESIDE)
    key = request.args.get("model")
    spec = chosen_spec(state, specs, key)
    if spec is None:
        raise Problem(404, _("There are no embeddings yet: ingest references first."))
    if key is not None and key not in (spec.backbone, long_key(spec)):
        raise Problem(404, _("There is no backbone {name}.", name=key))
    if state.encoders.missing(spec.embedding_spec) is not None:
        raise Problem(409, _("The weights of {backbone} are not on this server.", backbone=spec.backbone))
    upload = request.files.get("image")
    body = upload.read() if upload else request.get_data()
    if not body:
        raise Problem(400, _("No image was sent."))
    decode_ms = 0.0

    @contextmanager
    def decoded() -> Iterator[UInt8]:  # when it is this image's turn: those that wait hold no pixels
        nonlocal decode_ms
        started = time.perf_counter()
        with decoded_upload(body) as pixels:
            decode_ms = (time.perf_counter() - started) * 1e3
            yield pixels

    embedded = state.encoders.embed(spec.embedding_spec, decoded)
    ranking, trouble = rank_query(state, spec, embedded.vector, where)
    add_timing("decode", decode_ms)
    add_timing("embed", embedded.embed_ms)
    add_timing("search", ranking.search_ms)
    estimate = best_place(ranking.hits)
    return ImageLocalization(
        backbone=spec.backbone,
        input_px=spec.input_px,
        precision=spec.precision,
        backend=ranking.backend,
        stood_in=trouble,
        where=where.to_json(),
        references=ranking.references,
        estimate=estimate_view(estimate) if estimate else None,
        hits=[hit_result(to_hit(hit, state.settings.thumbnails)) for hit in ranking.hits[:K]],
        timing_ms=LocalizationTiming(
            decode_ms=decode_ms,
            load_ms=embedded.load_ms,
            embed_ms=embedded.embed_ms,
            search_ms=ranking.search_ms,
            total_ms=embedded.embed_ms + ranking.search_ms,
        ),
    )
