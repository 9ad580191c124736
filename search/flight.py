"""A flight's search: its frames → the recipe (`coarseloc.localize.localizer`) over exact mirrors → SearchRuns.

Runs are recorded as they grow: begun or gone on with, filled every few seconds, finished.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coarseloc.core import ids
from coarseloc.core.batches import batches
from coarseloc.core.errors import ImageryError, InputError, LockedError, StoreError
from coarseloc.core.filters import ANYTHING, Where
from coarseloc.core.types import Backbone, EmbeddingSpec, Flight, Floats, Frame, Progress
from coarseloc.localize.localizer import DecodedImage, LocalizedImage, decode, localize
from coarseloc.store import Database, Session, embeddings, flights, localizations, runs, snapshots
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.flights import StoredFlight
from coarseloc.store.references import StoredReferenceSet
from search.environment import WARM_UP, environment
from search.mirror_index import MirrorIndex, by_heading, matching, open_mirrors

_COMMIT_EVERY_S = 2.0  # a kill loses no more than this

_log = logging.getLogger("coarseloc")


def run_search(
    db: Database,
    mirrors: Path,
    flight: Flight,
    reference_sets: Sequence[StoredReferenceSet],
    backbone: Backbone,
    *,
    k: int = 10,
    where: Where = ANYTHING,
    per_angle: bool = False,
    batch: int = 1,
    rebuild: bool = True,
    progress: Progress | None = None,
    notice: Callable[[str], None] = _log.warning,
) -> list[int]:
    """Search every frame of a flight and record it; returns the SearchRuns: one, or one a heading with `per_angle`.

    Several reference sets are one search space. Times are of single frames, one at a time; with `batch` > 1 a frame's
    time is its batch's, divided by the frames. Mirrors are opened, or built, under the folder `mirrors`; with
    `rebuild=False` a stale one is refused. A frame that cannot be read is recorded with its error and the rest go on.
    Stopped at any moment, the same call goes on where it was.

    Raises InputError (no frames, nothing matches `where`, another flight of this name), StoreError (no embeddings of
    this backbone), LockedError (the same search is being run by another process), StaleMirror.
    """
    if not flight.frames:
        raise InputError(f"flight {flight.flight_id} has no frames in {flight.path}: expected its images there")
    if k < 1 or batch < 1:
        raise InputError(f"k is {k} and batch is {batch}: expected both to be at least 1")
    specs = [find_spec(db, one, backbone.spec) for one in reference_sets]
    opened = open_mirrors(db, mirrors, reference_sets, specs[0], rebuild=rebuild)
    everything = matching(db, opened, where)
    if not everything.count:
        total = sum(mirror.index.count for _, mirror in opened)
        names = ", ".join(repr(one.name) for one in reference_sets)
        raise InputError(
            f"none of the {total} rotated tiles of {names} matches the filters {where.to_json()}: widen them"
        )
    # Rows that match are gathered once into an index of their own: a flight asks the same filter for every frame.
    spaces = by_heading(db, opened, where) if per_angle else [(None, everything.copied())]
    version = "+".join(mirror.schema.version for _, mirror in opened)
    parameters = {"k": k, "where": where.to_json(), "batch": batch, "index_version": version}
    with _locked(mirrors, flight, reference_sets, specs[0], parameters, per_angle):
        requests = [
            RunRequest(
                {**parameters, "angle_deg": angle},
                environment(index.backend, backbone),
                index.build_ms,
                index.count,
                index.places(),
            )
            for angle, index in spaces
        ]
        stored, started = start_runs(db, flight, reference_sets, specs[0], requests)
        for text in stored.notices:
            notice(text)
        done = set.intersection(*(run.done for run in started))
        todo = [frame for frame in stored.flight.frames if stored.frame_keys[frame.index] not in done]
        outcomes = _outcomes(todo, backbone, [index for _, index in spaces], k, batch)
        record_outcomes(db, started, stored, outcomes, len(todo), progress)
    return [run.id for run in started]


def find_spec(db: Database, reference_set: StoredReferenceSet, wanted: EmbeddingSpec) -> StoredSpec:
    """The stored spec of these very weights and settings. Raises StoreError listing what the set is embedded with."""
    with db.read() as session:
        known = embeddings.specs(session, reference_set.id)
    for spec in known:
        if spec.digest == wanted.digest:
            return spec
    held = ", ".join(f"{s.backbone} at {s.input_px} px {s.precision}" for s in known) or "none"
    raise StoreError(
        f"reference set {reference_set.name!r} has no embeddings of {wanted.backbone} at {wanted.input_px} px "
        f"{wanted.precision} with these weights; it has {held}: ingest it with `--backbone {wanted.backbone}`"
    )


# --- the frames ---------------------------------------------------------------------------------


def _outcomes(
    frames: Sequence[Frame], backbone: Backbone, indexes: Sequence[MirrorIndex], k: int, batch: int
) -> Iterator[FrameOutcome]:
    warm = False
    for some in batches(frames, batch):
        decoded: list[tuple[Frame, DecodedImage]] = []
        for frame in some:
            try:
                decoded.append((frame, decode(frame.path)))
            except ImageryError as error:
                yield FrameOutcome(frame, [], str(error))
        for _, alike in groupby(decoded, key=lambda pair: pair[1].pixels.shape):
            group = list(alike)
            pictures = [picture for _, picture in group]
            for _ in range(0 if warm else WARM_UP):  # caches fill, kernels compile and pages are read before the times
                localize(pictures, backbone, indexes, k)
            warm = True
            answers = localize(pictures, backbone, indexes, k)
            yield from (FrameOutcome(frame, of_frame) for (frame, _), of_frame in zip(group, answers, strict=True))


# --- the record ---------------------------------------------------------------------------------


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


def start_runs(
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


def record_outcomes(
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
def _locked(
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
