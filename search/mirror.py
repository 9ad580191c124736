"""The mirror: one backbone's vectors of one reference set, on disk, ready to be searched exactly.

    mirrors/<collection>/<reference set's id>/
        index.faiss             the vectors, memory-mapped when opened
        index.half.faiss        the same in half precision, where they are many: what a single query reads first
        rotated_tile_ids.npy    int64 [N], the database's key of each row, memory-mapped
        point_ids.npy           uint64 [N, 2], each row's point id in halves, which orders equal scores
        columns.npz             the values of each row that filters compare, read at the first filter
        schema.json             which vectors these are, the state of the database that they are from, and the size
                                and digest of each file above; its last key is the digest of all the others

Derived from SQL: it can be deleted at any time, and is refused or rebuilt when it does not match the database, or when
a byte of it is not as it was written.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from coarseloc.core import files, ids
from coarseloc.core.errors import LockedError, StaleMirror, StoreError
from coarseloc.core.filters import TileColumns, Where
from coarseloc.store import Database, seals, tallies
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.matrix import StoredVectors, load_vectors
from coarseloc.store.references import StoredReferenceSet
from search.exact_index import ExactIndex
from search.neighbors import PointIds, Rows, Selection
from search.trials import FILE as TRIALS_FILE
from search.trials import SearchTrials, shared_trials

FORMAT = 4  # raised when the files change their meaning
LOCK_TIMEOUT_S = 600.0
CHECK_TIMEOUT_S = 5.0
SELECTIONS = 16  # filters whose rows an open mirror caches
# In 256 KiB pieces xxh3 reads 9 GB/s of a core, blake2b 0.9. Not mapped: an unreadable sector would end the process.
_PIECE = 1 << 18

_log = logging.getLogger("coarseloc")
Notice = Callable[[str], None]


class OldMirrorFormat(StaleMirror):
    """A mirror of another version of this program: not damaged, and not read."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Which vectors a mirror holds. Two mirrors of equal schemas hold equal vectors."""

    format: int
    reference_set: str  # its id
    backbone: str
    spec_digest: str
    dim: int
    metric: str
    version: str  # of the embeddings, see `tallies.Tally`
    count: int

    @property
    def digest(self) -> str:
        return ids.digest(asdict(self))


@dataclass(frozen=True)
class Mirror:
    """An opened mirror. Row i of `index` is `rotated_tile_ids[i]` and row i of `columns`."""

    folder: Path
    schema: Schema
    index: ExactIndex
    rotated_tile_ids: Rows  # int64 [N]
    point_ids: PointIds  # uint64 [N, 2]
    build_ms: float  # reading from SQL and indexing, when it was built
    open_ms: float  # reading it from disk, or building it
    built: bool  # by this call of `open_mirror`
    columns_digest: str

    @cached_property
    def columns(self) -> TileColumns:
        """The values of each row that filters compare. Raises StaleMirror where another process replaced the mirror."""
        path = self.folder / "columns.npz"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StaleMirror(f"the mirror {self.folder} is damaged: {error}. Delete the folder.") from None
        if xxhash.xxh3_128_hexdigest(content) != self.columns_digest:
            raise StaleMirror(f"the mirror {self.folder} was built anew or damaged while it was open: try again.")
        with np.load(io.BytesIO(content)) as file:
            arrays = dict(file)
        del arrays["schema"]
        return TileColumns(**arrays)

    def selection(self, where: Where) -> Selection | None:
        """Select the rows that match, cached for the next call; None for all rows where the filter is empty."""
        return None if where == Where() else self._selection(where)

    @cached_property
    def _selection(self) -> Callable[[Where], Selection]:
        # Not `self` in the lambda: a reference cycle would keep the files of an unused mirror mapped until collected.
        columns = self.columns
        return lru_cache(SELECTIONS)(lambda where: Selection(where.mask(columns)))


def open_mirror(
    db: Database,
    root: Path,
    reference_set: StoredReferenceSet,
    spec: StoredSpec,
    *,
    rebuild: bool = True,
    notice: Notice = _log.warning,
) -> Mirror:
    """Open the mirror under `root`; where it is missing, stale or damaged, build it from SQL and call `notice`.

    With `rebuild=False` raises StaleMirror naming the differences instead. Raises StoreError where the reference set
    has no embeddings of this spec, LockedError where another process builds it for more than ten minutes.
    """
    with db.read() as session:
        seals.check(session, "set", reference_set.id)
        version = tallies.tally(session, reference_set.id, spec.id).version
    expected = _schema(reference_set, spec, version)
    if expected.count == 0:
        raise StoreError(
            f"reference set {reference_set.name!r} has no embeddings of {spec.backbone} "
            f"at {spec.how}: ingest it with this backbone first"
        )
    folder, trials = root / spec.collection / reference_set.uid, shared_trials(root / TRIALS_FILE)
    with _lock(folder):
        try:
            return _open(folder, expected, trials)
        except StaleMirror as stale:
            if not rebuild:
                raise
            if folder.exists():  # the first build needs no notice
                notice(f"{stale} Building it anew.")
        return _build(db, folder, reference_set, spec, trials)


