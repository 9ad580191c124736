"""The main path of ingest: plan → read once → turn once → embed with every backbone → commit.

Reading runs ahead in threads, bounded, so that memory is flat in the number of tiles. Every commit is a
whole: rows, vectors and failures together. Whatever is interrupted, the next run's plan finds the rest.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from coarseloc.core.process import keep_freed_memory
from coarseloc.core.types import Backbone, EmbeddingSpec, Failure, Float32, Progress, Tile, TileSource, View
from coarseloc.imagery.decode import thumbnail_path, write_thumbnail
from coarseloc.store import Database, embeddings, references, seals
from ingest.plan import Plan, Work, make_plan

READERS = 2
READ_AHEAD = 8  # tiles decoded and waiting: bounds memory
BATCH_VIEWS = 16  # views handed to a backbone at once
COMMIT_ROWS = 256
COMMIT_SECONDS = 2.0  # what a kill can cost
PASSING = ("unreadable", "missing-file")  # kinds of failures that a disk or a network may have caused

A = TypeVar("A")
B = TypeVar("B")


@dataclass(slots=True)
class IngestSummary:
    """What an ingest did. `seconds` per stage: reading runs beside the others, so stages may overlap."""

    reference_set: str
    views: int
    up_to_date: int
    read: int = 0
    removed: int = 0  # views that the source no longer gives
    embedded: Counter[str] = field(default_factory=Counter)  # by backbone
    failures: Counter[str] = field(default_factory=Counter)  # by kind
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    interrupted: bool = False
    unchanged: bool = False  # by names, sizes and times of its files, none of which was opened

    def facts(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: dict(value) if isinstance(value, dict) else value for name, value in values}


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Tiles that were read and embedded, their pixels let go: what a commit takes."""

    tried: int  # views, the failed ones too
    views: list[tuple[Tile, View, str]]  # with their fingerprints
    vectors: dict[tuple[int, int, int], Float32]  # by tile index, angle, spec
    failures: list[Failure]
    spoilt: list[tuple[int, int]]  # (tile index, angle) of pictures that cannot be used


LoadBackbone = Callable[[EmbeddingSpec], Backbone]
IngestEngine = Callable[[Plan, TileSource, LoadBackbone, Path, IngestSummary], Iterator[EmbeddedBatch]]
"""Where a plan's work is done; each gives what it has done as it goes, in any order."""


@dataclass(frozen=True, slots=True)
class _ReadTile:
    work: Work
    views: list[tuple[View, str]]  # with their fingerprints
    failures: list[Failure]
    seconds: float

    @property
    def spoilt_angles(self) -> set[int]:
        """Angles without a view, where that is not for a file that could not be read just now."""
        if any(failure.kind in PASSING for failure in self.failures):
            return set()
        return set(self.work.angles) - {view.angle_deg for view, _ in self.views}


def in_process(
    plan: Plan, source: TileSource, load: LoadBackbone, thumbnails: Path, summary: IngestSummary
) -> Iterator[EmbeddedBatch]:
    """Embed a plan in this process and its threads: the default engine."""
    yield from embed_work(plan, source, plan.work, Models(plan, load), thumbnails, summary)


def run(
    db: Database,
    source: TileSource,
    specs: Sequence[EmbeddingSpec],
    load: LoadBackbone,
    thumbnails: Path,
    progress: Progress | None = None,
    engine: IngestEngine = in_process,
    keep_missing: bool = False,
    reread: bool = False,
) -> IngestSummary:
    """Embed whatever of `source` has no embedding yet under each spec, and record it in SQL.

    `load` is called once per spec, when a picture first needs it. Cut tiles whose thumbnail is gone from `thumbnails`
    are read again and get it back. Views that the source no longer gives, or whose pictures show nothing any more, are
    removed, unless `keep_missing`. reread: every picture is read, also one of the same size and time. Ctrl-C commits
    what is embedded and returns a summary that says `interrupted`. The vector store is not touched:
    `coarseloc.vectors.sync.drain` follows.
    """
    with db.write() as session:
        plan = make_plan(session, source, specs, thumbnails, keep_missing, reread)
    summary = IngestSummary(source.reference_set.name, plan.views, plan.up_to_date, removed=plan.removed)
    summary.failures.update(failure.kind for failure in source.failures)
    if not plan.work:
        _seal(db, plan)
        return summary
    writer = _Writer(db, plan, summary)
    tried = 0
    try:
        for batch in engine(plan, source, load, thumbnails, summary):
            writer.add(batch)
            tried += batch.tried
            if progress:
                progress(tried, plan.views_to_read, "tiles")
    except KeyboardInterrupt:
        summary.interrupted = True
    writer.commit()
    _seal(db, plan)
    return summary


def _seal(db: Database, plan: Plan) -> None:
    """Let the set's rows be checked from now on, where they were written to."""
    with db.write() as session:
        seals.seal(session, "set", plan.reference_set.id)


# --- between plan and commit: the same wherever it runs -------------------------------------------


class Models:
    """A plan's encoders, each loaded when first needed: pictures may turn out to be embedded already."""

    def __init__(self, plan: Plan, load: LoadBackbone) -> None:
        self._specs = {spec.id: spec.embedding_spec for spec in plan.specs}
        self._load = load
        self._loaded: dict[int, Backbone] = {}

    def get(self, spec_id: int, summary: IngestSummary) -> Backbone:
        if spec_id not in self._loaded:
            started = time.perf_counter()
            self._loaded[spec_id] = self._load(self._specs[spec_id])
            summary.seconds["load models"] += time.perf_counter() - started
        return self._loaded[spec_id]


