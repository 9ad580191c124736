"""A flight's search: its frames → the recipe (`coarseloc.localize.localizer`) over exact mirrors → SearchRuns.

Runs are recorded as they grow: begun or gone on with, filled every few seconds, finished.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from coarseloc.core import files, geo, ids
from coarseloc.core.config import SearchEngine
from coarseloc.core.errors import ImageryError, InputError, StoreError
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.process import keep_freed_memory
from coarseloc.core.types import Backbone, EmbeddingSpec, Flight, Floats, Frame, Progress, batches
from coarseloc.imagery.decode import picture_size, seen_ground
from coarseloc.localize import metrics
from coarseloc.localize.localizer import LocalizedImage, TimedImage, decode, depth, localize
from coarseloc.store import Database, Session, embeddings, flights, localizations, runs, snapshots
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.flights import StoredFlight
from coarseloc.store.references import StoredReferenceSet
from search.environment import WARM_UP, machine
from search.mirror_index import MirrorIndex, index_by_heading, index_tiles, open_mirrors
from search.recorder import Recorder

_SAME_PICTURE = 1 - 1e-5  # a cosine: those of two pictures of one place stay below
_SAME_SHAPE = 0.03  # logarithm of two aspect ratios' quotient: less is a pixel or two
_log = logging.getLogger("coarseloc")


def run_search(
    db: Database,
    mirrors: Path,
    flight: Flight,
    reference_sets: Sequence[StoredReferenceSet],
    backbone: Backbone,
    *,
    k: int = 10,
    where: Where = ALL_TILES,
    per_angle: bool = False,
    batch: int = 1,
    rebuild: bool = True,
    engine: SearchEngine = "faiss",
    fix_parameters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] = _log.warning,
) -> list[int]:
    """Search every frame of a flight and record it; returns the SearchRuns: one, or one a heading with `per_angle`.

    Several reference sets are one search space. Times are of single frames, one at a time; with `batch` > 1 a frame's
    time is its batch's, divided by the frames. Mirrors are opened, or built, under the folder `mirrors`; with
    `rebuild=False` a stale one is refused. engine: who may search them on a CPU. A frame that cannot be read is
    recorded with its error and the rest go on.
    Stopped at any moment, the same call goes on where it was. fix_parameters: what the runs' frames will be looked for
    on the map with afterwards; they count as unfinished until that is done.

    Raises InputError (no frames, nothing matches `where`, another flight of this name), StoreError (no embeddings of
    this backbone), LockedError (the same search is being run by another process), StaleMirror.
    """
    if not flight.frames:
        raise InputError(f"flight {flight.flight_id} has no frames in {flight.path}: expected its images there")
    if k < 1 or batch < 1:
        raise InputError(f"k is {k} and batch is {batch}: expected both to be at least 1")
    keep_freed_memory()
    specs = [find_spec(db, stored_set, backbone.spec) for stored_set in reference_sets]
    opened = open_mirrors(db, mirrors, reference_sets, specs[0], rebuild=rebuild)
    index = index_tiles(db, opened, where, engine)
    if not index.count:
        total = sum(mirror.index.count for _, mirror in opened)
        names = ", ".join(repr(stored_set.name) for stored_set in reference_sets)
        raise InputError(
            f"none of the {total} rotated tiles of {names} matches the filters {where.to_json()}: widen them"
        )
    # Matching rows are copied once into an index of their own: every frame of a flight has the same filter.
    indexes = index_by_heading(db, opened, where, engine) if per_angle else [(None, index.copy_rows())]
    version = "+".join(mirror.schema.version for _, mirror in opened)
    parameters = {"k": k, "where": where.to_json(), "batch": batch, "index_version": version}
    with _search_lock(mirrors, flight, reference_sets, specs[0], parameters, per_angle):
        requests = [
            RunRequest(
                {**parameters, "angle_deg": angle},
                _environment(backbone, index, k, batch),
                index.build_ms,
                index.count,
                index.places(),
            )
            for angle, index in indexes
        ]
        stored, open_runs = start_runs(db, flight, reference_sets, specs[0], requests, fix_parameters)
        for text in (*stored.notices, *off_map_notices(flight, reference_sets, requests[0].places)):
            notice(text)
        recorded_keys = set.intersection(*(run.recorded_keys for run in open_runs))
        todo = [frame for frame in stored.flight.frames if stored.frame_keys[frame.index] not in recorded_keys]
        outcomes = search_frames(todo, backbone, [index for _, index in indexes], k, batch)
        copies: list[Copy] = []
        record_outcomes(db, open_runs, stored, _note_copies(outcomes, copies), len(todo), progress)
        for text in copy_notices(copies, len(todo)):
            notice(text)
    return [run.id for run in open_runs]


def _environment(backbone: Backbone, index: MirrorIndex, k: int, batch: int) -> dict[str, Any]:
    rows = depth(k, index.headings)
    return machine(backbone.device, index.backend_for(batch, rows), index.way_for(batch, rows))


def find_spec(db: Database, reference_set: StoredReferenceSet, spec: EmbeddingSpec) -> StoredSpec:
    """Find the stored spec of these weights and settings. Raises StoreError listing what the set is embedded with."""
    with db.read() as session:
        stored_specs = embeddings.specs(session, reference_set.id)
    for stored in stored_specs:
        if stored.digest == spec.digest:
            return stored
    available = ", ".join(f"{s.backbone} at {s.how}" for s in stored_specs) or "none"
    raise StoreError(
        f"reference set {reference_set.name!r} has no embeddings of {spec.backbone} at {spec.how} "
        f"with these weights; it has {available}: ingest it with `--backbone {spec.backbone}`"
    )


def off_map_notices(flight: Flight, reference_sets: Sequence[StoredReferenceSet], places: Floats) -> list[str]:
    """Say where most frames of known position lie off the references: it may be the wrong map. places: float64 [P, 6],
    as searched."""
    overlap = metrics.map_overlap(flight.frames, places)
    if overlap.nearest_m is None or overlap.share_off <= 0.5:
        return []
    names = ", ".join(repr(stored_set.name) for stored_set in reference_sets)
    away = geo.distance_text(overlap.nearest_m)
    return [
        f"{overlap.off_map} of the {overlap.known} frames whose position is known ({flight.truth_source}) lie where "
        f"no reference of {names} shows the ground, the nearest centre {away} away: is it the right reference set? "
        "Their best places are wrong, and no fix should match"
    ]


def shape_notices(flight: Flight, reference_sets: Sequence[StoredReferenceSet], spec: EmbeddingSpec) -> list[str]:
    """Say where frames and references are of different shapes and each is squashed to the model's square. Told by the
    flight's first frame; sets that were last ingested before their pictures' size was recorded say nothing."""
    if spec.fit != "squash" or not flight.frames or (frame_px := picture_size(flight.frames[0].path)) is None:
        return []
    reference_px = (stored_set.reference_set.picture_px for stored_set in reference_sets)
    differing = [
        px for px in reference_px if px and abs(math.log(px[0] / px[1] / (frame_px[0] / frame_px[1]))) > _SAME_SHAPE
    ]
    if not differing:
        return []
    return [
        f"frames are {frame_px[0]} x {frame_px[1]} px ({_shape(*frame_px)}) and references {_shape(*differing[0])}: "
        f"{spec.backbone} sees both squashed to a square, so they look unlike each other. `--fit crop` at ingest and "
        "at search embeds the middle square of each instead (`--fit pad`: all of it, for frames as wide as these)"
    ]


def _shape(width: int, height: int) -> str:
    if width == height:
        return "square"
    exact = Fraction(width, height)
    rounded = exact.limit_denominator(20)
    return f"{'' if rounded == exact else 'about '}{rounded.numerator}:{rounded.denominator}"


# --- the frames ---------------------------------------------------------------------------------


def search_frames(
    frames: Sequence[Frame], backbone: Backbone, indexes: Sequence[MirrorIndex], k: int, batch: int
) -> Iterator[FrameOutcome]:
    """Localize `batch` frames at a time in each index; a batch is divided by image size, as an encoder needs it."""
    warm: set[int] = set()  # numbers of pictures
    for frame_batch in batches(frames, batch):
        decoded: list[tuple[Frame, TimedImage]] = []
        for frame in frame_batch:
            try:
                image = decode(frame.path)
            except ImageryError as error:
                yield FrameOutcome(frame, [], str(error))
                continue
            if reason := seen_ground(image.pixels).too_little:
                yield FrameOutcome(frame, [], f"no match: {reason}")
            else:
                decoded.append((frame, image))
        for _, same_size in groupby(decoded, key=lambda pair: pair[1].pixels.shape):
            sized_frames, images = zip(*same_size, strict=True)
            # Caches fill, kernels compile, pages are read and ways of searching are tried before the times.
            for _ in range(0 if len(images) in warm else WARM_UP):
                localize(images, backbone, indexes, k)
            warm.add(len(images))
            answers = localize(images, backbone, indexes, k)
            yield from (FrameOutcome(frame, of_frame) for frame, of_frame in zip(sized_frames, answers, strict=True))


class Copy(NamedTuple):
    """A frame that looks to the last digits like a reference, and that one's tile."""

    filename: str
    tile_id: str


