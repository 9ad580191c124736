"""Show the reference sets: tiles by heading, embeddings, pending vectors, and files that could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flask import Blueprint
from pydantic import Field

from coarseloc.core.types import Failure
from coarseloc.store import embeddings, gallery, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.gallery import Coverage
from coarseloc.store.references import StoredReferenceSet
from web.models import AnswerModel, GroundMap
from web.pages import page
from web.pages.localizability import GroundSummary, ground_summaries
from web.pages.map import ground_map
from web.state import WebState, current_state

FAILURES_SHOWN = 100  # of each set; the command line lists them all

routes = Blueprint("references", __name__)


class EmbeddingCounts(AnswerModel):
    backbone: str
    input_px: int
    precision: str
    dim: int
    counts: list[int] = Field(description="by angle")


class FailureView(AnswerModel):
    item: str
    stage: str
    kind: str
    message: str


class ReferenceSetView(AnswerModel):
    name: str
    kind: str
    source: str
    altitude_m: float | None
    overlap: float = Field(ge=0, lt=1)
    footprint_m: float | None
    created_at: str
    tiles: int
    rotated_tiles: int
    angles: list[int]
    views: list[int] = Field(description="by angle")
    embedded: list[EmbeddingCounts]
    failures: int
    failure_kinds: dict[str, int]
    failures_shown: list[FailureView]
    map: GroundMap | None
    localizability: list[GroundSummary] = Field(description="of each backbone that it was measured under")


class PendingEmbeddings(AnswerModel):
    backbone: str
    input_px: int
    count: int = Field(ge=1)


class ReferencesPage(AnswerModel):
    """The reference sets: what there is, what is embedded, what the vector store has still to take."""

    sets: list[ReferenceSetView]
    pending: list[PendingEmbeddings]
    trouble: str | None


@page(routes, "/references", "references")
def references_page() -> ReferencesPage:
    state = current_state()
    with state.database.read() as session:
        sets = references.reference_sets(session)
        specs = embeddings.specs(session)
        pending = embeddings.pending_counts(session)
        failures = references.failures(session)
    return ReferencesPage(
        sets=[
            _set_view(state, stored, specs, [failure for name, failure in failures if name == stored.name])
            for stored in sets
        ],
        pending=[
            PendingEmbeddings(backbone=spec.backbone, input_px=spec.input_px, count=pending[spec.collection])
            for spec in specs
            if spec.collection in pending
        ],
        trouble=state.vectors.trouble,
    )


def _set_view(
    state: WebState, stored: StoredReferenceSet, specs: Sequence[StoredSpec], failures: Sequence[Failure]
) -> ReferenceSetView:
    facts = stored.reference_set
    coverage = state.remember_until_write(
        ("coverage", stored.id, stored.created_at), lambda session: gallery.coverage(session, stored.id)
    )
    angles = sorted({*facts.angles, *coverage.views})
    return ReferenceSetView(
        name=stored.name,
        kind=facts.kind,
        source=facts.source.rstrip("/").rsplit("/", 1)[-1],
        altitude_m=facts.altitude_m,
        overlap=facts.overlap,
        footprint_m=facts.footprint_m,
        created_at=stored.created_at.strftime("%Y-%m-%d %H:%M"),
        tiles=coverage.tiles,
        rotated_tiles=sum(coverage.views.values()),
        angles=angles,
        views=[coverage.views.get(angle, 0) for angle in angles],
        embedded=_embedding_counts(state, coverage, specs, angles),
        failures=len(failures),
        failure_kinds=dict(Counter(failure.kind for failure in failures).most_common()),
        failures_shown=[
            FailureView(item=failure.item, stage=failure.stage, kind=failure.kind, message=failure.message)
            for failure in failures[:FAILURES_SHOWN]
        ],
        map=ground_map(state, [stored]),
        localizability=ground_summaries(state, stored),
    )


def _embedding_counts(
    state: WebState, coverage: Coverage, specs: Sequence[StoredSpec], angles: Sequence[int]
) -> list[EmbeddingCounts]:
    """A row for each backbone that something of the set is embedded with."""
    return [
        EmbeddingCounts(
            backbone=spec.backbone,
            input_px=spec.input_px,
            precision=spec.precision,
            dim=spec.dim,
            counts=[coverage.embedded[spec.id].get(angle, 0) for angle in angles],
        )
        for spec in sorted(specs, key=lambda spec: (state.backbone_order(spec.backbone), spec.id))
        if spec.id in coverage.embedded
    ]
