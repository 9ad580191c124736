"""Jobs as rows: long work, how far it is, and what its readers want of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from coarseloc.core.errors import StoreError
from coarseloc.store.tables import JobRow, now

Wish = Literal["run", "pause", "stop"]


@dataclass(frozen=True, slots=True)
class StoredJob:
    """One piece of long work. Times are UTC."""

    id: int
    kind: str
    steps: Sequence[Sequence[str]]  # arguments of `coarseloc`, one command after the other
    folder: str
    wish: str
    host: str
    pid: int | None
    label: str
    completed: int | None
    total: int | None
    unit: str
    exit_code: int | None
    message: str
    created_at: datetime
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None


def create_job(session: Session, kind: str, steps: Sequence[Sequence[str]], folder: str, host: str) -> int:
    """Write a job that is about to begin; return its key."""
    row = JobRow(kind=kind, steps=[list(step) for step in steps], folder=folder, host=host)
    session.add(row)
    session.flush()
    return row.id


def jobs(session: Session, limit: int = 100) -> list[StoredJob]:
    """List the newest jobs, newest first."""
    return [_stored(row) for row in session.scalars(select(JobRow).order_by(JobRow.id.desc()).limit(limit))]


def find_job(session: Session, job: int) -> StoredJob:
    """Read a job. Raises StoreError for an unknown one."""
    row = session.get(JobRow, job)
    if row is None:
        raise StoreError(f"job {job} is not known: `coarseloc jobs` lists those there are")
    return _stored(row)


def is_known(session: Session, job: int) -> bool:
    return session.get(JobRow, job) is not None


def restart_job(session: Session, job: int, host: str) -> None:
    """It is about to begin again; what is left of its last end is cleared."""
    _update(
        session, job, host=host, pid=None, wish="run", exit_code=None, finished_at=None, message="", completed=None,
        total=None, label="", unit="", started_at=now(), heartbeat_at=now(),
    )  # fmt: skip


def begin_job(session: Session, job: int, pid: int | None, host: str) -> None:
    """Its process has begun; None where the next step's is about to."""
    _update(session, job, pid=pid, host=host, heartbeat_at=now())


def beat(session: Session, job: int, label: str, completed: int | None, total: int | None, unit: str) -> Wish:
    """Say that its process lives and how far it is; return what is wanted of it."""
    _update(session, job, label=label, completed=completed, total=total, unit=unit, heartbeat_at=now())
    wish: Wish = session.scalars(select(JobRow.wish).where(JobRow.id == job)).one()  # type: ignore[assignment]
    return wish


def wish_job(session: Session, job: int, wish: Wish) -> None:
    """Say what is wanted of a job; its process asks with every heartbeat."""
    _update(session, job, wish=wish)


def finish_job(session: Session, job: int, exit_code: int, message: str, started_at: datetime | None = None) -> None:
    """Say how it ended, unless that is said already. started_at: of the start that ended; one that has been resumed
    meanwhile is left alone."""
    finished = {"exit_code": exit_code, "message": message, "finished_at": now(), "heartbeat_at": now()}
    query = update(JobRow).where(JobRow.id == job, JobRow.finished_at.is_(None))
    if started_at is not None:
        query = query.where(JobRow.started_at == started_at)
    session.execute(query.values(**finished))


def _update(session: Session, job: int, **values: Any) -> None:
    session.execute(update(JobRow).where(JobRow.id == job).values(**values))


def _stored(row: JobRow) -> StoredJob:
    values: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(StoredJob)}
    for name, value in values.items():
        if isinstance(value, datetime) and value.tzinfo is None:  # SQLite gives times back without their zone: UTC
            values[name] = value.replace(tzinfo=UTC)
    return StoredJob(**values)
