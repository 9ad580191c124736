"""Hold what one application has open: its workspace, encoders, vector store and cached results."""

from __future__ import annotations

import gc
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TypeVar

import numpy as np
from flask import current_app

from coarseloc.core.config import Settings
from coarseloc.core.errors import BackboneError, CoarselocError
from coarseloc.core.process import run_in_background
from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.embedding.backbone import LoadedBackbone
from coarseloc.embedding.encoders import Encoders
from coarseloc.embedding.specs import BackboneSpec, table
from coarseloc.imagery.base_map import BaseMap, open_base_map
from coarseloc.store import Database, Session, embeddings, gallery
from coarseloc.vectors import configured_store
from coarseloc.vectors.protocol import VectorStore
from coarseloc.vectors.sync import drain, is_lost
from coarseloc.workspace import Workspace
from web.language import _
from web.problems import Problem

T = TypeVar("T")
MAX_WAITING = 3  # beyond the one being embedded; they hold a server thread each
FOLLOW_EVERY_S = 3.0
REPLACED_AFTER_S = 3.0  # the first answer is shown by then: importing torch would hold it up

_log = logging.getLogger("coarseloc")


@dataclass(frozen=True, slots=True)
class EmbeddedQuery:
    """A query's vector, and what it cost."""

    vector: Float32  # [D], unit norm
    load_ms: float  # 0 where the model was there
    embed_ms: float  # resize, normalise, forward; the device synchronised


class QueryEncoders:
    """Backbones of one server: loaded when first needed, kept, and used one image at a time behind a short queue.

    The first pictures need not wait until torch is imported, which takes seconds: numpy embeds them, where it can,
    until the same weights are loaded in the background by what is faster for many.
    """

    def __init__(self, settings: Settings) -> None:
        self._encoders = Encoders(settings)
        self._loaded: dict[str, LoadedBackbone] = {}  # by spec digest
        self._replacing: set[str] = set()  # spec digests
        self._one_at_a_time = Lock()
        self._counting = Lock()
        self._inside = 0

    def loaded(self) -> list[str]:
        return sorted(backbone.spec.backbone for backbone in self._loaded.values())

    def missing(self, spec: EmbeddingSpec) -> str | None:
        """Why this backbone cannot embed here and what to do about it; None where its weights are."""
        try:
            missing = self._encoders.missing(spec.backbone)
        except BackboneError:
            return _("{name} is not among this server's backbones.", name=spec.backbone)
        return f"{missing.reason}. {missing.remedy}" if missing else None

    def warm(self, spec: EmbeddingSpec) -> None:
        """Begin to load a backbone in the background, if it can be loaded and nobody is at it."""
        if spec.digest in self._loaded or self._inside or self.missing(spec):
            return
        Thread(target=self._warm, args=(spec,), name="coarseloc-warm", daemon=True).start()

    def _warm(self, spec: EmbeddingSpec) -> None:
        if not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            self._backbone(spec)
        except Exception as error:  # the search that needs it will say so to its reader
            _log.warning("%s could not be loaded ahead: %s", spec.backbone, error)
        finally:
            self._one_at_a_time.release()

    def embed(self, spec: EmbeddingSpec, decoded: Callable[[], AbstractContextManager[UInt8]]) -> EmbeddedQuery:
        """Embed what `decoded` gives, uint8 [H, W, 3], by the very weights and settings of `spec`; it is opened when it
        is this image's turn, so that those that wait hold no pixels, and closed once it is embedded.

        Raises Problem 429 where too many wait already, WeightsError where the weights are missing or others.
        """
        with self._counting:
            if self._inside > MAX_WAITING:
                detail = _("{n} images are being embedded or wait for it. Try again in a moment.", n=self._inside)
                raise Problem(429, detail, retry_after_s=2 * self._inside)
            self._inside += 1
        try:
            with self._one_at_a_time, decoded() as pixels:
                started = time.perf_counter()
                fresh = spec.digest not in self._loaded
                backbone = self._backbone(spec)
                loaded = time.perf_counter()
                vector = backbone.embed(pixels[None])[0]
                embedded = time.perf_counter()
        finally:
            with self._counting:
                self._inside -= 1
        self._begin_replacing(spec)
        return EmbeddedQuery(vector, (loaded - started) * 1e3 if fresh else 0.0, (embedded - loaded) * 1e3)

    def _backbone(self, spec: EmbeddingSpec) -> LoadedBackbone:
        if spec.digest not in self._loaded:
            self._load(spec, pictures=1)
        return self._loaded[spec.digest]

    def _load(self, spec: EmbeddingSpec, pictures: int | None) -> None:
        loaded = self._encoders.load_matching(spec, pictures)
        if not loaded.for_few:
            loaded.embed(_blank(spec.input_px))  # the first call allocates and compiles; nobody times it
            # The half a million objects of torch and the model stay as long as the server does. Looking through
            # them for garbage, every other second under load, stopped all threads for 0.3 s.
            gc.collect()
            gc.freeze()
        self._loaded[spec.digest] = loaded

    def _begin_replacing(self, spec: EmbeddingSpec) -> None:
        """Load in the background what embeds many pictures faster than what embedded the first, once."""
        with self._counting:
            if not self._loaded[spec.digest].for_few or spec.digest in self._replacing:
                return
            self._replacing.add(spec.digest)
        Thread(target=self._replace, args=(spec,), name="coarseloc-load", daemon=True).start()

    def _replace(self, spec: EmbeddingSpec) -> None:
        time.sleep(REPLACED_AFTER_S)
        run_in_background(lambda: import_module("coarseloc.embedding.torch_engines"))  # torch: seconds
        try:
            self._load(spec, pictures=None)
        except Exception as error:  # what embedded the first pictures goes on
            _log.warning("%s is embedded by numpy alone: %s", spec.backbone, error)


