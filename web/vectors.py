"""The vector store of one server: opened when first needed, followed up in the background, missed without harm."""

from __future__ import annotations

import logging
from threading import Event, Lock, Thread

from coarseloc.core.config import Settings
from coarseloc.core.errors import CoarselocError
from coarseloc.store import Database, embeddings
from coarseloc.vectors import configured_store
from coarseloc.vectors.protocol import VectorStore
from coarseloc.vectors.sync import drain

FOLLOW_EVERY_S = 3.0

_log = logging.getLogger("coarseloc")


class _Stopped(Exception):
    """The server is being stopped."""


class Vectors:
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
                behind = embeddings.pending_counts(session)
            if behind:
                drain(self._database, store, self._go_on)
            self.trouble = None
        except _Stopped:
            return
        except CoarselocError as error:
            if self.trouble is None:
                _log.warning("%s", error)
            self.trouble = str(error)

    def _go_on(self, _done: int, _total: int, _what: str) -> None:
        """Asked between batches, each of which is complete: a stop need not wait for the rest."""
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