def _schema(reference_set: StoredReferenceSet, spec: StoredSpec, version: str) -> Schema:
    return Schema(
        format=FORMAT,
        reference_set=reference_set.uid,
        backbone=spec.backbone,
        spec_digest=spec.digest,
        dim=spec.dim,
        metric="ip",
        version=version,
        count=int(version.split("-")[0]),
    )


# --- opening ------------------------------------------------------------------------------------


def _open(folder: Path, expected: Schema, trials: SearchTrials) -> Mirror:
    """Raises StaleMirror naming what the folder holds and what was expected."""
    started = time.perf_counter()
    if not folder.is_dir():
        raise StaleMirror(f"there is no mirror at {folder} yet: `coarseloc search` builds it.")
    manifest = _read_manifest(folder)
    _compare(folder, manifest.schema, expected)
    _check_files(folder, manifest, _known_digest)
    try:
        keys = np.load(folder / "rotated_tile_ids.npy", mmap_mode="r")
        points = np.load(folder / "point_ids.npy", mmap_mode="r")
        index = ExactIndex.open(folder / "index.faiss", points, trials)
    except (StoreError, OSError, ValueError) as error:
        raise StaleMirror(f"the mirror {folder} is damaged: {error}.") from None
    if (index.count, index.dim, len(keys), len(points)) != (
        expected.count,
        expected.dim,
        expected.count,
        expected.count,
    ):
        raise StaleMirror(
            f"the mirror {folder} is damaged: it holds {index.count} x {index.dim} vectors and {len(keys)} keys, "
            f"expected {expected.count} x {expected.dim}."
        )
    return Mirror(
        folder,
        manifest.schema,
        index,
        keys,
        points,
        manifest.build_ms,
        (time.perf_counter() - started) * 1e3,
        built=False,
        columns_digest=manifest.digests["columns.npz"],
    )


def _compare(folder: Path, schema: Schema, expected: Schema) -> None:
    differing = [
        f"{f.name} is {getattr(schema, f.name)}, the database has {getattr(expected, f.name)}"
        for f in fields(Schema)
        if getattr(schema, f.name) != getattr(expected, f.name)
    ]
    if differing:
        raise StaleMirror(f"the mirror {folder} is stale: {'; '.join(differing)}.")


# --- digests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Manifest:
    """What schema.json says of a mirror."""

    schema: Schema
    sizes: dict[str, int]  # bytes of each file
    digests: dict[str, str]  # xxh3_128 of each file, hexadecimal
    build_ms: float


def check_mirrors(root: Path) -> tuple[int, list[str]]:
    """Read every byte of every mirror under `root`: how many are sound, and why others could not be judged (of an
    older format, or in the hands of another process). Raises StoreError naming those that are damaged."""
    sound, unread, damaged = 0, [], []
    for folder in sorted(path.parent for path in root.glob("*/*/schema.json")):
        if folder.name.startswith("."):
            continue  # what a build that was killed left
        try:
            with _lock(folder, CHECK_TIMEOUT_S):
                _check_files(folder, _read_manifest(folder), file_digest)
            sound += 1
        except (OldMirrorFormat, LockedError) as error:
            unread.append(str(error))
        except (StaleMirror, OSError) as error:
            damaged.append(str(error))
    if damaged:
        raise StoreError(f"{' '.join(damaged)} Mirrors are built anew from SQL by the next search.")
    return sound, unread


