"""What an operator watches: `/healthz`, the process answers; `/readyz`, what it stands on, part by part (degraded is
not dead); `/metrics` in Prometheus' text form; and the access log, a line of JSON for each request."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from flask import Blueprint, Flask, Response, g, jsonify, request
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Sample
from prometheus_client.registry import Collector
from pydantic import Field

from coarseloc import __version__
from coarseloc.core.errors import CoarselocError
from coarseloc.core.files import RESERVE_BYTES
from coarseloc.store import embeddings
from coarseloc.store.session import head_revision
from web.models import AnswerModel
from web.pages import as_json
from web.problems import without_folders
from web.state import WebState, current_state

routes = Blueprint("health", __name__)
BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

_log = logging.getLogger("coarseloc.access")


class Liveness(AnswerModel):
    status: Literal["ok"]


class DatabaseCheck(AnswerModel):
    status: Literal["ok", "down"]
    revision: str | None = None
    detail: str | None = None


class VectorsCheck(AnswerModel):
    status: Literal["ok", "degraded"]
    detail: str | None = None
    pending: int = Field(ge=0)


class MirrorsCheck(AnswerModel):
    status: Literal["ok"]
    built: int = Field(ge=0)


class BackbonesCheck(AnswerModel):
    status: Literal["ok", "degraded"]
    loaded: list[str]
    able: list[str]
    without_weights: list[str]


class DiskCheck(AnswerModel):
    status: Literal["ok", "degraded"]
    free_bytes: int = Field(ge=0, description="where the data lies; below 128 MiB it is degraded")


class ReadinessChecks(AnswerModel):
    database: DatabaseCheck
    disk: DiskCheck | None = None
    vectors: VectorsCheck | None = None
    mirrors: MirrorsCheck | None = None
    models: BackbonesCheck | None = None


class Readiness(AnswerModel):
    """What the server stands on; degraded is not dead."""

    status: Literal["ready", "degraded", "down"]
    checks: ReadinessChecks


@routes.get("/healthz")
@as_json
def healthz() -> Liveness:
    return Liveness(status="ok")


@routes.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 while pages can be shown (`ready` or `degraded`), 503 where the database cannot be used."""
    readiness = _readiness(current_state())
    return jsonify(readiness.model_dump(mode="json", exclude_none=True)), 503 if readiness.status == "down" else 200


def _readiness(state: WebState) -> Readiness:
    database = _check_database(state)
    if database.status == "down":
        return Readiness(status="down", checks=ReadinessChecks(database=database))
    vectors, mirrors, models = _check_vectors(state), _check_mirrors(state), _check_backbones(state)
    disk = _check_disk(state)
    degraded = "degraded" in (vectors.status, models.status, disk.status)
    return Readiness(
        status="degraded" if degraded else "ready",
        checks=ReadinessChecks(database=database, disk=disk, vectors=vectors, mirrors=mirrors, models=models),
    )


def _check_database(state: WebState) -> DatabaseCheck:
    try:
        revision, head = state.database.revision(), head_revision()
    except CoarselocError as error:
        return DatabaseCheck(status="down", detail=without_folders(str(error)))
    if revision != head:
        detail = f"schema is at {revision}, this version needs {head}: run `coarseloc migrate`"
        return DatabaseCheck(status="down", detail=detail)
    return DatabaseCheck(status="ok", revision=revision)


def _check_disk(state: WebState) -> DiskCheck:
    free = shutil.disk_usage(state.settings.data_dir).free
    return DiskCheck(status="degraded" if free < RESERVE_BYTES else "ok", free_bytes=free)


def _check_vectors(state: WebState) -> VectorsCheck:
    """The vector store: whether it can be had, and how far it is behind."""
    with state.database.read() as session:
        pending = sum(embeddings.pending_counts(session).values())
    trouble = state.vectors.trouble and without_folders(state.vectors.trouble)
    return VectorsCheck(status="degraded" if trouble or pending else "ok", detail=trouble, pending=pending)


