"""Long work from the browser: what runs and how far it is; start, pause, stop and resume it.

Sources are named, never browsed: what lies directly in the folders that `source_roots` of the configuration allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from flask import Blueprint, Response, redirect, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc import jobs as running
from coarseloc.core.config import Settings
from coarseloc.store import Database, flights, references
from coarseloc.store import jobs as stored_jobs
from coarseloc.store.jobs import StoredJob, Wish
from web.language import _
from web.models import AnswerModel, Url, json_response
from web.pages import page
from web.problems import Problem, accepts_html, without_folders
from web.state import current_state

JOBS_SHOWN = 50
_RASTERS = (".tif", ".tiff")
_POLL_S = 0.5
_SILENCE_S = 5.0  # then a comment is sent, by which a client that has gone is noticed

routes = Blueprint("jobs", __name__)


class JobView(AnswerModel):
    """One job: a flight's search, an ingest, a track, a study."""

    job: int
    kind: str
    state: running.JobState
    label: str = Field(description="what it does just now")
    completed: int | None
    total: int | None
    unit: str
    started_at: datetime = Field(description="UTC")
    finished_at: datetime | None
    exit_code: int | None = Field(description="as of `coarseloc`: 0 done, 2 mendable, 130 interrupted")
    message: str = Field(description="why it failed")


class JobsPage(AnswerModel):
    """The newest jobs, and what new ones can be of."""

    jobs: list[JobView]
    events: str = Field(description="a path on this server: server-sent events, one whenever a job has changed")
    sources: list[str] = Field(description="folders and rasters that jobs can be started on, by name")
    flights: list[str]
    reference_sets: list[str]
    backbones: list[str]


class JobReceipt(AnswerModel):
    """A job that was started, or asked to stop or to go on."""

    job: int
    url: str = Url


@page(routes, "/jobs", "jobs")
def jobs_page() -> JobsPage:
    """Jobs of the pages and of the command line."""
    state = current_state()
    with state.database.read() as session:
        stored = stored_jobs.jobs(session, JOBS_SHOWN)
        names = flights.flight_ids(session)
        sets = [of.name for of in references.reference_sets(session)]
    return JobsPage(
        jobs=[_view(job) for job in stored],
        events=url_for("jobs.events"),
        sources=sorted(_sources(state.settings)),
        flights=sorted(names, reverse=True),
        reference_sets=sets,
        backbones=list(state.backbones),
    )


@routes.get("/jobs/events")
def events() -> Response:
    """Say whenever a job has changed: begun, come farther, ended."""
    database = current_state().database
    stream = _events(database, _newest_states(database))
    return Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@routes.post("/jobs")
def start() -> AnyResponse:
    """Start what the form asks for: `kind`, and by it `source`, `flight` or `reference_set`, with their numbers."""
    state = current_state()
    kind = request.form.get("kind", "")
    steps = _steps(kind, request.form, _sources(state.settings))
    command = steps[-1][0]
    return _receipt(running.start_job(state.database, state.settings.data_dir, command, steps))


@routes.post("/jobs/<int:job>/<any(pause,stop,resume):wish>")
def ask(job: int, wish: str) -> AnyResponse:
    """Pause, stop or resume a job; what it has done is kept."""
    state = current_state()
    with state.database.read() as session:
        if not stored_jobs.is_known(session, job):
            raise Problem(404, _("There is no job {n}.", n=job))
    if wish == "resume":
        running.resume_job(state.database, state.settings.data_dir, job)
    else:
        wishes: dict[str, Wish] = {"pause": "pause", "stop": "stop"}
        running.interrupt_job(state.database, job, wishes[wish])
    return _receipt(job)


def _receipt(job: int) -> AnyResponse:
    if accepts_html():
        return redirect(url_for("jobs.jobs"), 303)
    return json_response(JobReceipt(job=job, url=url_for("jobs.jobs")))


