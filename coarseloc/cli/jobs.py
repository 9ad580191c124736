"""`coarseloc jobs`: long work that runs, ran or stopped, from the command line or the pages."""

from __future__ import annotations

import shlex
from typing import Any

import click

from coarseloc import jobs as running
from coarseloc.cli.terminal import answer, json_option, next_step, out, pass_workspace, print_none_here, table
from coarseloc.store import jobs as stored_jobs
from coarseloc.store.jobs import StoredJob
from coarseloc.workspace import Workspace


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def jobs(context: click.Context, as_json: bool) -> None:
    """Long work: what runs, how far it is, what stopped; pause, stop and resume it."""
    if context.invoked_subcommand is None:
        _list(context.obj, as_json)


def _list(workspace: Workspace, as_json: bool) -> None:
    with workspace.db.read() as session:
        facts = [_facts(job) for job in stored_jobs.jobs(session)]

    def show() -> None:
        if not facts:
            return print_none_here(workspace, "job", "ingest, search, track and the studies are jobs")
        columns = ("job", "kind", "state", "progress", "started", "command")
        table(*columns, rows=[[fact[name] for name in columns] for fact in facts])
        resumable = [fact["job"] for fact in facts if fact["state"] in ("paused", "stopped", "interrupted", "failed")]
        if resumable:
            next_step("jobs", "resume", resumable[0], note="go on where it was interrupted")
        return None

    answer(as_json, facts, show)


@jobs.command()
@click.argument("job", type=int)
@json_option
@pass_workspace
def show(workspace: Workspace, job: int, as_json: bool) -> None:
    """One job: its command, how far it is, how it ended, and where its output is."""
    with workspace.db.read() as session:
        facts = _facts(stored_jobs.find_job(session, job))
    log = running.log_path(workspace.settings.data_dir, job)
    facts["output"] = str(log) if log.is_file() else None
    answer(as_json, facts, lambda: table("", "", rows=[[name, str(value)] for name, value in facts.items()]))


@jobs.command()
@click.argument("job", type=int)
@pass_workspace
def pause(workspace: Workspace, job: int) -> None:
    """Interrupt JOB within seconds; what it has done is kept, and `resume` goes on."""
    running.interrupt_job(workspace.db, job, "pause")
    out.print(f"job {job} is being paused")


@jobs.command()
@click.argument("job", type=int)
@pass_workspace
def stop(workspace: Workspace, job: int) -> None:
    """End JOB within seconds; what it has done is kept."""
    running.interrupt_job(workspace.db, job, "stop")
    out.print(f"job {job} is being stopped")


@jobs.command()
@click.argument("job", type=int)
@pass_workspace
def resume(workspace: Workspace, job: int) -> None:
    """Start JOB again, in a process of its own: it goes on where it was interrupted."""
    running.resume_job(workspace.db, workspace.settings.data_dir, job)
    out.print(f"job {job} goes on; its output: {running.log_path(workspace.settings.data_dir, job)}")


def _facts(job: StoredJob) -> dict[str, Any]:
    progress = "" if job.completed is None else f"{job.completed} of {job.total} {job.unit}"
    return {
        "job": job.id,
        "kind": job.kind,
        "state": running.job_state(job),
        "progress": " ".join(part for part in (job.label, progress) if part),
        "started": job.started_at.strftime("%Y-%m-%d %H:%M:%S"),
        "finished": job.finished_at.strftime("%Y-%m-%d %H:%M:%S") if job.finished_at else None,
        "command": shlex.join(job.steps[-1]),
        "exit_code": job.exit_code,
        "message": job.message,
        "pid": job.pid,
        "host": job.host,
    }
