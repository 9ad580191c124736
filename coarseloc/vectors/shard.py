"""One collection of Qdrant Edge on disk: a shard folder with our manifest in it.

The manifest says what the folder must hold. The engine alone would not notice: where a file of its id tracker is
gone, it opens the shard with most points missing and no error (measured with 0.9.0).
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

from coarseloc.core import files
from coarseloc.core.errors import CoarselocError, VectorStoreError
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import Float32, Point, ScoredPoint
from coarseloc.vectors.payload import INDEXES, edge_filter, payload

MANIFEST = "coarseloc.json"
_PAGE = 1_000
# The engine writes to mapped files: on a full disk the process would die of SIGBUS in the middle of it.
_RESERVE_BYTES = 128 * 2**20
# The machine's troubles, not the shard's: a folder is not put aside for them.
_PASSING = ("Permission denied", "Read-only file", "Too many open", "No space left", "Cannot allocate")


class BrokenShard(Exception):
    """The folder does not hold what its manifest says, or the engine cannot read it."""


class Shard:
    """An open collection. Reads may run beside one another and beside a write; writes take turns."""

    def __init__(self, path: Path) -> None:
        """Open an existing folder. Raises BrokenShard where it is damaged, VectorStoreError where the machine
        (permissions, disk, memory) is in the way."""
        self.path = path
        _check_space(path)  # opening writes too
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            self.dim, expected = int(manifest["dim"]), manifest["count"]
            with engine_errors(f"opening {path}"):
                self._edge = qe.EdgeShard.load(str(path))
                count = self.count()
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            raise BrokenShard(f"its {MANIFEST} is missing or unreadable: {error}") from error
        except (OSError, VectorStoreError) as error:
            if any(trouble in str(error) for trouble in _PASSING):
                raise VectorStoreError(f"{error}. The vectors are untouched: mend that and try again.") from error
            raise BrokenShard(str(error)) from error
        if expected is not None and count != expected:
            self.close()
            raise BrokenShard(f"it holds {count} points where {expected} were flushed")
        self._flushed = expected is not None  # nothing was written since the last flush
        self._writing = threading.Lock()
        self._ensure_indexes()

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
            edge.flush()
            edge.close()
        _write_manifest(draft, dim, count=0)
        draft.rename(path)
        files.sync(path.parent)
        return cls(path)

    def _ensure_indexes(self) -> None:
        with engine_errors(f"indexing {self.path}"):
            for field in INDEXES.keys() - self._edge.info().payload_schema.keys():
                kind: qe.PayloadSchemaType = getattr(qe.PayloadSchemaType, INDEXES[field].capitalize())
                self._edge.update(qe.UpdateOperation.create_field_index(field, kind))

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
    free = shutil.disk_usage(folder).free
    if free < _RESERVE_BYTES:
        raise VectorStoreError(
            f"the disk of {folder} has {free / 2**20:.0f} MiB left, vectors are opened and written only while "
            f"there are {_RESERVE_BYTES / 2**20:.0f}: make room, or move COARSELOC_DATA_DIR to another disk"
        )


def _write_manifest(path: Path, dim: int, count: int | None) -> None:
    """Replace the manifest in one step; `count` is None while there are writes that were not flushed."""
    manifest = json.dumps({"dim": dim, "distance": "dot", "count": count})
    files.write_text(path / MANIFEST, manifest, durable=True)
