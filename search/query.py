"""The main path: a flight's frames → the recipe (`coarseloc.localize.localizer`) over exact mirrors → SearchRuns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from coarseloc.core.batches import batches
from coarseloc.core.errors import ImageryError, InputError, StoreError
from coarseloc.core.filters import ANYTHING, Where
from coarseloc.core.types import Backbone, EmbeddingSpec, Flight, Frame, Progress
from coarseloc.localize.localizer import DecodedImage, decode, localize
from coarseloc.store import Database, embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search import recording
from search.facts import WARM_UP, environment
from search.recording import FrameOutcome, RunRequest
from search.tile_index import MirrorIndex, by_heading, matching, open_mirrors

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
    with recording.alone(mirrors, flight, reference_sets, specs[0], parameters, per_angle):
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
        stored, started = recording.start(db, flight, reference_sets, specs[0], requests)
        for text in stored.notices:
            notice(text)
        done = set.intersection(*(run.done for run in started))
        todo = [frame for frame in stored.flight.frames if stored.frame_keys[frame.index] not in done]
        outcomes = _outcomes(todo, backbone, [index for _, index in spaces], k, batch)
        recording.record(db, started, stored, outcomes, len(todo), progress)
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