def embed_work(
    plan: Plan,
    source: TileSource,
    work: Sequence[Work],
    models: Models,
    thumbnails: Path,
    summary: IngestSummary,
) -> Iterator[EmbeddedBatch]:
    """Read tiles ahead in threads and embed them in batches."""
    keep_freed_memory()  # here, as other machines' processes begin here too
    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
        reads = prefetch(pool, lambda tile_work: _read(source, tile_work, thumbnails), work, READ_AHEAD)
        for batch in _batches(reads, summary):
            views = [(read.work.tile, view, fingerprint) for read in batch for view, fingerprint in read.views]
            yield EmbeddedBatch(
                sum(len(read.work.angles) for read in batch),
                [(tile, _without_pixels(view), fingerprint) for tile, view, fingerprint in views],
                _embed(plan, models, views, summary),
                [failure for read in batch for failure in read.failures],
                [(read.work.tile.index, angle) for read in batch for angle in read.spoilt_angles],
            )


def prefetch(pool: ThreadPoolExecutor, call: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
    """Map in order with at most `ahead` calls in progress; leaving early cancels those that have not begun."""
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(source: TileSource, work: Work, thumbnails: Path) -> _ReadTile:
    """Read one tile at its missing angles and write thumbnails; runs in a reader thread."""
    started = time.perf_counter()
    views, failures = [], []
    for view in source.views(work.tile, work.angles):
        if isinstance(view, Failure):
            failures.append(view)
            continue
        thumbnail = thumbnail_path(thumbnails, view.content_digest)
        if not thumbnail.exists():
            write_thumbnail(view.pixels, thumbnail)
        views.append((view, source.source_fingerprint(work.tile, view.angle_deg)))
    return _ReadTile(work, views, failures, time.perf_counter() - started)


def _batches(reads: Iterable[_ReadTile], summary: IngestSummary) -> Iterator[list[_ReadTile]]:
    """Group reads until they hold a backbone's batch of views; time what reading took and cost."""
    batch: list[_ReadTile] = []
    waited = time.perf_counter()
    for read in reads:
        summary.seconds["read (in threads)"] += read.seconds
        summary.seconds["wait for reading"] += time.perf_counter() - waited
        summary.read += len(read.views)
        batch.append(read)
        if sum(len(r.views) for r in batch) >= BATCH_VIEWS:
            yield batch
            batch = []
        waited = time.perf_counter()
    if batch:
        yield batch


def _embed(
    plan: Plan, models: Models, views: Sequence[tuple[Tile, View, str]], summary: IngestSummary
) -> dict[tuple[int, int, int], Float32]:
    """Embed what each spec lacks, {(tile index, angle, spec): vector}; the same pixels serve every backbone."""
    lacking: dict[int, list[tuple[Tile, View]]] = {}
    for tile, view, _ in views:
        for spec in plan.missing_specs(tile, view):
            lacking.setdefault(spec.id, []).append((tile, view))
    vectors = {}
    for spec_id, tile_views in lacking.items():
        backbone = models.get(spec_id, summary)
        name = backbone.spec.backbone
        started = time.perf_counter()
        embedded = backbone.embed_many([view.pixels for _, view in tile_views])
        vectors.update({(t.index, v.angle_deg, spec_id): row for (t, v), row in zip(tile_views, embedded, strict=True)})
        summary.seconds[f"embed {name}"] += time.perf_counter() - started
        summary.embedded[name] += len(tile_views)
    return vectors


class _Writer:
    """Gathers results and commits them by rows or by the clock, each time as a whole."""

    def __init__(self, db: Database, plan: Plan, summary: IngestSummary) -> None:
        self._db, self._plan, self._summary = db, plan, summary
        self._views: list[tuple[Tile, View, str]] = []
        self._vectors: dict[tuple[int, int, int], Float32] = {}
        self._failures: list[Failure] = []
        self._spoilt: list[tuple[int, int]] = []
        self._last = time.monotonic()

    def add(self, batch: EmbeddedBatch) -> None:
        self._views.extend(batch.views)
        self._vectors.update(batch.vectors)
        self._failures.extend(batch.failures)
        self._spoilt.extend(batch.spoilt)
        if len(self._vectors) >= COMMIT_ROWS or time.monotonic() - self._last > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        started = time.perf_counter()
        plan = self._plan
        with self._db.write() as session:
            keys = references.save_views(session, plan.reference_set.point_key, plan.tile_keys, self._views)
            contents = {(tile.index, view.angle_deg): view.content_digest for tile, view, _ in self._views}
            embeddings.write_embeddings(
                session,
                [
                    (keys[tile, angle], spec, contents[tile, angle], vector)
                    for (tile, angle, spec), vector in self._vectors.items()
                ],
            )
            references.save_failures(session, plan.reference_set.id, self._failures)
            removed = [plan.rotated_tiles[view].id for view in self._spoilt if view in plan.rotated_tiles]
            if removed and not plan.keep_missing:
                references.remove_views(session, plan.reference_set.id, removed)
                self._summary.removed += len(removed)
        self._summary.failures.update(failure.kind for failure in self._failures)
        self._views, self._vectors, self._failures, self._spoilt = [], {}, [], []
        self._last = time.monotonic()
        self._summary.seconds["write"] += time.perf_counter() - started


def _without_pixels(view: View) -> View:
    """Copy a view without its pixels: rows wait for the next commit, pixels need not."""
    return View(view.angle_deg, np.empty((0, 0, 3), np.uint8), view.content_digest, view.ground_fraction, view.path)
