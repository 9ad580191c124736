"""Jobs: the same record for the command line and the pages; interrupted work says so, and goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from databases import settings_of
from flask import Flask

from coarseloc import jobs as running
from coarseloc.cli import cli
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.store import Database, jobs, open_database
from web import create_app


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(settings_of(tmp_path).database)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def _jobs_have_ended(tmp_path: Path) -> Iterator[None]:
    """Threads write the ends of jobs into this test's folder, which then goes."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("coarseloc-job-"):
            thread.join(180)


def stored(database: Database, job: int) -> jobs.StoredJob:
    with database.read() as session:
        return jobs.find_job(session, job)


def wait_for(database: Database, job: int, states: set[str], seconds: float = 180.0) -> str:
    """The first of these states that it comes to."""
    until = time.monotonic() + seconds
    while (state := running.job_state(stored(database, job))) not in states:
        assert time.monotonic() < until, state
        time.sleep(0.05)
    return state


def test_a_started_job_is_a_process_of_its_own_session_and_ends_with_its_message(
    database: Database, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_launch", lambda *_: None)  # not yet: its process may have begun by the next line
        job = running.start_job(database, tmp_path, "search", [["search", "--", str(tmp_path / "nowhere")]])
        assert running.job_state(stored(database, job)) == "waiting"
    running._launch(database, tmp_path, job)
    assert wait_for(database, job, {"failed", "done"}) == "failed"
    ended = stored(database, job)
    assert ended.exit_code == 2 and "nowhere" in ended.message
    assert ended.pid != os.getpid() and "nowhere" in running.log_path(tmp_path, job).read_text(encoding="utf-8")


def test_a_killed_process_leaves_an_interrupted_job_that_can_be_resumed(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        job = jobs.create_job(session, "search", [["search", "--", "nowhere"]], str(tmp_path), os.uname().nodename)
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])
    with database.write() as session:
        jobs.begin_job(session, job, child, os.uname().nodename)
    assert running.job_state(stored(database, job)) == "running"
    with pytest.raises(InputError, match="is running"):
        running.resume_job(database, tmp_path, job)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert running.job_state(stored(database, job)) == "interrupted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_launch", lambda *_: None)
        running.resume_job(database, tmp_path, job)
        with pytest.raises(InputError, match="is waiting"):
            running.resume_job(database, tmp_path, job)
    running._launch(database, tmp_path, job)
    assert wait_for(database, job, {"failed"}) == "failed" and stored(database, job).exit_code == 2


def test_an_end_that_is_told_late_does_not_end_what_was_resumed(database: Database) -> None:
    with database.write() as session:
        job = jobs.create_job(session, "search", [["search"]], ".", "host")
        first = jobs.find_job(session, job).started_at
        jobs.finish_job(session, job, 130, "")
        jobs.restart_job(session, job, "host")
        jobs.finish_job(session, job, 130, "late", first)
    assert stored(database, job).finished_at is None
    with database.write() as session:
        jobs.finish_job(session, job, 0, "", jobs.find_job(session, job).started_at)
    assert running.job_state(stored(database, job)) == "done"


