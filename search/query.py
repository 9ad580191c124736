"""The main path: frame → the same embedding function as the tiles → ExactIndex top-k, timed → rows → SearchRun."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from coarseloc.batches import batches
from coarseloc.errors import ImageryError, InputError, StoreError
from coarseloc.imagery.decode import read_image
from coarseloc.store import Database, embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.types import Backbone, EmbeddingSpec, Flight, Float32, Frame, Progress, Timing, UInt8, Where
from coarseloc.where import ANYTHING
from search import recording
from search.exact import Rows
from search.facts import WARM_UP, environment, where_facts
from search.index import ExactIndex
from search.mirror import Mirror, open_mirror
from search.recording import Asked, Hits, Outcome


@dataclass(frozen=True, slots=True)
class _Searched:
    """What one run searches: all that match, or one heading's tiles as a set of their own."""

    angle_deg: int | None
    index: ExactIndex
    keys: Rows  # int64 [N], the rotated tile of each row
    build_ms: float


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
    with recording.alone(mirrors, flight, reference_set, spec, parameters, per_angle):
        asked = [
            Asked(
                {**parameters, "angle_deg": one.angle_deg},
                environment(one.index, backbone),
                one.build_ms,
                one.index.count,
            )
            for one in searched
        ]
        stored, started = recording.start(db, flight, reference_set, spec, asked)
        done = set.intersection(*(run.done for run in started))
        todo = [frame for frame in flight.frames if stored.frame_keys[frame.index] not in done]
        recording.record(db, started, stored, _outcomes(todo, backbone, searched, k, batch), len(todo), progress)
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
    scores, rows = mirror.index.search(vector[None], k, mirror.selection(where))
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
        selection = mirror.selection(asked)
        if selection is None:
            found.append(_Searched(angle, mirror.index, mirror.rotated_tile_ids, mirror.build_ms))
        elif len(selection):
            started = time.perf_counter()
            index = mirror.index.subset(selection.rows)
            found.append(_Searched(angle, index, mirror.rotated_tile_ids[selection.rows], _ms_since(started)))
    if not found:
        raise InputError(
            f"none of the {mirror.index.count} rotated tiles of {reference_set.name!r} matches the filters "
            f"{where_facts(where)}: widen them"
        )
    return found


# --- the frames ---------------------------------------------------------------------------------


def _outcomes(
    frames: Sequence[Frame], backbone: Backbone, searched: Sequence[_Searched], k: int, batch: int
) -> Iterator[Outcome]:
    warm = False
    for some in batches(frames, batch):
        decoded = []
        for frame in some:
            started = time.perf_counter()
            try:
                pixels = read_image(frame.path)
            except ImageryError as error:
                yield Outcome(frame, [None] * len(searched), [[]] * len(searched), str(error))
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
) -> Iterator[Outcome]:
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
        yield Outcome(
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


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
