"""One data folder: its database, its vector store, and what looks after both."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from coarseloc import __version__
from coarseloc.core import files
from coarseloc.core.config import Settings
from coarseloc.core.errors import (
    CoarselocError,
    InputError,
    LockedError,
    StoreError,
    VectorStoreError,
    VectorStoreUnavailable,
)
from coarseloc.core.filters import Where
from coarseloc.core.marks import FrameMarks
from coarseloc.core.types import Failure, Fit, Progress, ReferenceSet
from coarseloc.embedding import specs
from coarseloc.embedding.encoders import BackboneListing, inventory
from coarseloc.store import Database, embeddings, flights, marks, open_database, references, runs, seals, tallies
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.vectors import configured_store
from coarseloc.vectors.protocol import VectorStore

if TYPE_CHECKING:
    from coarseloc.store.flights import StoredFlight
    from coarseloc.store.runs import StoredRun
    from coarseloc.vectors.sync import Difference, DrainSummary, Miscount
    from search.filtered_index import FilteredIndex
    from search.mirror import Mirror
    from search.mirror_index import MirrorIndex

Reporter = Callable[[str], AbstractContextManager[Progress | None]]
"""Shows the progress of a piece of work by its name, while it is open."""
_DEPENDENCIES = ("torch", "transformers", "qdrant-client", "qdrant-edge-py", "sqlalchemy", "rasterio", "flask")


@dataclass(frozen=True, slots=True)
class FlightRuns:
    """A stored flight with its newest finished run of each backbone, references and parameters."""

    flight: StoredFlight
    runs: list[StoredRun]


@dataclass(frozen=True, slots=True)
class ReferenceSetSummary:
    """A reference set with its counts."""

    reference_set: ReferenceSet
    views: Mapping[int, int]  # {angle: rotated tiles}
    embeddings: Mapping[str, int]  # {"BACKBONE INPUT px PRECISION": live embeddings}

    def facts(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self.reference_set), "views": dict(self.views), "embeddings": dict(self.embeddings)}


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The vector store held against the database, and the database's tallies against its rows."""

    collections: list[Difference]  # each collection, those without a difference too
    miscounts: list[Miscount]  # corrected
    pending: Mapping[str, int]  # {collection: embeddings the vector store is behind by}

    @property
    def differing(self) -> list[Difference]:
        """The collections that `rebuild` must replay."""
        return [
            collection
            for collection in self.collections
            if collection.missing or collection.orphaned or collection.differing
        ]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was looked at and its state, in order; `problems` names the entries that are not as they should be."""

    checks: Mapping[str, Any]
    problems: Sequence[str]


class DataFolder:
    """A data folder's stores, opened when first asked for, so that locks are held briefly, and their upkeep."""

    def __init__(
        self, settings: Settings, show_progress: Reporter | None = None, notice: Callable[[str], None] = print
    ):
        """show_progress: of long work. notice: is told what a user should know of an answer."""
        self.settings = settings
        self.notice = notice
        self.show_progress: Reporter = show_progress or (lambda _: nullcontext())

    @cached_property
    def db(self) -> Database:
        # The embedded default migrates by itself; a shared server is migrated by `coarseloc migrate`.
        return open_database(self.settings.database, migrate=self.settings.database_url is None)

    def close(self) -> None:
        if "db" in self.__dict__:
            self.db.close()
            del self.__dict__["db"]

    @contextmanager
    def vectors(self, patience_s: float = 0.0) -> Iterator[VectorStore]:
        """Open the vector store; at the end it is closed and its lock released.

        Raises LockedError where another process has the embedded store open for longer than `patience_s`.
        """
        locked = retry_if_exception_type(LockedError)
        patient = Retrying(retry=locked, stop=stop_after_delay(patience_s), wait=wait_fixed(0.1), reraise=True)
        store = patient(configured_store, self.settings, self.db.identity)
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def only_ingest(self) -> Iterator[None]:
        """Hold the lock of ingests: two at once would embed the same tiles twice."""
        folder = self.settings.data_dir
        files.make_private_folder(folder)
        message = f"another ingest is at work in {folder}: wait for it, or stop it and run this again"
        with files.locked(folder / "ingest.lock", message):
            yield

    # --- what it holds --------------------------------------------------------------------------

    def backbones(self) -> list[BackboneListing]:
        """List every backbone, with where its weights are or how to get them."""
        return inventory(specs.table(self.settings.backbones), self.settings.weights)

    def reference_summaries(self) -> list[ReferenceSetSummary]:
        """List every reference set by name, with its views and embeddings counted."""
        with self.db.read() as session:
            return [
                ReferenceSetSummary(
                    stored.reference_set,
                    references.count_views(session, stored.id),
                    {
                        f"{spec.backbone} {spec.how}": tallies.tally(session, stored.id, spec.id).live
                        for spec in embeddings.specs(session, stored.id)
                    },
                )
                for stored in references.reference_sets(session)
            ]

    def failures(self, reference_set: str | None = None) -> list[tuple[str, Failure]]:
        """List (reference set, failure) of what the latest ingests could not use, of all sets or of one."""
        with self.db.read() as session:
            if reference_set is not None:
                references.find_reference_set(session, reference_set)
            return references.failures(session, reference_set)

    def flights(self) -> list[FlightRuns]:
        """List every flight that was searched, by flight id, with its newest runs."""
        with self.db.read() as session:
            stored = {flight_id: flights.find_flight(session, flight_id) for flight_id in flights.flight_ids(session)}
            return [FlightRuns(flight, runs.latest_runs(session, flight_id)) for flight_id, flight in stored.items()]

    def reference_sets(self, where: Where) -> list[StoredReferenceSet]:
        """Read the sets that are searched as one: those named, or the only one there is."""
        with self.db.read() as session:
            names: Sequence[str | None] = where.reference_sets or (None,)
            return [references.find_reference_set(session, name) for name in names]

    def sets_embedded_by(self, spec: StoredSpec, where: Where) -> list[StoredReferenceSet]:
        """Read the sets that match as a whole and hold embeddings of this spec."""
        with self.db.read() as session:
            fitting = references.fitting_sets(references.reference_sets(session), where)
            return [s for s in fitting if spec.id in {of_set.id for of_set in embeddings.specs(session, s.id)}]

    def exact_index(
        self,
        sets: Sequence[StoredReferenceSet],
        spec: StoredSpec,
        where: Where,
        mirror_of: Callable[[StoredReferenceSet], Mirror] | None = None,
    ) -> MirrorIndex:
        """The tiles of these sets that match, in their exact mirrors; `mirror_of` gives those that are open already."""
        from search.mirror_index import index_tiles, open_mirrors

        if mirror_of is None:
            opened = open_mirrors(self.db, self.settings.mirrors, sets, spec)
        else:
            opened = [(searched, mirror_of(searched)) for searched in sets]
        return index_tiles(self.db, opened, where, self.settings.search_engine)

    def filtered_index(self, store: VectorStore, spec: StoredSpec, where: Where) -> FilteredIndex:
        """The tiles that match, in the vector store."""
        from coarseloc.vectors import sync
        from search.filtered_index import FilteredIndex

        return FilteredIndex(store, self.db, spec, lambda: sync.drain(self.db, store, spec=spec), where, self.notice)

    def stored_specs(
        self,
        sets: Sequence[StoredReferenceSet],
        names: Sequence[str],
        input_px: int | None = None,
        precision: str | None = None,
        fit: Fit | None = None,
    ) -> list[StoredSpec]:
        """List the specs that all of these sets (or, without any, the database) are embedded with, one for each of the
        backbones named, or of all.

        Raises InputError listing what there is where a backbone has none, or several and nothing says which.
        """
        with self.db.read() as session:
            specs_of_sets = [embeddings.specs(session, stored.id) for stored in sets] or [embeddings.specs(session)]
        shared_ids = set.intersection(*({spec.id for spec in of_set} for of_set in specs_of_sets))
        shared = [spec for spec in specs_of_sets[0] if spec.id in shared_ids]
        owner = " and ".join(f"reference set {stored.name!r}" for stored in sets) or "the database"
        rows = specs.table(self.settings.backbones)
        backbones = dict.fromkeys(specs.row(name, rows).name for name in names)
        if not shared:
            raise InputError(f"{owner} has no embeddings yet: run `coarseloc ingest` first")
        backbones = backbones or dict.fromkeys(spec.backbone for spec in shared)
        return [_fitting_spec(owner, name, shared, input_px, precision, fit) for name in backbones]

    # --- upkeep ---------------------------------------------------------------------------------

    def delete_reference_set(self, name: str) -> int:
        """Delete a set with its tiles and embeddings, in both stores; returns the embeddings deleted. Runs stay."""
        from coarseloc.vectors import sync

        with self.only_ingest(), self.vectors() as store:
            return sync.delete_reference_set(self.db, store, name)

    def rename_reference_set(self, name: str, new_name: str) -> None:
        """Give a set another name, in both stores. Runs made against it keep the old one."""
        with self.only_ingest(), self.db.write() as session:
            references.rename_reference_set(session, name, new_name)
        try:
            self.drain()
        except (LockedError, VectorStoreUnavailable) as error:
            self.notice(f"{error} The new name reaches the vector store with the next `coarseloc drain`.")

    def rename_flight(self, flight_id: str, new_name: str) -> None:
        """Give a flight another name; all answers for it stay."""
        with self.db.write() as session:
            flights.rename_flight(session, flight_id, new_name)

    def flight_results(self, flight_id: str) -> dict[str, int]:
        """Count what `delete_flight` would delete: {"runs", "hits", "answers", "marked" (frames)}."""
        with self.db.read() as session:
            return flights.flight_results(session, flight_id)

    def delete_flight(self, flight_id: str) -> None:
        """Delete a flight with all answers for it, and what is written on its frames. Its images stay."""
        with self.db.write() as session:
            flights.delete_flight(session, flight_id)

    def frame_indices(self, flight_id: str) -> list[int]:
        """List the numbers of a flight's frames, in its order."""
        with self.db.read() as session:
            return [frame.index for frame in flights.find_flight(session, flight_id).flight.frames]

    def frame_marks(self, flight_id: str, frame_indices: Sequence[int] | None = None) -> dict[int, FrameMarks]:
        """Read {frame index: its tags and note} of a flight's frames that have any, of all or some."""
        with self.db.read() as session:
            flights.find_flight(session, flight_id, ())
            return marks.frame_marks(session, flight_id, frame_indices)

    def mark_frames(
        self,
        flight_id: str,
        frame_indices: Sequence[int],
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        note: str | None = None,
    ) -> int:
        """Give frames tags, take tags off, and write their note ("" takes it off); return how many frames that is."""
        with self.db.write() as session:
            flights.find_flight(session, flight_id, ())
            return marks.mark_frames(session, flight_id, frame_indices, add=add, remove=remove, note=note)

    def drain(self) -> DrainSummary:
        """Bring the vector store up to the database."""
        from coarseloc.vectors import sync

        with self.vectors() as store, self.show_progress("index") as progress:
            return sync.drain(self.db, store, progress)

    def rebuild(self) -> DrainSummary:
        """Drop the vector store's collections and replay the database into new ones."""
        from coarseloc.vectors import sync

        with self.vectors() as store, self.show_progress("rebuild") as progress:
            return sync.rebuild(self.db, store, progress)

    def reconcile(self, sample: int = 1000) -> Reconciliation:
        """Compare the vector store with the database, up to `sample` vectors of each collection, and the tallies with
        their rows; wrong tallies are corrected, nothing else is changed."""
        from coarseloc.vectors import sync

        miscounts = sync.recount(self.db)
        with self.vectors() as store:
            collections = sync.reconcile(self.db, store, sample)
        with self.db.read() as session:
            return Reconciliation(collections, miscounts, embeddings.pending_counts(session))

    def migrate(self) -> str:
        """Bring the database's schema to this version's; returns its revision."""
        from coarseloc.store.session import head_revision

        open_database(self.settings.database).close()
        return head_revision()

    def back_up(self, path: Path) -> int:
        """Write the embedded database as of now to `path`, while others use it; returns the bytes written."""
        return self.db.back_up(path)

    def diagnose(self, deep: bool = False) -> Diagnosis:
        """Check versions, device, FAISS, stores, every byte of the mirrors, pending embeddings and the disk.

        deep: every row that answers are read from, every vector of the vector store and every byte of the weights too.
        """
        checks: dict[str, Any] = {"coarseloc": __version__, "python": platform.python_version(), "cpus": os.cpu_count()}
        problems: list[str] = []

        def check(name: str, state_of: Callable[[], Any]) -> None:
            try:
                checks[name] = state_of()
            except CoarselocError as error:
                checks[name] = f"PROBLEM: {error}"
                problems.append(name)

        for package in _DEPENDENCIES:
            checks[package] = metadata.version(package)
        check("device", self._device)
        check("faiss", _faiss)
        check("data folder", self._data_folder)
        check("database", lambda: self._database(deep))
        check("vector store", self._vector_store)
        check("mirrors", self._mirrors)
        check("exact search", self._exact_search)
        check("pending", self._pending)
        if deep:
            check("rows", self._rows)
            check("vectors", self._vectors)
            check("weights", self._weights)
        checks["weights found"] = ", ".join(entry.name for entry in self.backbones() if entry.path) or "none"
        return Diagnosis(checks, problems)

    def _device(self) -> str:
        from coarseloc.embedding.device import resolve_device

        return str(resolve_device(self.settings.device))

    def _data_folder(self) -> str:
        data_dir = self.settings.data_dir
        folder = next(path for path in (data_dir, *data_dir.parents) if path.exists())
        return f"{data_dir} ({shutil.disk_usage(folder).free / 1e9:.1f} GB free)"

    def _database(self, deep: bool) -> str:
        if damage := self.db.damage(thorough=deep):
            raise StoreError(
                f"{self.db.location} is damaged ({damage}): stop everything that uses it and restore a back-up, "
                "see docs/operations.md"
            )
        return f"{self.db.location}, schema {self.db.revision()}"

    def _vector_store(self) -> str:
        from coarseloc.vectors import sync

        with self.db.read() as session:
            specs = embeddings.specs(session)
        with self.vectors() as store:
            counts = {name: store.count(name) for name in store.collections()}
            if lost := [spec.collection for spec in specs if sync.is_lost(self.db, store, spec)]:
                raise VectorStoreError(
                    f"{store.backend} at {store.location} lacks {', '.join(lost)}, lost or put aside as damaged: "
                    "`coarseloc drain` writes what is lacking from the database"
                )
            return f"{store.backend} at {store.location}: {counts or 'empty'}{_version_note(store)}"

    def _mirrors(self) -> str:
        from search.mirror import check_mirrors

        sound, unread = check_mirrors(self.settings.mirrors)
        return "; ".join([f"{sound} sound, every byte read", *unread])

    def _exact_search(self) -> str:
        from search.trials import trials_here

        found = "; ".join(map(str, trials_here(self.settings.mirrors)))
        return f"{self.settings.search_engine}; fastest here: {found or 'not tried yet'}"

    def damage(self) -> list[str]:
        """Name the rows that are not as they were written, each with what mends it."""
        with self.db.read() as session:
            damaged = [
                seals.damage_text(session, kind, owner)
                for kind, owner in seals.seals(session)
                if not seals.is_sound(session, kind, owner)
            ]
            _, keys, _ = seals.damaged_embeddings(session)
        if keys:
            damaged.append(
                f"{len(keys)} embeddings (first: {keys[0]}) are not as they were written: restore a back-up; without "
                "one, `coarseloc references delete` and ingest again"
            )
        return damaged

    def _rows(self) -> str:
        if damaged := self.damage():
            raise StoreError("; ".join(damaged))
        with self.db.read() as session:
            if tallies.miscounts(session):
                raise StoreError("the database's tallies contradict its rows: `coarseloc reconcile` mends them")
            sealed, unsealed = len(seals.seals(session)), seals.unsealed(session)
            count, _, undigested = seals.damaged_embeddings(session)
        unchecked = {f"{kind}s": number for kind, number in unsealed.items()}
        if undigested:
            unchecked["embeddings"] = undigested
        return "; ".join(
            [
                f"{sealed} sets, flights, runs and answers and {count - undigested} embeddings as they were written",
                *(f"{number} {kinds} without a digest" for kinds, number in unchecked.items()),
            ]
        )

    def _vectors(self) -> str:
        from coarseloc.vectors import sync

        with self.vectors() as store:
            differences = sync.reconcile(self.db, store, sample=sys.maxsize)
        if differing := [d.collection for d in differences if d.missing or d.orphaned or d.differing]:
            raise VectorStoreError(f"{', '.join(differing)} differ from the database: `coarseloc rebuild` mends them")
        return f"{sum(difference.compared for difference in differences)} equal to the database's"

    def _weights(self) -> str:
        from coarseloc.embedding.encoders import CACHE
        from coarseloc.embedding.weights import LocatedWeights, find, recheck

        with self.db.read() as session:
            embedded = {spec.embedding_spec.weights_digest for spec in embeddings.specs(session)}
        states = []
        for row in specs.table(self.settings.backbones).values():
            located = find(row, self.settings.weights)
            if isinstance(located, LocatedWeights):
                digest = recheck(located, self.settings.data_dir / CACHE)
                states.append(f"{row.name} {digest[:12]}" + (", as embedded" if digest in embedded else ""))
        return "; ".join(states) or "none"

    def _pending(self) -> str:
        with self.db.read() as session:
            return str(embeddings.pending_counts(session) or "nothing")


