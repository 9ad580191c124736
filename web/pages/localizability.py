"""How well the ground of a reference set tells where it is, place by place, for the pages' maps."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, request
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core import ids
from coarseloc.store import embeddings
from coarseloc.store.references import StoredReferenceSet
from search.localizability import Exclusion
from search.measured_ground import MeasuredGround, read_ground
from web.language import _
from web.models import AnswerModel, json_response
from web.problems import Problem
from web.selection import stored_set
from web.state import WebState, current_state

routes = Blueprint("localizability", __name__)

PlaceFigures = tuple[float, float, float | None, float, float | None]


class GroundSummary(AnswerModel):
    """How much of a set's ground is recognised under one backbone."""

    backbone: str
    how: str = Field(description="input size and precision")
    excluded: Exclusion = Field(description="what may not answer a view")
    measured_at: datetime
    is_current: bool = Field(description="false: the set's embeddings have changed since")
    footprint_m: float
    stride_m: float
    ground_share: float = Field(description="of the ground that is right")
    median_error_m: float | None
    p90_error_m: float | None


class GroundLocalizability(GroundSummary):
    places: list[PlaceFigures] = Field(
        description="[lon, lat, expected error in metres, share of headings that are right, margin before the twin]"
    )


class LocalizabilityLayer(AnswerModel):
    """What was measured of a set's ground, a backbone after the other."""

    reference_set: str
    backbones: list[GroundLocalizability]


@routes.get("/references/<path:name>/localizability.json")
def places(name: str) -> AnyResponse:
    """What `coarseloc localizability` last measured of the set's places under each backbone."""
    state = current_state()
    stored = stored_set(state.database, ids.label(name))
    backbones = [
        GroundLocalizability(
            **_facts(ground, is_current),
            places=list(zip(ground.lon, ground.lat, ground.error_m, ground.right_share, ground.margin, strict=True)),
        )
        for ground, is_current in _grounds(state, stored)
    ]
    if not backbones:
        command = f"coarseloc localizability {name}"
        raise Problem(404, _("The localizability of this set was not measured: run {command}.", command=command))
    response = json_response(LocalizabilityLayer(reference_set=stored.name, backbones=backbones))
    response.add_etag()
    return response.make_conditional(request)


def ground_summaries(state: WebState, stored: StoredReferenceSet) -> list[GroundSummary]:
    """What was measured of a set, small backbones first."""
    return [GroundSummary(**_facts(ground, is_current)) for ground, is_current in _grounds(state, stored)]


def _grounds(state: WebState, stored: StoredReferenceSet) -> list[tuple[MeasuredGround, bool]]:
    with state.database.read() as session:
        specs = embeddings.specs(session, stored.id)
    specs.sort(key=lambda spec: (state.backbone_order(spec.backbone), spec.id))
    return read_ground(state.database, state.settings.localizability, stored, specs)


def _facts(ground: MeasuredGround, is_current: bool) -> dict[str, Any]:
    fields = set(GroundSummary.model_fields) - {"is_current"}
    return {**ground.model_dump(include=fields), "is_current": is_current}