def _read_manifest(folder: Path) -> Manifest:
    """Raises StaleMirror where it is damaged, OldMirrorFormat where it is of an older or newer format."""
    try:
        facts = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        if (number := facts["schema"]["format"]) != FORMAT and "digest" not in facts:
            raise OldMirrorFormat(
                f"the mirror {folder} is stale: it is of format {number}, whose files carry no digests, "
                f"this version reads {FORMAT}."
            )
        own = facts.pop("digest")
        if own != ids.digest(facts):
            raise StaleMirror(f"the mirror {folder} is damaged: schema.json is not as it was written.")
        return Manifest(Schema(**facts["schema"]), facts["bytes"], facts["xxh3_128"], float(facts["build_ms"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StaleMirror(f"the mirror {folder} is damaged: {error}.") from None


def _check_files(folder: Path, manifest: Manifest, digest_of: Callable[[Path], str]) -> None:
    """Raises StaleMirror naming a file whose size or bytes are not those that were written."""
    try:
        for name, size in manifest.sizes.items():
            if (actual := (folder / name).stat().st_size) != size:
                raise StaleMirror(f"the mirror {folder} is damaged: {name} has {actual} bytes, expected {size}.")
        for name, digest in manifest.digests.items():
            if digest_of(folder / name) != digest:
                raise StaleMirror(f"the mirror {folder} is damaged: the bytes of {name} are not those written.")
    except OSError as error:
        raise StaleMirror(f"the mirror {folder} is damaged: {error}.") from None


def file_digest(path: Path) -> str:
    """xxh3_128 of a file's content, hexadecimal. Raises OSError where it cannot be read."""
    state, piece = xxhash.xxh3_128(), bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(piece):
            state.update(memoryview(piece)[:size])
    return state.hexdigest()


_RECENT_S = 2.0  # a file written to since may be written to again within one tick of its file system's clock
_digests: dict[Path, tuple[tuple[int, ...], str]] = {}  # of this process: on disk it could be wrong


def _known_digest(path: Path) -> str:
    """The digest of a file, read once a process as long as its size, times and inode are the same."""
    facts = path.stat()
    identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    entry = _digests.get(path)
    if entry is not None and entry[0] == identity:
        return entry[1]
    digest = file_digest(path)
    if abs(time.time() - max(facts.st_mtime, facts.st_ctime)) > _RECENT_S:
        _digests[path] = (identity, digest)
    return digest


# --- building -----------------------------------------------------------------------------------


def _build(
    db: Database, folder: Path, reference_set: StoredReferenceSet, spec: StoredSpec, trials: SearchTrials
) -> Mirror:
    started = time.perf_counter()
    with db.read() as session:
        stored = load_vectors(session, reference_set.id, spec.id)
        count = len(stored.rotated_tile_ids)
        index = ExactIndex.from_parts(count, stored.dim, stored.parts, stored.point_ids, trials)
    build_ms = (time.perf_counter() - started) * 1e3
    schema = _schema(reference_set, spec, stored.version)  # of the vectors that were read, perhaps newer than expected
    try:
        columns_digest = _write(folder, schema, index, stored, build_ms)
    except OSError as error:
        raise StoreError(f"the mirror {folder} cannot be written: {error}. Free or mend that disk.") from None
    return Mirror(
        folder,
        schema,
        index,
        stored.rotated_tile_ids,
        stored.point_ids,
        build_ms,
        build_ms,
        built=True,
        columns_digest=columns_digest,
    )


def _write(folder: Path, schema: Schema, index: ExactIndex, stored: StoredVectors, build_ms: float) -> str:
    """Write all files beside the final folder, then rename it into place; returns the digest of the columns.

    The caller holds the lock, so folders of these names are from a build that was killed.
    """
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for stale_folder in (fresh, old):
        shutil.rmtree(stale_folder, ignore_errors=True)
    fresh.mkdir()
    index.save(fresh / "index.faiss")
    np.save(fresh / "rotated_tile_ids.npy", stored.rotated_tile_ids)
    np.save(fresh / "point_ids.npy", stored.point_ids)
    columns = {field.name: getattr(stored.columns, field.name) for field in fields(TileColumns)}
    np.savez(fresh / "columns.npz", schema=np.array(schema.digest), **columns)
    facts: dict[str, Any] = {
        "schema": asdict(schema),
        "build_ms": round(build_ms, 3),
        "bytes": {path.name: path.stat().st_size for path in sorted(fresh.iterdir())},
        "xxh3_128": {path.name: file_digest(path) for path in sorted(fresh.iterdir())},
    }
    facts["digest"] = ids.digest(facts)
    (fresh / "schema.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)  # processes that have it open keep their mapped files
    return str(facts["xxh3_128"]["columns.npz"])


@contextmanager
def _lock(folder: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the lock of this mirror: one process at a time checks or builds it."""
    path = folder.with_name(f"{folder.name}.lock")
    try:
        files.make_private_folder(folder.parent)
    except OSError as error:
        raise StoreError(f"the folder {folder.parent} cannot be written: {error.strerror}") from None
    timeout_s = LOCK_TIMEOUT_S if timeout_s is None else timeout_s
    message = f"another process has been building the mirror {folder} for {timeout_s:.0f} s: wait for it or stop it"
    with files.locked(path, message, timeout_s):
        yield
