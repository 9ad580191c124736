"""One collection of Qdrant Edge on disk: a shard folder with our manifest in it.

The manifest says what the folder must hold, with a digest of every file, and nothing is opened that is not so: the
engine itself answers wrongly from damaged files, hangs on some and aborts the process on others (seen with 0.9.0).
Searching changes no file, so the digests of the last flush hold until the next write.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe
import xxhash

from coarseloc.core import files, ids
from coarseloc.core.errors import CoarselocError, VectorStoreError
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import Float32, Point, ScoredPoint
from coarseloc.vectors.payload import INDEXES, edge_filter, payload

MANIFEST = "coarseloc.json"
_PAGE = 1_000
# The machine's troubles, not the shard's: a folder is not put aside for them.
_PASSING = ("Permission denied", "Read-only file", "Too many open", "No space left", "Cannot allocate")
_PIECE = 1 << 18
_ZEROS = bytes(_PIECE)


class BrokenShard(Exception):
    """The folder does not hold what its manifest says, or the engine cannot read it."""


class UnflushedShard(BrokenShard):
    """Writes were cut off, so that no digest holds, or the folder is of a version that wrote none."""


@contextmanager
def _whose_fault() -> Iterator[None]:
    """Tell the machine's troubles, as VectorStoreError, from the shard's, as BrokenShard."""
    try:
        yield
    except (OSError, VectorStoreError) as error:
        if any(trouble in str(error) for trouble in _PASSING):
            raise VectorStoreError(f"{error}. The vectors are untouched: mend that and try again.") from error
        raise BrokenShard(str(error)) from error


class Shard:
    """An open collection. Reads may run beside one another and beside a write; writes take turns."""

    def __init__(self, path: Path) -> None:
        """Open an existing folder. Raises BrokenShard where it is damaged, VectorStoreError where the machine
        (permissions, disk, memory) is in the way."""
        self.path = path
        _check_space(path)  # opening writes too
        manifest = check_shard(path)
        self.dim, expected = int(manifest["dim"]), int(manifest["count"])
        with _whose_fault(), engine_errors(f"opening {path}"):
            self._edge = qe.EdgeShard.load(str(path))
            count = self.count()
            if count == expected and _digests(path) != manifest["xxh3_128"]:
                self._edge.flush()  # it applied what its journals held, as it does once
                _write_manifest(path, self.dim, count)
        if count != expected:
            self._edge.close()
            raise BrokenShard(f"it holds {count} points where {expected} were flushed")
        self._flushed = True  # nothing was written since the last flush
        self._writing = threading.Lock()

    @classmethod
    def create(cls, path: Path, dim: int) -> Shard:
        """Create an empty shard at `path`, in full or not at all: it is written beside its place, then renamed."""
        _check_space(path.parent)
        draft = path.with_name(f".{path.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        vectors = qe.EdgeVectorParams(size=dim, distance=qe.Distance.Dot)
        with engine_errors(f"creating {path}"):
            edge = qe.EdgeShard.create(str(draft), qe.EdgeConfig(vectors=vectors))  # no HNSW: searches are exact
            for field, name in INDEXES.items():
                kind: qe.PayloadSchemaType = getattr(qe.PayloadSchemaType, name.capitalize())
                edge.update(qe.UpdateOperation.create_field_index(field, kind))
            edge.flush()
            edge.close()
        _write_manifest(draft, dim, count=0)
        draft.rename(path)
        files.sync(path.parent)
        return cls(path)

    def upsert(self, points: Sequence[Point], vectors: Float32) -> None:
        """Write a checked batch; `vectors` are its vectors as float32 [N, dim]."""
        rows = [
            qe.Point(point.id, vector, payload(point.facts))  # an array will do for a list here
            for point, vector in zip(points, vectors, strict=True)
        ]
        self._write(qe.UpdateOperation.upsert_points(rows))

    def delete(self, point_ids: Sequence[str]) -> None:
        self._write(qe.UpdateOperation.delete_points(list(point_ids)))

    def _write(self, operation: qe.UpdateOperation) -> None:
        _check_space(self.path)
        with self._writing, engine_errors(f"writing to {self.path}"):
            if self._flushed:  # from here to the next flush, a count would be a guess
                _write_manifest(self.path, self.dim, count=None)
                self._flushed = False
            self._edge.update(operation)

    def flush(self) -> None:
        """Return when all that was written is on the disk, and the manifest with it."""
        with self._writing, engine_errors(f"flushing {self.path}"):
            self._edge.flush()
            if not self._flushed:
                _write_manifest(self.path, self.dim, self.count())
                self._flushed = True

    def query(self, vector: Float32, k: int, where: Where) -> list[ScoredPoint]:
        request = qe.QueryRequest(
            limit=k,
            query=qe.Query.Nearest(vector),  # type: ignore[arg-type]
            filter=edge_filter(where),
            params=qe.SearchParams(exact=True),
        )
        with engine_errors(f"searching {self.path}"):
            return [ScoredPoint(str(hit.id), hit.score) for hit in self._edge.query(request)]

    def count(self, where: Where = ALL_TILES) -> int:
        with engine_errors(f"counting {self.path}"):
            return self._edge.count(qe.CountRequest(exact=True, filter=edge_filter(where)))

    def ids(self) -> Iterator[str]:
        offset: Any = None
        while True:
            with engine_errors(f"listing {self.path}"):
                page, offset = self._edge.scroll(
                    qe.ScrollRequest(offset=offset, limit=_PAGE, with_payload=False, with_vector=False)
                )
            yield from (str(record.id) for record in page)
            if offset is None:
                return

    def vectors(self, point_ids: Sequence[str]) -> dict[str, Float32]:
        with engine_errors(f"reading {self.path}"):
            records = self._edge.retrieve(list(point_ids), with_payload=False, with_vector=True)
        return {str(record.id): np.asarray(record.vector, np.float32) for record in records}

    def close(self) -> None:
        """Flush what was written, where the disk lets it, and close."""
        try:
            self.flush()
        finally:
            with engine_errors(f"closing {self.path}"):
                self._edge.close()


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn whatever the engine raises into VectorStoreError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, CoarselocError):
        raise
    except BaseException as error:  # a panic inside the engine is a PanicException, which is no Exception
        raise VectorStoreError(f"{doing}: {error}") from error


def _check_space(folder: Path) -> None:
    """The engine writes to mapped files: on a full disk the process would die of SIGBUS in the middle of it."""
    free = shutil.disk_usage(folder).free
    if free < files.RESERVE_BYTES:
        raise VectorStoreError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB left, vectors are opened and written only while "
            f"there are {files.RESERVE_BYTES / 2**20:.0f}: make room, or move COARSELOC_DATA_DIR to another disk"
        )


def _write_manifest(path: Path, dim: int, count: int | None) -> None:
    """Replace the manifest in one step; `count` is None while there are writes that were not flushed."""
    facts: dict[str, Any] = {"dim": dim, "distance": "dot", "count": count}
    if count is not None:
        facts["xxh3_128"] = _digests(path)
    facts["digest"] = ids.digest(facts)
    files.write_text(path / MANIFEST, json.dumps(facts), durable=True)


def _digests(path: Path) -> dict[str, str]:
    return {name: sparse_digest(path / name) for name in _file_names(path)}


@_whose_fault()
def check_shard(path: Path) -> dict[str, Any]:
    """Read the manifest of a folder of which every byte is as it was flushed. Raises BrokenShard naming what is not,
    VectorStoreError where the machine (permissions, memory) is in the way."""
    try:
        facts: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if "digest" not in facts:
            raise UnflushedShard("it was written by an earlier version, without digests")
        own = facts.pop("digest")
        if own != ids.digest(facts):
            raise BrokenShard(f"{MANIFEST} is not as it was written")
        if facts["count"] is None:
            raise UnflushedShard("its last writes were cut off")
        digests: dict[str, str] = facts["xxh3_128"]
        if differing := sorted(digests.keys() ^ set(_file_names(path))):
            raise BrokenShard(f"{differing[0]} is {'gone' if differing[0] in digests else 'none of its files'}")
        for name, digest in digests.items():
            if sparse_digest(path / name) != digest:
                raise BrokenShard(f"the bytes of {name} are not those written")
        return facts
    except (KeyError, TypeError, AttributeError, ValueError, FileNotFoundError) as error:
        raise BrokenShard(f"its {MANIFEST} is missing or unreadable: {error}") from error


def _file_names(path: Path) -> list[str]:
    """Below a shard's folder, without its manifest; as text, since a Path takes ten times as long."""
    before = len(str(path)) + 1
    names = (os.path.join(folder, name)[before:] for folder, _, files in os.walk(path) for name in files)  # noqa: PTH118
    return sorted(name for name in names if name != MANIFEST)


def sparse_digest(path: Path) -> str:
    """xxh3_128 of a file's size and of its pieces that are not all zeros, each with its place, hexadecimal.

    The engine's files are mostly holes, which are not read: 200 MB of them take a hundredth of a second.
    """
    state, piece = xxhash.xxh3_128(), bytearray(_PIECE)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        size, at = os.fstat(handle).st_size, 0
        state.update(size.to_bytes(8, "little"))
        while at < size:
            try:
                at = os.lseek(handle, at, os.SEEK_DATA) // _PIECE * _PIECE
            except OSError:  # nothing but a hole up to the end
                break
            length = os.preadv(handle, [piece], at)
            content = piece if length == _PIECE else piece[:length]  # as bytes: a memoryview compares item by item
            if content != _ZEROS[:length]:
                state.update(at.to_bytes(8, "little"))
                state.update(content)
            at += length or _PIECE
    finally:
        os.close(handle)
    return state.hexdigest()