def _view(job: StoredJob) -> JobView:
    return JobView(
        job=job.id,
        kind=job.kind,
        state=running.job_state(job),
        label=job.label,
        completed=job.completed,
        total=job.total,
        unit=job.unit,
        started_at=job.started_at,
        finished_at=job.finished_at,
        exit_code=job.exit_code,
        message=without_folders(job.message),
    )


def _newest_states(database: Database) -> list[tuple[object, ...]]:
    """What a reader can see of the newest jobs; their heartbeats alone are no news."""
    with database.read() as session:
        stored = stored_jobs.jobs(session, JOBS_SHOWN)
    return [(job.id, running.job_state(job), job.label, job.completed, job.finished_at) for job in stored]


def _events(database: Database, latest: list[tuple[object, ...]]) -> Iterator[str]:
    """latest: as of before the answer's head went out. A client looks at the page once it has the head, so that every
    change is either on that page or an event."""
    yield ": \n\n"  # the head of the answer goes out
    sent_s = time.monotonic()
    while True:
        now = _newest_states(database)
        if now != latest:
            latest, sent_s = now, time.monotonic()
            yield "event: job\ndata: {}\n\n"
        if time.monotonic() - sent_s > _SILENCE_S:
            sent_s = time.monotonic()
            yield ": \n\n"
        time.sleep(_POLL_S)


# --- what a form may ask for --------------------------------------------------------------------


def _sources(settings: Settings) -> dict[str, Path]:
    """{name: folder or raster} directly in the allowed roots."""
    return {
        f"{root.name}/{path.name}": path
        for root in settings.source_roots
        if root.is_dir()
        for path in root.iterdir()
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in _RASTERS)
    }


def _steps(kind: str, form: Mapping[str, str], sources: Mapping[str, Path]) -> list[list[str]]:
    """The commands of a job; where they take hours, preflight comes first, and its "no" ends the job."""

    def source() -> str:
        name = form.get("source", "")
        if name not in sources:
            raise Problem(404, _("There is no source {name} in the folders that this server allows.", name=name))
        return str(sources[name])

    def reference_set() -> str:
        name = form.get("reference_set", "")
        with current_state().database.read() as session:
            if name not in (of.name for of in references.reference_sets(session)):
                raise Problem(404, _("There is no reference set {name}.", name=name))
        return name

    def number(name: str) -> str:
        try:
            value = float(form.get(name, ""))
        except ValueError:
            value = -1.0
        if not 0 < value < 1e6:
            value_text = form.get(name, "")
            raise Problem(400, _("{name} is {value}: a number was expected.", name=name, value=value_text))
        return f"{value:g}"

    name = form.get("backbone", "")
    if name and name not in current_state().backbones:
        raise Problem(404, _("There is no backbone {name}.", name=name))
    backbone = ["--backbone", name] if name else []  # all whose weights are here
    check = form.get("check", "yes") != "no"
    if kind == "captures":
        path = source()
        first = [["preflight", "--quick", *backbone, "--", path]] if check else []
        return [*first, ["ingest", "captures", *backbone, "--", path]]
    if kind == "orthophoto":
        path, cut = source(), [*backbone, "--footprint-m", number("footprint_m")]
        if form.get("overlap"):
            cut += ["--overlap", number("overlap")]
        first = [["preflight", "--quick", *cut, "--", path]] if check else []
        return [*first, ["ingest", "orthophoto", *cut, "--", path]]
    if kind == "search":
        path = source()
        chosen = ["--reference-set", reference_set()] if form.get("reference_set") else []
        first = [["preflight", "--quick", *backbone, "--flight", path, "--", *chosen[1:]]] if check else []
        return [*first, ["search", *backbone, *chosen, "--", path]]
    if kind == "track":
        flight = form.get("flight", "")
        with current_state().database.read() as session:
            if flight not in flights.flight_ids(session):
                raise Problem(404, _("There is no flight {name}.", name=flight))
        return [["track", "--", flight]]
    if kind in ("rotation", "altitude"):
        return [[kind, *backbone, "--", reference_set()]]
    raise Problem(400, _("There is no kind of job {name}.", name=kind))
