"""The reference sets: what there is by heading, what is embedded, what is pending, and what could not be read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Blueprint

from coarseloc.core.types import Failure
from coarseloc.store import embeddings, gallery, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.gallery import Coverage
from coarseloc.store.references import StoredReferenceSet
from web.pages import page
from web.pages.map import map_frame
from web.state import Gallery, the_gallery

FAILURES_SHOWN = 100  # of each set; the command line lists them all

routes = Blueprint("references", __name__)


@page(routes, "/references", "references")
def references_page() -> dict[str, Any]:
    here = the_gallery()
    with here.database.read() as session:
        sets = references.reference_sets(session)
        specs = embeddings.specs(session)
        pending = embeddings.pending_counts(session)
        failures = references.failures(session)
    return {
        "sets": [
            _set(here, one, specs, _coverage(here, one), [f for name, f in failures if name == one.name])
            for one in sets
        ],
        "pending": [
            {"backbone": spec.backbone, "input_px": spec.input_px, "count": pending[spec.collection]}
            for spec in specs
            if spec.collection in pending
        ],
        "trouble": here.vectors.trouble,
    }


def _coverage(here: Gallery, one: StoredReferenceSet) -> Coverage:
    return here.until_written(("coverage", one.id, one.created_at), lambda session: gallery.coverage(session, one.id))


def _set(
    here: Gallery, one: StoredReferenceSet, specs: list[StoredSpec], found: Coverage, failures: list[Failure]
) -> dict[str, Any]:
    facts = one.reference_set
    angles = sorted({*facts.angles, *found.views})
    rows = [
        {
            "backbone": spec.backbone,
            "input_px": spec.input_px,
            "precision": spec.precision,
            "dim": spec.dim,
            "counts": [found.embedded[spec.id].get(angle, 0) for angle in angles],
        }
        for spec in sorted(specs, key=lambda spec: (here.place(spec.backbone), spec.id))
        if spec.id in found.embedded
    ]
    kinds = Counter(failure.kind for failure in failures)
    return {
        "name": one.name,
        "kind": facts.kind,
        "source": facts.source.rstrip("/").rsplit("/", 1)[-1],
        "altitude_m": facts.altitude_m,
        "overlap": facts.overlap,
        "footprint_m": facts.footprint_m,
        "created_at": one.created_at.strftime("%Y-%m-%d %H:%M"),
        "tiles": found.tiles,
        "rotated_tiles": sum(found.views.values()),
        "angles": angles,
        "views": [found.views.get(angle, 0) for angle in angles],
        "embedded": rows,
        "failures": len(failures),
        "failure_kinds": dict(kinds.most_common()),
        "failures_shown": [
            {"item": failure.item, "stage": failure.stage, "kind": failure.kind, "message": failure.message}
            for failure in failures[:FAILURES_SHOWN]
        ],
        "map": map_frame(here, one),
    }
