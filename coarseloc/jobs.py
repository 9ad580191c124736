"""Long work as jobs: the same record for the command line and the pages.

A job is one or more `coarseloc` commands. Every command here goes on where it was interrupted, so pausing is to
interrupt, and resuming is to run the same command again. A started job is a process in a session of its own: it
outlives the server, and where it dies its record says so by a heartbeat that has stopped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from coarseloc.core import files
from coarseloc.core.errors import CoarselocError, InputError
from coarseloc.core.types import Progress
from coarseloc.store import Database, Session, jobs
from coarseloc.store.jobs import StoredJob, Wish

if TYPE_CHECKING:
    from coarseloc.data_folder import Reporter

JobState = Literal["waiting", "running", "pausing", "stopping", "paused", "stopped", "done", "failed", "interrupted"]
ALIVE: frozenset[JobState] = frozenset({"waiting", "running", "pausing", "stopping"})

KINDS = ("ingest", "search", "track", "rotation", "altitude")  # commands that are recorded when somebody types them
BEAT_S = 2.0
SILENT_S = 30.0  # after so long without a heartbeat a process is taken for dead
VARIABLE = "COARSELOC_JOB"  # of a started process: its job's key, with + where another step follows
INTERRUPTED = 130  # exit code

# Runs the steps one after the other, until one fails; in a process of its own, which needs nothing of coarseloc.
_LAUNCHER = """
import json, os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a server in the background passes on that it is ignored
job, command, steps = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
for number, step in enumerate(steps, 1):
    environment = {**os.environ, "COARSELOC_JOB": job + ("+" if number < len(steps) else "")}
    code = subprocess.call([*command, *step], env=environment)
    if code:
        sys.exit(code)
"""
_COMMAND = [sys.executable, "-P", "-c", "from coarseloc.cli import main; main()"]


def job_state(job: StoredJob) -> JobState:
    """What has become of a job: by its record, and by whether its process lives."""
    if job.finished_at is not None:
        if job.exit_code == INTERRUPTED:
            return "paused" if job.wish == "pause" else "stopped"
        return "done" if job.exit_code == 0 else "failed"
    if not _lives(job):
        return "interrupted"
    if job.pid is None:
        return "waiting"
    return {"pause": "pausing", "stop": "stopping"}.get(job.wish, "running")  # type: ignore[return-value]


def _lives(job: StoredJob) -> bool:
    if (datetime.now(UTC) - job.heartbeat_at).total_seconds() > SILENT_S:
        return False
    if job.pid is None or job.host != socket.gethostname():
        return True  # it has just been started, or is another machine's: its heartbeat alone tells
    try:
        os.kill(job.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_job(db: Database, data_dir: Path, kind: str, steps: Sequence[Sequence[str]]) -> int:
    """Start `coarseloc` commands, one after the other, in a process that outlives this one; return the job's key."""
    with db.write() as session:
        job = jobs.create_job(session, kind, steps, os.fspath(Path.cwd()), socket.gethostname())
    _launch(db, data_dir, job)
    return job


def resume_job(db: Database, data_dir: Path, job: int) -> None:
    """Start a job's commands again: they go on where they were interrupted. Raises StoreError for an unknown job,
    InputError for one that lives."""
    with db.write() as session:  # two that resume it at once: the second sees it waiting
        stored = jobs.find_job(session, job)
        if (state := job_state(stored)) in ALIVE:
            raise InputError(f"job {job} is {state}: pause or stop it first")
        jobs.restart_job(session, job, socket.gethostname())
    _launch(db, data_dir, job)


def interrupt_job(db: Database, job: int, wish: Wish) -> None:
    """Ask a job to stop at its next heartbeat; what it has done is kept. Raises StoreError for an unknown job,
    InputError for one that does not live."""
    with db.write() as session:
        stored = jobs.find_job(session, job)
        if (state := job_state(stored)) not in ALIVE:
            raise InputError(f"job {job} is {state}: there is nothing to {wish}")
        jobs.wish_job(session, job, wish)


