"""Qdrant Edge: the server's engine inside this process, one shard folder a collection."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from filelock import BaseFileLock

from coarseloc.core import files
from coarseloc.core.errors import VectorStoreError
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import Float32, Point, ScoredPoint
from coarseloc.vectors.checks import check_batch, check_name, check_query, is_name
from coarseloc.vectors.shard import BrokenShard, Shard, UnflushedShard, check_shard

T = TypeVar("T")
log = logging.getLogger(__name__)

OWNER = "owner.json"  # beside the lock: who holds it
_BROKEN = ".broken-"


class EdgeStore:
    """A VectorStore in a local folder, `folder/<collection>/` each. Threads may share it, processes may not:
    opening takes the folder's lock and raises LockedError where another process holds it.

    A collection is loaded when first used, once every byte of it was checked. One that is damaged is renamed
    `<collection>.broken-<time>`, one whose last writes were cut off is deleted, and from then on neither is there:
    whoever drains finds it lacking and replays it from SQL.
    """

    backend = "qdrant-edge"

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self.location = str(self.folder)
        self._lock = _hold_folder(self.folder)
        self._open: dict[str, Shard] = {}
        self._closing = threading.Lock()  # held while what is open changes
        self._turns: dict[str, threading.RLock] = {}  # by collection: who opens, checks or drops it
        for leftover in (*self.folder.glob(".*.new"), *self.folder.glob(".*.dropped")):
            shutil.rmtree(leftover, ignore_errors=True)

    def __enter__(self) -> EdgeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collections(self) -> list[str]:
        """List the sound collections: each is opened, and a damaged one renamed."""
        for path in [*self.folder.iterdir()]:
            if path.is_dir() and is_name(path.name) and _BROKEN not in path.name:
                self._find(path.name)
        return sorted([*self._open])

    def has(self, collection: str) -> bool:
        """Whether the collection is there with every byte as it was flushed; the engine loads it when it is used."""
        with self._turn(collection):
            return collection in self._open or self._sound(collection, check_shard) is not None

    @property
    def needs_rebuild(self) -> list[str]:
        """Collections that were put aside as damaged and have not been made anew since."""
        aside = {path.name.partition(_BROKEN)[0] for path in self.folder.glob(f"*{_BROKEN}*")}
        return sorted(name for name in aside if not (self.folder / name).is_dir())

    def ensure(self, collection: str, dim: int) -> None:
        """Open the collection, or create it with its payload indexes. One found damaged is put aside and
        VectorStoreError raised, so that nobody goes on as if its points were still there."""
        with self._turn(collection):
            was_there = (self.folder / collection).is_dir()
            shard = self._find(collection)
            if shard is None and was_there:
                raise self._missing_error(collection)
            if shard is None:
                shard = self._note_open(collection, Shard.create(self.folder / collection, dim))
        if shard.dim != dim:
            raise VectorStoreError(
                f"collection {collection} in {self.folder} holds vectors of {shard.dim} values, not {dim}: it belongs "
                "to another backbone. Use EmbeddingSpec.collection for the name, or drop it first."
            )

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write a batch, replacing points of the same id. The batch is checked first and refused whole."""
        shard = self._shard(collection)
        vectors = check_batch(points, shard.dim, collection)
        if points:
            shard.upsert(points, vectors)

    def delete(self, collection: str, point_ids: Sequence[str]) -> None:
        """Delete points; ids that are not there are no error."""
        if point_ids:
            self._shard(collection).delete(point_ids)

    def flush(self, collection: str) -> None:
        """Return when everything written so far survives a power cut."""
        self._shard(collection).flush()

    def query(self, collection: str, vector: Float32, k: int, where: Where = ALL_TILES) -> list[ScoredPoint]:
        """The k best by dot product among those that match, exact, best first; equal scores by id.

        Where more points share the k-th score than there is room for, which of them come is the engine's choice.
        """
        shard = self._shard(collection)
        hits = shard.query(check_query(vector, k, shard.dim, collection), k, where)
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def count(self, collection: str, where: Where = ALL_TILES) -> int:
        return self._shard(collection).count(where)

    def ids(self, collection: str) -> Iterator[str]:
        return self._shard(collection).ids()

    def vectors(self, collection: str, point_ids: Sequence[str]) -> dict[str, Float32]:
        """Read {id: vector float32 [D]}; missing ids are left out."""
        return self._shard(collection).vectors(point_ids)

    def drop(self, collection: str) -> None:
        """Delete the collection, and what was put aside of it; one that is not there is no error."""
        path = self.folder / check_name(collection)
        with self._turn(collection):
            if shard := self._open.pop(collection, None):
                shard.close()
            if path.is_dir():
                self._remove(path)
            for broken in self.folder.glob(f"{collection}{_BROKEN}*"):
                shutil.rmtree(broken, ignore_errors=True)

    def drop_all(self) -> None:
        """Delete every collection, and what was put aside; none is opened."""
        for path in [*self.folder.iterdir()]:
            name = path.name.partition(_BROKEN)[0]
            if path.is_dir() and is_name(name):
                self.drop(name)

    def _remove(self, path: Path) -> None:
        dropped = self.folder / f".{path.name}.{uuid4().hex[:8]}.dropped"
        path.rename(dropped)  # gone in one step, whatever happens to the deletion
        shutil.rmtree(dropped, ignore_errors=True)

    def close(self) -> None:
        """Flush and close the shards, and let the folder go to other processes."""
        with self._closing:
            try:
                while self._open:
                    collection, shard = self._open.popitem()
                    try:
                        shard.close()
                    except VectorStoreError as error:  # unflushed: the next to open it writes it anew from SQL
                        log.warning("collection %s: %s", collection, error)
            finally:
                self._lock.release()

    def _shard(self, collection: str) -> Shard:
        """The open shard; VectorStoreError where there is none or it was just found damaged."""
        if shard := self._open.get(collection):  # no lock: a dict look-up is atomic
            return shard
        shard = self._find(collection)
        if shard is None:
            raise self._missing_error(collection)
        return shard

    def _closed_error(self) -> VectorStoreError:
        return VectorStoreError(f"the vector store in {self.folder} was closed: open it again")

    def _missing_error(self, collection: str) -> VectorStoreError:
        damaged = ": it was damaged and put aside" if collection in self.needs_rebuild else ""
        return VectorStoreError(
            f"there is no collection {collection} in {self.folder}{damaged}. "
            "Run `coarseloc rebuild` to write it from the database."
        )

    def _turn(self, collection: str) -> threading.RLock:
        """Held by one thread at a time; those that are after another collection do not wait for it."""
        return self._turns.setdefault(collection, threading.RLock())

    def _find(self, collection: str) -> Shard | None:
        with self._turn(collection):
            if collection not in self._open and (shard := self._sound(collection, Shard)):
                self._note_open(collection, shard)
            return self._open.get(collection)

    def _note_open(self, collection: str, shard: Shard) -> Shard:
        """Raises VectorStoreError where the store was closed meanwhile."""
        with self._closing:
            if self._lock.is_locked:
                self._open[collection] = shard
                return shard
        shard.close()
        raise self._closed_error()

    def _sound(self, collection: str, read: Callable[[Path], T]) -> T | None:
        """What is read of a collection's folder; one that is not there or not sound gives None and is out of the way
        from then on."""
        path = self.folder / check_name(collection)
        if not self._lock.is_locked:
            raise self._closed_error()
        try:
            return read(path) if path.is_dir() else None
        except UnflushedShard as error:
            log.warning("collection %s: %s: it is written anew from SQL", collection, error)
            self._remove(path)
        except BrokenShard as error:
            self._put_aside(path, str(error))
        return None

    def _put_aside(self, path: Path, reason: str) -> None:
        for older in self.folder.glob(f"{path.name}{_BROKEN}*"):
            shutil.rmtree(older, ignore_errors=True)
        aside = path.with_name(f"{path.name}{_BROKEN}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
        path.rename(aside)
        log.warning("collection %s is damaged (%s): put aside as %s, to be rebuilt from SQL", path.name, reason, aside)


def _hold_folder(folder: Path) -> BaseFileLock:
    """Create the folder and lock it for this process until the lock is released or the process dies.

    Raises LockedError naming the process that holds it, VectorStoreError where the folder cannot be written.
    """

    def in_use() -> str:
        return (
            f"the vectors in {folder} are in use by {_owner(folder / OWNER)}. One process at a time: stop that one, "
            "let it do this work, or run a Qdrant server and set COARSELOC_QDRANT_URL."
        )

    try:
        files.make_private_folder(folder)
        lock = files.hold_lock(folder / ".lock", in_use)
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
        owner = {"pid": os.getpid(), "command": command, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            files.write_text(folder / OWNER, json.dumps(owner))
        except OSError:
            lock.release()  # or it would be held until garbage is collected
            raise
    except OSError as error:
        raise VectorStoreError(
            f"{folder} cannot be used for vectors ({error.strerror or error}): make it writable, or set "
            "COARSELOC_DATA_DIR to a folder on a local disk"
        ) from error
    return lock


def _owner(path: Path) -> str:
    """Describe the process that holds the lock, for a message."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} (`{owner['command']}`, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it may be writing it just now
        return "another process"
