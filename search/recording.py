"""SearchRuns as they grow: begun or gone on with, filled every few seconds, finished."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coarseloc.core import ids
from coarseloc.core.errors import LockedError
from coarseloc.core.types import Flight, Floats, Frame, Progress
from coarseloc.localize.localizer import LocalizedImage
from coarseloc.store import Database, Session, flights, localizations, runs, snapshots
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.flights import StoredFlight
from coarseloc.store.references import StoredReferenceSet

_COMMIT_EVERY_S = 2.0  # a kill loses no more than this


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked, and what is to answer."""

    parameters: Mapping[str, Any]
    environment: Mapping[str, Any]
    index_build_ms: float
    references: int
    places: Floats  # [P, 6], what is searched, see `snapshots.save_search_map`


@dataclass(frozen=True, slots=True)
class StartedRun:
    id: int
    localization: int
    set_uids: Mapping[str, str]  # {reference set's name: its id}
    done: set[int]  # frame keys


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """One frame: an answer for each run, or why there is none."""

    frame: Frame
    answers: Sequence[LocalizedImage]
    error: str | None = None


def start(
    db: Database,
    flight: Flight,
    reference_sets: Sequence[StoredReferenceSet],
    spec: StoredSpec,
    requests: Sequence[RunRequest],
) -> tuple[StoredFlight, list[StartedRun]]:
    """Record the flight and begin a run for each request, or find the unfinished one."""
    uids = {one.name: one.uid for one in reference_sets}
    with db.write() as session:
        stored = flights.save_flight(session, flight)
        started = [
            runs.start_run(
                session,
                stored,
                reference_sets,
                snapshots.save_search_map(session, request.places),
                spec,
                request.parameters,
                request.environment,
                request.index_build_ms,
                request.references,
            )
            for request in requests
        ]
    return stored, [StartedRun(run, localization, uids, done) for run, localization, done in started]


def record(
    db: Database,
    started: Sequence[StartedRun],
    flight: StoredFlight,
    outcomes: Iterator[FrameOutcome],
    todo: int,
    progress: Progress | None,
) -> None:
    """Save the `todo` outcomes as they come, then finish the runs."""
    total = len(flight.flight.frames)
    done = total - todo
    waiting: list[FrameOutcome] = []
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
            localizations.finish_localization(session, run.localization)


def _save(
    db: Database, started: Sequence[StartedRun], frame_keys: Mapping[int, int], outcomes: Sequence[FrameOutcome]
) -> None:
    if not outcomes:
        return
    with db.write() as session:
        for number, run in enumerate(started):
            keyed = [(frame_keys[outcome.frame.index], outcome) for outcome in outcomes]
            _save_run(session, run, number, [(key, outcome) for key, outcome in keyed if key not in run.done])


def _save_run(session: Session, run: StartedRun, number: int, outcomes: Sequence[tuple[int, FrameOutcome]]) -> None:
    """Outcomes of a run by their frames' keys: what answered is kept as it is now, then hits and estimates point to
    it."""
    answers = [(key, outcome.answers[number]) for key, outcome in outcomes if outcome.error is None]
    tiles = (hit for _, answer in answers for hit in answer.hits)
    kept = snapshots.save_snapshots(session, tiles, run.set_uids)
    for key, outcome in outcomes:
        if outcome.error is not None:
            runs.save_frame_result(session, run.id, key, None, [], outcome.error)
    for key, answer in answers:
        hits = [(kept[hit.tile.point_id], hit.score) for hit in answer.hits]
        runs.save_frame_result(session, run.id, key, answer.timing, hits)
    estimates = [(key, answer.estimate) for key, answer in answers if answer.estimate is not None]
    localizations.save_estimates(session, run.localization, estimates, kept)


@contextmanager
def alone(
    mirrors: Path,
    flight: Flight,
    reference_sets: Sequence[StoredReferenceSet],
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    per_angle: bool,
) -> Iterator[None]:
    """Two processes at the same search would record every frame twice; other searches are free to run."""
    sets = [one.uid for one in reference_sets]
    what = {"flight": flight.flight_id, "sets": sets, "spec": spec.id, "per_angle": per_angle, **parameters}
    locks = mirrors / ".locks"
    locks.mkdir(exist_ok=True)
    lock = FileLock(locks / f"search-{ids.digest(what)[:16]}", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"another process is searching flight {flight.flight_id} with {spec.backbone}: wait for it or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()
