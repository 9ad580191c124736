"""The main path: frame → the same embedding function as the tiles → ExactIndex top-k, timed → rows → SearchRun."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from coarseloc import ids
from coarseloc.errors import ImageryError, InputError, LockedError, StoreError
from coarseloc.imagery.decode import read_image
from coarseloc.store import Database, embeddings, runs
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredFlight
from coarseloc.store.upsert import batches
from coarseloc.types import Backbone, EmbeddingSpec, Flight, Float32, Frame, Progress, Timing, UInt8, Where
from search.facts import WARM_UP, environment, where_facts
from search.index import ExactIndex, Rows
from search.mirror import Mirror, open_mirror

_COMMIT_EVERY_S = 2.0  # a kill loses no more than this
ANYTHING = Where()

Hits = list[tuple[int, float]]  # (rotated tile, score), best first


@dataclass(frozen=True, slots=True)
class _Searched:
    """What one run searches: all that match, or one heading's tiles as a set of their own."""

    angle_deg: int | None
    index: ExactIndex
    keys: Rows  # int64 [N], the rotated tile of each row
    build_ms: float


@dataclass(frozen=True, slots=True)
class _Run:
    id: int
    done: set[int]  # frame keys


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One frame: a timing and hits for each run, or why there are none."""

    frame: Frame
    timings: Sequence[Timing | None]
    hits: Sequence[Hits]
    error: str | None = None


def run_search(
    db: Database,
    mirrors: Path,
    flight: Flight,
    reference_set: StoredReferenceSet,
    backbone: Backbone,
    *,
    k: int = 10,
    where: Where = ANYTHING,
    per_angle: bool = False,
    batch: int = 1,
    rebuild: bool = True,
    progress: Progress | None = None,
) -> list[int]:
    """Search every frame of a flight and record it; returns the SearchRuns: one, or one a heading with `per_angle`.

    Times are of single frames, one at a time; with `batch` > 1 a frame's time is its batch's, divided by the frames.
    The mirror is opened, or built, under the folder `mirrors`; with `rebuild=False` a stale one is refused. A frame
    that cannot be read is recorded with its error and the rest go on. Stopped at any moment, the same call goes on
    where it was.

    Raises InputError (no frames, nothing matches `where`), StoreError (no embeddings of this backbone),
    LockedError (the same search is being run by another process), StaleMirror.
    """
    if not flight.frames:
        raise InputError(f"flight {flight.flight_id} has no frames in {flight.path}: expected its images there")
    if k < 1 or batch < 1:
        raise InputError(f"k is {k} and batch is {batch}: expected both to be at least 1")
    spec = find_spec(db, reference_set, backbone.spec)
    mirror = open_mirror(db, mirrors, reference_set, spec, rebuild=rebuild)
    searched = _searched(mirror, reference_set, where, per_angle)
    parameters = {"k": k, "where": where_facts(where), "batch": batch, "index_version": mirror.schema.version}
    with _alone(mirrors, flight, reference_set, spec, parameters, per_angle):
        stored, started = _start(db, flight, reference_set, spec, parameters, searched, backbone)
        done = set.intersection(*(run.done for run in started))
        todo = [frame for frame in flight.frames if stored.frame_keys[frame.index] not in done]
        _record(db, started, stored, _outcomes(todo, backbone, searched, k, batch), len(todo), progress)
        with db.write() as session:
            for run in started:
                runs.finish_run(session, run.id)
    return [run.id for run in started]


def find_spec(db: Database, reference_set: StoredReferenceSet, wanted: EmbeddingSpec) -> StoredSpec:
    """The stored spec of these very weights and settings. Raises StoreError listing what the set is embedded with."""
    with db.read() as session:
        known = embeddings.specs(session, reference_set.id)
    for spec in known:
        if spec.spec.digest == wanted.digest:
            return spec
    held = ", ".join(f"{s.spec.backbone} at {s.spec.input_px} px {s.spec.precision}" for s in known) or "none"
    raise StoreError(
        f"reference set {reference_set.name!r} has no embeddings of {wanted.backbone} at {wanted.input_px} px "
        f"{wanted.precision} with these weights; it has {held}: ingest it with `--backbone {wanted.backbone}`"
    )


def nearest(mirror: Mirror, vector: Float32, k: int, where: Where = ANYTHING) -> Hits:
    """The k best (rotated tile, score) of one query vector [D] among those that match."""
    scores, rows = mirror.index.search(vector[None], k, mirror.mask(where))
    return _hits(scores[0], mirror.rotated_tile_ids[rows[0]])


# --- what is searched ---------------------------------------------------------------------------


def _searched(mirror: Mirror, reference_set: StoredReferenceSet, where: Where, per_angle: bool) -> list[_Searched]:
    """Rows that match are gathered once into an index of their own: a flight asks the same filter for every frame."""
    wanted: Iterable[tuple[int | None, Where]] = [(None, where)]
    if per_angle:
        angles = [a for a in reference_set.reference_set.angles if where.angles is None or a in where.angles]
        wanted = [(angle, replace(where, angles=(angle,))) for angle in angles]
    found = []
    for angle, asked in wanted:
        mask = mirror.mask(asked)
        if mask is None:
            found.append(_Searched(angle, mirror.index, mirror.rotated_tile_ids, mirror.build_ms))
        elif mask.any():
            started = time.perf_counter()
            rows = np.flatnonzero(mask)
            index = mirror.index.subset(rows)
            found.append(_Searched(angle, index, mirror.rotated_tile_ids[rows], _ms_since(started)))
    if not found:
        raise InputError(
            f"none of the {mirror.index.count} rotated tiles of {reference_set.name!r} matches the filters "
            f"{where_facts(where)}: widen them"
        )
    return found


# --- the frames ---------------------------------------------------------------------------------


def _outcomes(
    frames: Sequence[Frame], backbone: Backbone, searched: Sequence[_Searched], k: int, batch: int
) -> Iterator[_Outcome]:
    warm = False
    for some in batches(frames, batch):
        decoded = []
        for frame in some:
            started = time.perf_counter()
            try:
                pixels = read_image(frame.path)
            except ImageryError as error:
                yield _Outcome(frame, [None] * len(searched), [[]] * len(searched), str(error))
                continue
            decoded.append((frame, pixels, _ms_since(started)))
        for _, alike in groupby(decoded, key=lambda one: one[1].shape):
            group = list(alike)
            if not warm:
                _warm_up(backbone, searched, [pixels for _, pixels, _ in group], k)
                warm = True
            yield from _answer(group, backbone, searched, k)


def _answer(
    group: Sequence[tuple[Frame, UInt8, float]], backbone: Backbone, searched: Sequence[_Searched], k: int
) -> Iterator[_Outcome]:
    """Frames of equal size: embed once, search each index; each timer encloses one call only."""
    images = np.stack([pixels for _, pixels, _ in group])
    started = time.perf_counter()
    vectors = backbone.embed(images)
    embed_ms = _ms_since(started) / len(group)
    answers = []
    for one in searched:
        started = time.perf_counter()
        scores, rows = one.index.search(vectors, k)
        search_ms = _ms_since(started) / len(group)
        answers.append((search_ms, scores, one.keys[rows]))
    for i, (frame, _, decode_ms) in enumerate(group):
        yield _Outcome(
            frame,
            [Timing(decode_ms, embed_ms, search_ms) for search_ms, _, _ in answers],
            [_hits(scores[i], keys[i]) for _, scores, keys in answers],
        )


def _warm_up(backbone: Backbone, searched: Sequence[_Searched], images: Sequence[UInt8], k: int) -> None:
    """Let caches fill, kernels compile and pages be read before the first frame that is timed."""
    batch = np.stack(images)
    for _ in range(WARM_UP):
        vectors = backbone.embed(batch)
        for one in searched:
            one.index.search(vectors, k)


def _hits(scores: Float32, keys: Rows) -> Hits:
    return [(int(key), float(score)) for key, score in zip(keys, scores, strict=True)]


# --- the record ---------------------------------------------------------------------------------


def _start(
    db: Database,
    flight: Flight,
    reference_set: StoredReferenceSet,
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    searched: Sequence[_Searched],
    backbone: Backbone,
) -> tuple[StoredFlight, list[_Run]]:
    """Record the flight, and a run for each index, or find the unfinished one."""
    started = []
    with db.write() as session:
        stored = runs.save_flight(session, flight)
        for one in searched:
            asked, answers = {**parameters, "angle_deg": one.angle_deg}, environment(one.index, backbone)
            run = runs.start_run(session, stored, reference_set, spec, asked, answers, one.build_ms, one.index.count)
            started.append(_Run(*run))
    return stored, started


def _record(
    db: Database,
    started: Sequence[_Run],
    flight: StoredFlight,
    outcomes: Iterator[_Outcome],
    todo: int,
    progress: Progress | None,
) -> None:
    """Save outcomes as they come, every few seconds."""
    total = len(flight.frame_keys)
    done = total - todo
    waiting: list[_Outcome] = []
    saved_at = time.monotonic()
    try:
        for outcome in outcomes:
            waiting.append(outcome)
            done += 1
            if time.monotonic() - saved_at > _COMMIT_EVERY_S:
                _save(db, started, flight.frame_keys, waiting)
                waiting, saved_at = [], time.monotonic()
            if progress:
                progress(done, total, "frames")
    finally:  # Ctrl-C too keeps what has been answered
        _save(db, started, flight.frame_keys, waiting)


def _save(db: Database, started: Sequence[_Run], frame_keys: Mapping[int, int], outcomes: Sequence[_Outcome]) -> None:
    if not outcomes:
        return
    with db.write() as session:
        for outcome in outcomes:
            key = frame_keys[outcome.frame.index]
            for run, timing, hits in zip(started, outcome.timings, outcome.hits, strict=True):
                if key not in run.done:
                    runs.save_frame_result(session, run.id, key, timing, hits, outcome.error)


@contextmanager
def _alone(
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
    try:
        with FileLock(locks / f"search-{ids.digest(what)[:16]}", timeout=0):
            yield
    except Timeout:
        raise LockedError(
            f"another process is searching flight {flight.flight_id} with {spec.spec.backbone}: wait for it or stop it"
        ) from None


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