def _check_mirrors(state: WebState) -> MirrorsCheck:
    """FAISS's mirrors on disk. One that is missing is no fault: the first search builds it."""
    return MirrorsCheck(status="ok", built=len(list(state.settings.mirrors.glob("*/*/schema.json"))))


def _check_backbones(state: WebState) -> BackbonesCheck:
    """Backbones that references are embedded with; search by upload needs the weights of one at least."""
    with state.database.read() as session:
        specs = [stored.embedding_spec for stored in embeddings.specs(session)]
    able = sorted({spec.backbone for spec in specs if state.encoders.missing(spec) is None})
    return BackbonesCheck(
        status="degraded" if specs and not able else "ok",
        loaded=state.encoders.loaded(),
        able=able,
        without_weights=sorted({spec.backbone for spec in specs} - set(able)),
    )


# --- counts and times ---------------------------------------------------------------------------


class RequestCounts(Collector):
    """Answers of one application and their times. Labels are endpoints, never addresses: their number is fixed."""

    def __init__(self) -> None:
        self._answers = Counter(
            "coarseloc_requests", "Answers by endpoint and status.", ("endpoint", "status"), registry=None
        )
        self._seconds = Histogram(
            "coarseloc_request_seconds",
            "Time from a request's arrival in a thread to its answer's head.",
            ("endpoint",),
            buckets=BOUNDS_S,
            registry=None,
        )

    def add(self, endpoint: str, status: int, seconds: float) -> None:
        self._answers.labels(endpoint, status).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Without the times of creation, and with bounds written as `1`, which the library would write as `1.0`."""
        for metric in (*self._answers.collect(), *self._seconds.collect()):
            metric.samples = [_plain_bound(s) for s in metric.samples if not s.name.endswith("_created")]
            yield metric


def _plain_bound(sample: Sample) -> Sample:
    if sample.labels.get("le", "+Inf") == "+Inf":
        return sample
    return sample._replace(labels={**sample.labels, "le": f"{float(sample.labels['le']):g}"})


class StateGauges(Collector):
    """What the application stands on, looked at when it is asked for."""

    def __init__(self, state: WebState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        try:
            with state.database.read() as session:
                pending = sum(embeddings.pending_counts(session).values())
        except CoarselocError:
            yield GaugeMetricFamily("coarseloc_database_up", "1 where the database answers.", 0)
        else:
            yield GaugeMetricFamily("coarseloc_database_up", "1 where the database answers.", 1)
            yield GaugeMetricFamily("coarseloc_pending_embeddings", "What the vector store is behind by.", pending)
        store_up = int(state.vectors.trouble is None)
        yield GaugeMetricFamily("coarseloc_vector_store_up", "0 where filtered search cannot be had.", store_up)
        yield GaugeMetricFamily("coarseloc_models_loaded", "Backbones in memory.", len(state.encoders.loaded()))
        build = GaugeMetricFamily("coarseloc_build_info", "The version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build


def register(app: Flask) -> None:
    """Count every answer, and serve the counts: of this application alone, and of its process."""
    registry, counts = CollectorRegistry(), RequestCounts()
    registry.register(counts)
    registry.register(StateGauges(app.extensions["coarseloc"]))
    ProcessCollector(registry=registry)

    def count(response: Response) -> Response:
        began = g.get("began")
        seconds = 0.0 if began is None else time.perf_counter() - began
        counts.add(request.endpoint or "none", response.status_code, seconds)
        if _log.isEnabledFor(logging.INFO):
            _log.info(_line(response, seconds))
        return response

    def show() -> Response:
        return Response(
            generate_latest(registry),
            content_type="text/plain; version=0.0.4; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )

    app.after_request(count)
    app.add_url_rule("/metrics", "metrics", show)


def log_accesses() -> None:
    """Write a line of JSON to stderr for each answer from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.handlers, _log.propagate = [handler], False
    _log.setLevel(logging.INFO)


def _line(response: Response, seconds: float) -> str:
    """Paths without their queries: what a reader looked for is nobody's business."""
    facts = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": g.get("request_id", ""),
        "client": request.remote_addr,
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "bytes": response.content_length,
        "ms": round(seconds * 1e3, 1),
    }
    return json.dumps(facts)