def _version_note(store: VectorStore) -> str:
    """Which server answers and whether its client goes with it; nothing of the embedded store."""
    if store.backend != "qdrant-server":
        return ""
    from coarseloc.vectors.server import ServerStore, apart

    server, client = cast(ServerStore, store).version, metadata.version("qdrant-client")
    warning = ": WARNING: more than one minor version apart, bring one to the other's" if apart(server, client) else ""
    silent = cast(ServerStore, store).unreachable()
    nodes = f"; WARNING: {', '.join(silent)} does not answer, the others do" if silent else ""
    return f"; server {server}, client {client}{warning}{nodes}"


def _faiss() -> str:
    from search import faiss_vectors

    return faiss_vectors.distribution()


def _fitting_spec(
    owner: str,
    name: str,
    stored: Sequence[StoredSpec],
    input_px: int | None,
    precision: str | None,
    fit: Fit | None,
) -> StoredSpec:
    of_backbone = [spec for spec in stored if spec.backbone == name]
    fitting = [
        spec
        for spec in of_backbone
        if input_px in (None, spec.input_px) and precision in (None, spec.precision) and fit in (None, spec.fit)
    ]
    available = ", ".join(f"{s.backbone} at {s.how}" for s in (of_backbone or stored))
    if not fitting:
        raise InputError(
            f"{owner} is not embedded with {name} as asked; it holds {available}. "
            f"Ingest with `--backbone {name}` first, or ask for what is there."
        )
    if len({spec.how for spec in fitting}) > 1:
        raise InputError(f"{owner} holds {available}: say which with --input-px, --precision or --fit")
    return fitting[-1]  # of two weights under one name and size, those ingested last
