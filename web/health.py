"""`/healthz`: the process answers. `/readyz`: what it stands on, part by part; degraded is not dead."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from coarseloc.core.errors import CoarselocError
from coarseloc.store import embeddings
from coarseloc.store.session import head_revision
from web.state import Gallery, the_gallery

routes = Blueprint("health", __name__)


@routes.get("/healthz")
def healthz() -> Response:
    return jsonify(status="ok")


@routes.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 while pages can be shown (`ready` or `degraded`), 503 where the database cannot be used."""
    here = the_gallery()
    checks = {"database": _database(here)}
    dead = checks["database"]["status"] == "down"
    if not dead:
        checks |= {"vectors": _vectors(here), "mirrors": _mirrors(here), "models": _models(here)}
    worst = "down" if dead else "degraded" if any(c["status"] != "ok" for c in checks.values()) else "ready"
    return jsonify(status=worst, checks=checks), 503 if dead else 200


def _database(here: Gallery) -> dict[str, Any]:
    try:
        found, head = here.database.revision(), head_revision()
    except CoarselocError as error:
        return {"status": "down", "detail": str(error)}
    if found != head:
        return {"status": "down", "detail": f"schema is at {found}, this version needs {head}: run `coarseloc migrate`"}
    return {"status": "ok", "revision": found}


def _vectors(here: Gallery) -> dict[str, Any]:
    """The vector store: whether it can be had, and how far it is behind."""
    with here.database.read() as session:
        behind = sum(embeddings.pending_counts(session).values())
    if here.vectors.trouble:
        return {"status": "degraded", "detail": here.vectors.trouble, "pending": behind}
    return {"status": "degraded" if behind else "ok", "pending": behind}


def _mirrors(here: Gallery) -> dict[str, Any]:
    """FAISS's mirrors on disk. One that is missing is no fault: the first search builds it."""
    return {"status": "ok", "built": len(list(here.settings.mirrors.glob("*/*/schema.json")))}


def _models(here: Gallery) -> dict[str, Any]:
    """Backbones that references are embedded with; search by upload needs the weights of one at least."""
    with here.database.read() as session:
        specs = [stored.embedding_spec for stored in embeddings.specs(session)]
    able = sorted({spec.backbone for spec in specs if here.encoders.missing(spec) is None})
    lacking = sorted({spec.backbone for spec in specs} - set(able))
    return {
        "status": "degraded" if specs and not able else "ok",
        "loaded": here.encoders.loaded(),
        "able": able,
        "without_weights": lacking,
    }
