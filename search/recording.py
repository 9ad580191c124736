"""SearchRuns as they grow: begun or gone on with, filled every few seconds, finished."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coarseloc import ids
from coarseloc.errors import LockedError
from coarseloc.store import Database, runs
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredFlight
from coarseloc.types import Flight, Frame, Progress, Timing

_COMMIT_EVERY_S = 2.0  # a kill loses no more than this

Hits = list[tuple[int, float]]  # (rotated tile, score), best first


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run was asked, and what is to answer."""

    parameters: Mapping[str, Any]
    environment: Mapping[str, Any]
    index_build_ms: float
    references: int


@dataclass(frozen=True, slots=True)
class Run:
    id: int
    done: set[int]  # frame keys


@dataclass(frozen=True, slots=True)
class Outcome:
    """One frame: a timing and hits for each run, or why there are none."""

    frame: Frame
    timings: Sequence[Timing | None]
    hits: Sequence[Hits]
    error: str | None = None


def start(
    db: Database, flight: Flight, reference_set: StoredReferenceSet, spec: StoredSpec, asked: Sequence[Asked]
) -> tuple[StoredFlight, list[Run]]:
    """Record the flight and begin a run for each that is asked, or find the unfinished one."""
    with db.write() as session:
        stored = runs.save_flight(session, flight)
        started = [
            runs.start_run(
                session,
                stored,
                reference_set,
                spec,
                one.parameters,
                one.environment,
                one.index_build_ms,
                one.references,
            )
            for one in asked
        ]
    return stored, [Run(run, done) for run, done in started]


def record(
    db: Database,
    started: Sequence[Run],
    flight: StoredFlight,
    outcomes: Iterator[Outcome],
    todo: int,
    progress: Progress | None,
) -> None:
    """Save the `todo` outcomes as they come, then finish the runs."""
    total = len(flight.frame_keys)
    done = total - todo
    waiting: list[Outcome] = []
    saved_at = time.monotonic()
    try:
        for outcome in outcomes:
            waiting.append(outcome)
            done += 1
            if time.monotonic() - saved_at > _COMMIT_EVERY_S:
                now, waiting = waiting, []  # taken off first: a Ctrl-C while saving must not save them twice
                _save(db, started, flight.frame_keys, now)
                saved_at = time.monotonic()
            if progress:
                progress(done, total, "frames")
    finally:  # Ctrl-C keeps what has been answered
        _save(db, started, flight.frame_keys, waiting)
    with db.write() as session:
        for run in started:
            runs.finish_run(session, run.id)


def _save(db: Database, started: Sequence[Run], frame_keys: Mapping[int, int], outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    with db.write() as session:
        for outcome in outcomes:
            key = frame_keys[outcome.frame.index]
            for run, timing, hits in zip(started, outcome.timings, outcome.hits, strict=True):
                if key not in run.done:
                    runs.save_frame_result(session, run.id, key, timing, hits, outcome.error)


@contextmanager
def alone(
    mirrors: Path,
    flight: Flight,
    reference_set: StoredReferenceSet,
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    per_angle: bool,
) -> Iterator[None]:
    """Two processes at the same search would record every frame twice; other searches are free to run."""
    what = {"flight": flight.flight_id, "set": reference_set.id, "spec": spec.id, "per_angle": per_angle, **parameters}
    locks = mirrors / ".locks"
    locks.mkdir(exist_ok=True)
    lock = FileLock(locks / f"search-{ids.digest(what)[:16]}", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"another process is searching flight {flight.flight_id} with {spec.spec.backbone}: wait for it or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()