def _note_copies(outcomes: Iterator[FrameOutcome], copies: list[Copy]) -> Iterator[FrameOutcome]:
    """Pass outcomes on, and add the copies among them."""
    for outcome in outcomes:
        best = max(
            (answer.hits[0] for answer in outcome.answers if answer.hits), key=lambda hit: hit.score, default=None
        )
        if best is not None and best.score > _SAME_PICTURE:
            copies.append(Copy(outcome.frame.filename, best.tile.tile_id))
        yield outcome


def copy_notices(copies: Sequence[Copy], frames: int) -> list[str]:
    """Say how many of a flight's frames are pictures of the references themselves: they find themselves."""
    if not copies:
        return []
    return [
        f"{len(copies)} of {frames} frames have a reference's own embedding (cosine 1; first {copies[0].filename}, "
        f"which is tile {copies[0].tile_id}): are they pictures of the references? Their errors tell nothing of others"
    ]


# --- the record ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run's parameters, and the machine and references that it is searched with."""

    parameters: Mapping[str, Any]
    environment: Mapping[str, Any]
    index_build_ms: float
    references: int
    places: Floats  # [P, 6], see `snapshots.save_search_map`


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is being recorded."""

    id: int
    localization: int
    set_uids: Mapping[str, str]  # {reference set's name: its uid}
    recorded_keys: set[int]  # of the frames that it has a result of


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """One frame: an answer for each run, or the error for all."""

    frame: Frame
    answers: Sequence[LocalizedImage]
    error: str | None = None


def start_runs(
    db: Database,
    flight: Flight,
    reference_sets: Sequence[StoredReferenceSet],
    spec: StoredSpec,
    requests: Sequence[RunRequest],
    fix_parameters: Mapping[str, Any] | None = None,
) -> tuple[StoredFlight, list[OpenRun]]:
    """Record the flight, and for each request begin a run or find the unfinished one of the same parameters."""
    uids = {stored_set.name: stored_set.uid for stored_set in reference_sets}
    with db.write() as session:
        stored = flights.save_flight(session, flight)
        rows = [
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
                fix_parameters,
            )
            for request in requests
        ]
    return stored, [OpenRun(run, localization, uids, frame_keys) for run, localization, frame_keys in rows]


def record_outcomes(
    db: Database,
    open_runs: Sequence[OpenRun],
    flight: StoredFlight,
    outcomes: Iterator[FrameOutcome],
    todo: int,
    progress: Progress | None,
) -> None:
    """Save the outcomes of `todo` frames every few seconds, then finish the runs."""
    total = len(flight.flight.frames)
    with Recorder(partial(_save, db, open_runs, flight.frame_keys)) as recorder:
        for completed, outcome in enumerate(outcomes, start=total - todo + 1):
            recorder.add(outcome)
            if progress:
                progress(completed, total, "frames")
    with db.write() as session:
        for run in open_runs:
            runs.finish_run(session, run.id)
            localizations.finish_localization(session, run.localization)


def _save(
    db: Database, open_runs: Sequence[OpenRun], frame_keys: Mapping[int, int], outcomes: Sequence[FrameOutcome]
) -> None:
    with db.write() as session:
        for number, run in enumerate(open_runs):
            keyed = [(frame_keys[outcome.frame.index], outcome) for outcome in outcomes]
            _save_run(session, run, number, [(key, outcome) for key, outcome in keyed if key not in run.recorded_keys])


def _save_run(session: Session, run: OpenRun, number: int, outcomes: Sequence[tuple[int, FrameOutcome]]) -> None:
    """Save a run's outcomes, given with their frames' keys: first snapshots of the tiles, then the hits and estimates
    that refer to them."""
    answers = [(key, outcome.answers[number]) for key, outcome in outcomes if outcome.error is None]
    tiles = (hit for _, answer in answers for hit in answer.hits)
    snapshot_ids = snapshots.save_snapshots(session, tiles, run.set_uids)
    for key, outcome in outcomes:
        if outcome.error is not None:
            runs.save_frame_result(session, run.id, key, None, [], outcome.error)
    for key, answer in answers:
        hits = [(snapshot_ids[hit.tile.point_id], hit.score) for hit in answer.hits]
        runs.save_frame_result(session, run.id, key, answer.timing, hits)
    estimates = [(key, answer.estimate) for key, answer in answers if answer.estimate is not None]
    localizations.save_estimates(session, run.localization, estimates, snapshot_ids)


@contextmanager
def _search_lock(
    mirrors: Path,
    flight: Flight,
    reference_sets: Sequence[StoredReferenceSet],
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    per_angle: bool,
) -> Iterator[None]:
    """Hold the lock of this search: two processes at the same one would record every frame twice."""
    sets = [stored_set.uid for stored_set in reference_sets]
    question = {"flight": flight.flight_id, "sets": sets, "spec": spec.id, "per_angle": per_angle, **parameters}
    locks = mirrors / ".locks"
    locks.mkdir(exist_ok=True)
    message = f"another process is searching flight {flight.flight_id} with {spec.backbone}: wait for it or stop it"
    with files.locked(locks / f"search-{ids.digest(question)[:16]}", message):
        yield