def _blank(side: int) -> UInt8:
    return np.full((1, side, side, 3), 128, np.uint8)


class _Stopped(Exception):
    """The server is being stopped."""


class VectorFollower:
    """Owns the embedded store if it can have it, or speaks to the Qdrant server. Whoever owns it brings over what
    ingest writes."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._store: VectorStore | None = None
        self._opening = Lock()
        self._stop = Event()
        self._thread: Thread | None = None
        self.trouble: str | None = None  # why filtered search cannot be had just now

    def store(self) -> VectorStore:
        """Open, or as opened before. Raises LockedError, VectorStoreUnavailable or VectorStoreError."""
        with self._opening:
            if self._store is None:
                self._store = configured_store(self._settings, self._database.identity)
                self.trouble = None
            return self._store

    def catch_up(self) -> None:
        """Bring the store up to the database, and note whether it can be had."""
        try:
            store = self.store()
            store.collections()  # a server that has gone away since says so here
            with self._database.read() as session:
                behind = bool(embeddings.pending_counts(session))
                specs = embeddings.specs(session)
            if behind or any(is_lost(self._database, store, spec) for spec in specs):
                drain(self._database, store, self._check_stop)
            self.trouble = None
        except _Stopped:
            return
        except CoarselocError as error:
            if self.trouble is None:
                _log.warning("%s", error)
            self.trouble = str(error)

    def _check_stop(self, *_progress: object) -> None:
        """Called between batches, each of which is complete: a stop need not wait for the rest."""
        if self._stop.is_set():
            raise _Stopped

    def follow(self) -> None:
        """Catch up every few seconds, in a thread of its own, until closed."""
        self._thread = Thread(target=self._run, name="coarseloc-vectors", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.catch_up()
            except Exception:  # a defect here must not end the following for good
                _log.exception("bringing the vector store up to date failed")
            self._stop.wait(FOLLOW_EVERY_S)

    def close(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=30)
        with self._opening:
            if self._store:
                self._store.close()
                self._store = None


class ResultCache:
    """Keeps the latest `size` results of slow look-ups that do not change; shared among threads."""

    def __init__(self, size: int = 256) -> None:
        self._size, self._values, self._lock = size, OrderedDict[Hashable, tuple[Hashable, object]](), Lock()

    def recall(self, key: Hashable, make: Callable[[], T], version: Hashable = None) -> T:
        """Return what `make` gives, remembered; of a key the latest `version` alone is kept."""
        with self._lock:
            entry = self._values.get(key)
            if entry is not None and entry[0] == version:
                self._values.move_to_end(key)
                return entry[1]  # type: ignore[return-value]
        value = make()
        with self._lock:
            self._values[key] = (version, value)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class WebState:
    """What one application holds open, in `app.extensions["coarseloc"]`."""

    workspace: Workspace
    backbones: Mapping[str, BackboneSpec]
    encoders: QueryEncoders
    vectors: VectorFollower
    memory: ResultCache = field(default_factory=ResultCache)
    answered_frames: ResultCache = field(default_factory=lambda: ResultCache(1))  # the gallery's table, a large one
    map_tiles: ResultCache = field(default_factory=lambda: ResultCache(1024))  # of about 20 kB
    base_map: BaseMap | None = None

    @classmethod
    def open(cls, settings: Settings) -> WebState:
        workspace = Workspace(settings, notice=_log.warning)
        vectors = VectorFollower(settings, workspace.db)
        base_map = open_base_map(settings.base_map) if settings.base_map else None
        backbones = table(settings.backbones)
        return cls(workspace, backbones, QueryEncoders(settings), vectors, base_map=base_map)

    @property
    def settings(self) -> Settings:
        return self.workspace.settings

    @property
    def database(self) -> Database:
        return self.workspace.db

    def backbone_order(self, backbone: str) -> int:
        """Return a backbone's position in lists: as in the table, small ones first, unknown ones last."""
        names = list(self.backbones)
        return names.index(backbone) if backbone in names else len(names)

    def remember_until_write(self, key: tuple[Hashable, ...], read: Callable[[Session], T]) -> T:
        """Return what `read` selects of the references, from memory until one of them is written."""
        with self.database.read() as session:
            return self.memory.recall(key, lambda: read(session), gallery.generation(session))

    @property
    def uploads(self) -> Path:
        return self.settings.data_dir / "uploads"

    def close(self) -> None:
        self.vectors.close()
        self.workspace.close()


def current_state() -> WebState:
    """Return the state of the current application."""
    state: WebState = current_app.extensions["coarseloc"]
    return state