@pytest.mark.parametrize(("wish", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_wish_interrupts_the_process_that_beats(
    database: Database, monkeypatch: pytest.MonkeyPatch, wish: jobs.Wish, state: str
) -> None:
    monkeypatch.setattr(running, "BEAT_S", 0.02)
    recorder = running.JobRecorder(lambda: database, ["search", "flight"])
    with pytest.raises(KeyboardInterrupt), recorder.reporter(lambda label: _shown([]))("search tiny") as progress:
        progress(3, 12, "frames")
        (job,) = (job.id for job in _jobs(database))
        running.interrupt_job(database, job, wish)
        time.sleep(120)
    recorder.finish(130, "")
    ended = stored(database, job)
    assert running.job_state(ended) == state
    assert (ended.label, ended.completed, ended.total, ended.unit) == ("search tiny", 3, 12, "frames")
    with pytest.raises(InputError, match="nothing to pause"):
        running.interrupt_job(database, job, "pause")


def test_a_typed_command_is_a_job_from_its_first_progress_on(tmp_path: Path) -> None:
    run = _command(tmp_path)
    assert run("search", str(tmp_path / "nowhere")).exit_code != 0
    assert run("jobs").output.startswith("no job in")
    photo = write_rgb(tmp_path / "map.tif", _noise(120), center=LonLat(127.0, 37.5), gsd_m=5.0)
    done = run("ingest", "orthophoto", str(photo), "--footprint-m", "300", "--backbone", "demo", "--angles", "0")
    assert done.exit_code == 0, done.stderr
    listed = run("jobs").output
    assert "ingest" in listed and "done" in listed and "map.tif" in listed
    assert "exit_code" in run("jobs", "show", "1").output
    assert "nothing to stop" in str(run("jobs", "stop", "1").exception)


def test_the_page_starts_named_sources_alone_after_preflight(tmp_path: Path) -> None:
    roots = tmp_path / "data"
    (roots / "flight").mkdir(parents=True)
    app = _app(tmp_path, roots)
    client = app.test_client()
    assert client.get("/jobs.json").json["sources"] == ["data/flight"]
    for source in ("../data/flight", str(roots / "flight"), "data/..", "data/flight/../../etc", ""):
        assert client.post("/jobs", data={"kind": "captures", "source": source}).status_code == 404
    assert client.post("/jobs", data={"kind": "shell"}).status_code == 400
    assert client.post("/jobs", data={"kind": "track", "flight": "--online"}).status_code == 404
    foreign = client.post(
        "/jobs", data={"kind": "captures", "source": "data/flight"}, headers={"Origin": "http://elsewhere"}
    )
    assert foreign.status_code == 403 and client.get("/jobs.json").json["jobs"] == []
    job = client.post("/jobs", data={"kind": "captures", "source": "data/flight", "backbone": "demo"}).json["job"]
    database = app.extensions["coarseloc"].database
    assert [step[0] for step in stored(database, job).steps] == ["preflight", "ingest"]
    wait_for(database, job, {"failed"})  # an empty folder: preflight refuses it, and ingest does not begin
    (row,) = client.get("/jobs.json").json["jobs"]
    assert row["exit_code"] == 2 and row["message"] and str(tmp_path) not in row["message"]
    assert client.post(f"/jobs/{job}/pause").status_code == 400 and client.post("/jobs/99/stop").status_code == 404
    assert "작업" in client.get("/jobs?lang=ko", headers={"Accept": "text/html"}).text
    app.extensions["coarseloc"].close()


def test_a_change_after_the_head_of_the_events_is_an_event(tmp_path: Path) -> None:
    app = _app(tmp_path, tmp_path)
    database = app.extensions["coarseloc"].database
    stream = app.test_client().get("/jobs/events", buffered=False).iter_encoded()
    with database.write() as session:  # the head is out, and nothing of the stream has been read
        job = jobs.create_job(session, "search", [["search"]], ".", "host")
    assert [next(stream), next(stream)] == [b": \n\n", b"event: job\ndata: {}\n\n"]
    with database.write() as session:
        jobs.finish_job(session, job, 0, "")
    assert next(stream) == b"event: job\ndata: {}\n\n"
    app.extensions["coarseloc"].close()


def _jobs(database: Database) -> list[jobs.StoredJob]:
    with database.read() as session:
        return jobs.jobs(session)


def _shown(calls: list[tuple[int, int, str]]):
    from contextlib import nullcontext

    return nullcontext(lambda *call: calls.append(call))


def _noise(side: int):
    import numpy as np

    return np.random.default_rng(3).integers(0, 255, (side, side, 3), np.uint8)


def _app(data_dir: Path, root: Path) -> Flask:
    return create_app(settings_of(data_dir).model_copy(update={"source_roots": (root,)}))


def _command(data_dir: Path) -> Callable[..., object]:
    return lambda *words: CliRunner().invoke(cli, ["--data-dir", str(data_dir / "state"), *words])