def log_path(data_dir: Path, job: int) -> Path:
    """Where a started job's output is."""
    return data_dir / "jobs" / f"{job}.log"


def _launch(db: Database, data_dir: Path, job: int) -> None:
    with db.read() as session:
        stored = jobs.find_job(session, job)
    log = log_path(data_dir, job)
    files.make_private_folder(log.parent)
    steps = [["--data-dir", os.fspath(data_dir), *step] for step in stored.steps]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(job), json.dumps(_COMMAND), json.dumps(steps)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=stored.folder if Path(stored.folder).is_dir() else data_dir,
            start_new_session=True,
        )
    threading.Thread(target=_reap, args=(db, stored, process, log), name=f"coarseloc-job-{job}", daemon=True).start()


def _reap(db: Database, job: StoredJob, process: subprocess.Popen[bytes], log: Path) -> None:
    """Of a process that ended without a word (a mistake in its arguments, a kill) the record says what is known."""
    code = process.wait()
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []  # its log is gone: how it ended is known all the same
    with db.write() as session:
        jobs.finish_job(session, job.id, code if code >= 0 else 128 - code, lines[-1] if lines else "", job.started_at)


class JobRecorder:
    """Keeps the record of this process's job: of a started one from its beginning, of a command that somebody typed
    from its first progress on, so that a mistake in its arguments is no job."""

    def __init__(self, db: Callable[[], Database], arguments: Sequence[str]) -> None:
        """arguments: of `coarseloc`, its subcommand first."""
        self._db, self._arguments = db, list(arguments)
        self._job: int | None = None
        self._another_step_follows = False
        self._label, self._unit = "", ""
        self._completed: int | None = None
        self._total: int | None = None
        self._ended = threading.Event()
        named = os.environ.get(VARIABLE, "")
        if named.rstrip("+").isdecimal():
            self._another_step_follows = named.endswith("+")
            self._begin(int(named.rstrip("+")))

    def reporter(self, show: Reporter) -> Reporter:
        """A progress display that writes the record too."""

        @contextmanager
        def report(label: str) -> Iterator[Progress | None]:
            self._label, self._completed, self._total = label, None, None
            if self._job is None:
                with self._db().write() as session:
                    folder = os.fspath(Path.cwd())
                    job = jobs.create_job(session, self._arguments[0], [self._arguments], folder, socket.gethostname())
                self._begin(job)
            with show(label) as shown:

                def advance(completed: int, total: int, unit: str) -> None:
                    self._completed, self._total, self._unit = completed, total, unit
                    if shown:
                        shown(completed, total, unit)

                yield advance

        return report

    def finish(self, exit_code: int, message: str) -> None:
        """Say how the command ended."""
        self._ended.set()
        if self._job is None:
            return
        with self._db().write() as session:
            self._beat(session)
            if self._another_step_follows and exit_code == 0:
                jobs.begin_job(session, self._job, None, socket.gethostname())  # the next step's process will
            else:
                jobs.finish_job(session, self._job, exit_code, message)

    def _begin(self, job: int) -> None:
        self._job = job
        with self._db().write() as session:
            jobs.begin_job(session, job, os.getpid(), socket.gethostname())
        threading.Thread(target=self._beat_on, name="coarseloc-heartbeat", daemon=True).start()

    def _beat_on(self) -> None:
        asked = False
        while not self._ended.wait(BEAT_S):
            try:
                with self._db().write() as session:
                    wish = self._beat(session)
            except CoarselocError:
                continue  # the database is busy: the next one will do
            if wish != "run" and not asked:
                asked = True
                os.kill(os.getpid(), signal.SIGINT)

    def _beat(self, session: Session) -> Wish:
        assert self._job is not None  # noqa: S101 - for the type checker
        return jobs.beat(session, self._job, self._label, self._completed, self._total, self._unit)
