"""The use cases of one data folder: what the command line, the pages and a notebook call.

import coarseloc as cl
ws = cl.open("my-data")
ws.ingest(cl.orthophoto("area.tif", footprint_m=400), ["vitl16sat"])
run = ws.search("flights/251124155712")
run.to_dataframe()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from coarseloc.core import config, ids
from coarseloc.core.config import Settings
from coarseloc.core.errors import InputError, LockedError, VectorStoreUnavailable
from coarseloc.core.filters import Where
from coarseloc.core.types import Backbone, Estimate, Flight, Hit, Progress, TileSource, Timing, UInt8
from coarseloc.embedding import specs
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import Database, embeddings, open_database, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun
from coarseloc.vectors import configured_store
from coarseloc.vectors.protocol import VectorStore

if TYPE_CHECKING:
    from coarseloc.vectors.sync import DrainSummary
    from ingest.worker import IngestEngine, IngestSummary
    from search.evaluation.evaluate import Evaluation
    from search.evaluation.summary import RunSummary
    from search.export.files import Exported
    from search.filtered_index import FilteredIndex
    from search.mirror import Mirror
    from search.mirror_index import MirrorIndex

Reporter = Callable[[str], AbstractContextManager[Progress | None]]
"""Shows the progress of a piece of work by its name, while it is open."""


def open_workspace(data_dir: str | Path | None = None, **settings: Any) -> Workspace:
    """The workspace of a data folder, `COARSELOC_DATA_DIR` by default; made where there is none yet.

    settings: any of `config.Settings`, in place of the environment's and coarseloc.toml's.
    """
    loaded = config.load(None if data_dir is None else Path(data_dir))
    return Workspace(loaded.model_copy(update=settings) if settings else loaded)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of each source, and of the vector store; `note` says why it was not brought up to date."""

    summaries: list[IngestSummary]
    drained: DrainSummary | None
    note: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Where one picture was taken, by one backbone: ranked references and the estimate, None without any."""

    backbone: str
    estimate: Estimate | None
    hits: tuple[Hit, ...]
    timing: Timing

    def rows(self) -> list[dict[str, Any]]:
        """The hits as every program reads them."""
        from search.export.infos import hit_result

        return [hit_result(hit).model_dump(mode="json") for hit in self.hits]

    def to_dataframe(self) -> Any:
        """`rows` as a pandas DataFrame."""
        return _dataframe(self.rows())


@dataclass(frozen=True, slots=True)
class Run:
    """One SearchRun of a flight: a backbone, and its figures."""

    workspace: Workspace
    stored: StoredRun
    summary: RunSummary
    notices: tuple[str, ...] = ()  # what its user should know of the flight's files and of the search

    @property
    def id(self) -> int:
        return self.stored.id

    @property
    def flight_id(self) -> str:
        return self.stored.flight_id

    @property
    def backbone(self) -> str:
        return self.stored.spec.backbone

    def facts(self) -> dict[str, Any]:
        """The run and its figures, as `coarseloc search --json` says them."""
        from search.evaluation.summary import facts_of

        return {**facts_of(self.stored, self.summary), "notices": list(self.notices)}

    def rows(self, method: str = "best-place") -> list[dict[str, Any]]:
        """One row a frame, as `coarseloc export --format csv` writes it."""
        from search.export.files import run_rows

        return run_rows(self.workspace.db, self.workspace.settings.thumbnails, self.id, method)

    def to_dataframe(self, method: str = "best-place") -> Any:
        """`rows` as a pandas DataFrame."""
        return _dataframe(self.rows(method))


class Runs(list[Run]):
    """The runs of one search: one a backbone, or one a backbone and heading."""

    def rows(self, method: str = "best-place") -> list[dict[str, Any]]:
        return [row for run in self for row in run.rows(method)]

    def to_dataframe(self, method: str = "best-place") -> Any:
        """The rows of all runs as one pandas DataFrame; `encoder` tells them apart."""
        return _dataframe(self.rows(method))


class Workspace:
    """One data folder: its database, vectors, mirrors and encoders. Opened when first asked for, so that locks are
    held briefly; close it, or use it in a `with`."""

    def __init__(self, settings: Settings, report: Reporter | None = None, notice: Callable[[str], None] = print):
        """report: shows progress. notice: is told what a user should know of an answer."""
        self.settings = settings
        self.notice = notice
        self._report: Reporter = report or (lambda _: nullcontext())

    @cached_property
    def db(self) -> Database:
        # The embedded default migrates by itself; a shared server is migrated by `coarseloc migrate`.
        return open_database(self.settings.database, migrate=self.settings.database_url is None)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if "db" in self.__dict__:
            self.db.close()
            del self.__dict__["db"]

    @contextmanager
    def vectors(self) -> Iterator[VectorStore]:
        """The vector store, closed (and its lock given back) at the end."""
        store = configured_store(self.settings, self.db.identity)
        try:
            yield store
        finally:
            store.close()

    def encoder(
        self, name: str, *, input_px: int | None = None, precision: str | None = None, device: str | None = None
    ) -> Backbone:
        """A backbone, loaded: `embed` gives vectors, `patch_tokens` what they are pooled from."""
        encoders = Encoders(self.settings, device, precision, input_px)
        return encoders.load(encoders.spec(name))

    # --- ingest ---------------------------------------------------------------------------------

    def ingest(
        self,
        sources: TileSource | Sequence[TileSource],
        backbones: Sequence[str] = (),
        *,
        encoders: Encoders | None = None,
        engine: IngestEngine | None = None,
    ) -> IngestResult:
        """Embed what is missing, then bring the vector store up to it where this process may.

        sources: of `captures` or `orthophoto`. backbones: of every one of the six whose weights are here by default.
        """
        from coarseloc.vectors import sync
        from ingest import worker

        encoders = encoders or Encoders(self.settings)
        wanted = encoders.specs(backbones)
        summaries: list[IngestSummary] = []
        with self.only_ingest():
            for source in sources if isinstance(sources, Sequence) else [sources]:
                with self._report(f"ingest {source.reference_set.name}") as progress:
                    done = worker.run(
                        self.db,
                        source,
                        wanted,
                        encoders.load,
                        self.settings.thumbnails,
                        progress,
                        engine or worker.in_process,
                    )
                summaries.append(done)
                if done.interrupted:
                    return IngestResult(summaries, None, "interrupted: nothing was drained")
        try:
            with self.vectors() as store, self._report("index") as progress:
                return IngestResult(summaries, sync.drain(self.db, store, progress), "")
        except (LockedError, VectorStoreUnavailable) as error:
            # Ingest never waits for the vector store: what is pending stays pending and is shown.
            with self.db.read() as session:
                pending = sum(embeddings.pending_counts(session).values())
            note = f"{pending} embeddings are pending, the vector store will follow later: {error}"
            return IngestResult(summaries, None, note)

    @contextmanager
    def only_ingest(self) -> Iterator[None]:
        """Two ingests at once would embed the same tiles twice."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.settings.data_dir / "ingest.lock", timeout=0):
                yield
        except Timeout:
            raise LockedError(
                f"another ingest is at work in {self.settings.data_dir}: wait for it, or stop it and run this again"
            ) from None

    # --- search ---------------------------------------------------------------------------------

    def search(
        self,
        flight: Flight | str | Path,
        *,
        where: Where | None = None,
        backbones: Sequence[str] = (),
        k: int = 10,
        per_angle: bool = False,
        batch: int = 1,
        rebuild: bool = True,
        flight_id: str | None = None,
        encoders: Encoders | None = None,
        input_px: int | None = None,
        precision: str | None = None,
    ) -> Runs:
        """A SearchRun per backbone (and heading): every frame matched against the references, exactly, and timed.

        flight: opened, or its folder. where: among which references; `reference_sets` names those that are searched as
        one, the only one there is by default.
        """
        from search.evaluation.summary import summarize_run
        from search.flight import run_search

        if not isinstance(flight, Flight):
            flight = open_flight(flight)
        if flight_id is not None:
            flight = replace(flight, flight_id=ids.label(flight_id))
        notices: list[str] = []

        def notice(text: str) -> None:
            notices.append(text)
            self.notice(text)

        for text in flight.notices:
            notice(text)
        where = where or Where()
        sets = self.reference_sets(where)
        encoders = encoders or Encoders(self.settings)
        runs = Runs()
        for stored in self.stored_specs(sets, backbones, input_px, precision):
            backbone = encoders.load_matching(stored.embedding_spec)
            with self._report(f"search {stored.backbone}") as progress:
                started = run_search(
                    self.db,
                    self.settings.mirrors,
                    flight,
                    sets,
                    backbone,
                    k=k,
                    where=replace(where, reference_sets=()),
                    per_angle=per_angle,
                    batch=batch,
                    rebuild=rebuild,
                    progress=progress,
                    notice=notice,
                )
            runs += [Run(self, *summarize_run(self.db, run_id), tuple(notices)) for run_id in started]
        return runs

    def localize(self, image: str | Path | UInt8, **options: Any) -> Answer:
        """Where one picture was taken, by the exact mirrors and one backbone; options as of `lookup`."""
        answers = self._answers(image, exact=True, **options)
        if len(answers) > 1:
            names = ", ".join(answers)
            raise InputError(f"the references are embedded by {names}: say which with backbone=")
        return next(iter(answers.values()))

    def lookup(self, image: str | Path | UInt8, **options: Any) -> dict[str, Answer]:
        """{backbone: the references most like a picture among those that match, answered by Qdrant}.

        image: a file, or RGB uint8 [H, W, 3]. Options: where, k, backbone (a name, or several), encoders, input_px,
        precision.
        """
        return self._answers(image, exact=False, **options)

    def _answers(
        self,
        image: str | Path | UInt8,
        *,
        exact: bool,
        where: Where | None = None,
        k: int = 10,
        backbone: str | Sequence[str] = (),
        encoders: Encoders | None = None,
        input_px: int | None = None,
        precision: str | None = None,
    ) -> dict[str, Answer]:
        from coarseloc.localize import localizer
        from search.export.infos import picture_hit

        picture = (
            localizer.decode(Path(image))
            if isinstance(image, str | Path)
            else localizer.DecodedImage(image, decode_ms=0.0)
        )
        where = where or Where()
        names = [backbone] if isinstance(backbone, str) else backbone
        sets = self.reference_sets(where) if exact or where.reference_sets else []
        encoders = encoders or Encoders(self.settings)
        answers = {}
        with self._indexes(exact, sets, where) as index_of:
            for stored in self.stored_specs(sets, names, input_px, precision):
                encoder = encoders.load_matching(stored.embedding_spec)
                ((answer,),) = localizer.localize([picture], encoder, [index_of(stored)], k)
                hits = tuple(picture_hit(hit, self.settings.thumbnails) for hit in answer.hits[:k])
                name = stored.backbone
                answers[name] = Answer(name, answer.estimate, hits, answer.timing)
        return answers

    @contextmanager
    def _indexes(self, exact: bool, sets: Sequence[StoredReferenceSet], where: Where) -> Iterator[Callable[..., Any]]:
        """What a spec is searched in: exact mirrors, or the vector store, brought up to the database first."""
        if exact:
            yield lambda spec: self.exact_index(sets, spec, where)
            return
        from coarseloc.vectors import sync

        with self.vectors() as store:
            sync.drain(self.db, store)
            yield lambda spec: self.filtered_index(store, spec, where)

    def exact_index(
        self,
        sets: Sequence[StoredReferenceSet],
        spec: StoredSpec,
        where: Where,
        mirror_of: Callable[[StoredReferenceSet], Mirror] | None = None,
    ) -> MirrorIndex:
        """The tiles of these sets that match, in their exact mirrors; `mirror_of` gives those that are open already."""
        from search.mirror_index import matching, open_mirrors

        if mirror_of is None:
            return matching(self.db, open_mirrors(self.db, self.settings.mirrors, sets, spec), where)
        return matching(self.db, [(one, mirror_of(one)) for one in sets], where)

    def filtered_index(self, store: VectorStore, spec: StoredSpec, where: Where) -> FilteredIndex:
        """The tiles that match, in the vector store."""
        from coarseloc.vectors import sync
        from search.filtered_index import FilteredIndex

        return FilteredIndex(store, self.db, spec, lambda: sync.drain(self.db, store), where, self.notice)

    def reference_sets(self, where: Where) -> list[StoredReferenceSet]:
        """The sets that are searched as one: those named, or the only one there is."""
        with self.db.read() as session:
            names: Sequence[str | None] = where.reference_sets or (None,)
            return [references.find_reference_set(session, name) for name in names]

    def stored_specs(
        self,
        sets: Sequence[StoredReferenceSet],
        names: Sequence[str],
        input_px: int | None = None,
        precision: str | None = None,
    ) -> list[StoredSpec]:
        """The specs that all of these sets (or, without any, the database) are embedded with, narrowed to what was
        asked for.

        Raises InputError listing what there is where a backbone has none, or several and nothing says which.
        """
        with self.db.read() as session:
            of_sets = [embeddings.specs(session, one.id) for one in sets] or [embeddings.specs(session)]
        shared = set.intersection(*({spec.id for spec in of_set} for of_set in of_sets))
        here = [spec for spec in of_sets[0] if spec.id in shared]
        where = " and ".join(f"reference set {one.name!r}" for one in sets) or "the database"
        rows = specs.table(self.settings.backbones)
        wanted = dict.fromkeys(specs.row(name, rows).name for name in names)
        if not here:
            raise InputError(f"{where} has no embeddings yet: run `coarseloc ingest` first")
        wanted = wanted or dict.fromkeys(spec.backbone for spec in here)
        return [_fitting_spec(where, name, here, input_px, precision) for name in wanted]

    # --- what runs amount to --------------------------------------------------------------------

    def evaluate(
        self, *names: str | int, reference_set: str | None = None, method: str = "best-place"
    ) -> list[Evaluation]:
        """Runs by number, or a flight's newest ones by its id, held against the truth."""
        from search.evaluation import evaluate as evaluation

        chosen = evaluation.find_runs(self.db, [str(name) for name in names], reference_set)
        return evaluation.evaluate(self.db, chosen, method)

    def export(
        self,
        flight_id: str,
        out_dir: str | Path,
        *,
        single: bool = False,
        formats: Sequence[str] | None = None,
        method: str = "best-place",
    ) -> Exported:
        """A flight's newest runs as files for other programs."""
        from search.export.files import FORMATS, export

        return export(
            self.db,
            self.settings.thumbnails,
            flight_id,
            Path(out_dir),
            single=single,
            formats=formats or FORMATS,
            method=method,
        )


def open_flight(folder: str | Path, **options: Any) -> Flight:
    """A flight's folder: its frames in order, with what is known of where each was taken."""
    from coarseloc.imagery import flights

    return flights.open_flight(Path(folder), **options)


def open_captures(root: str | Path, **options: Any) -> Sequence[TileSource]:
    """Already turned captures as sources of reference tiles, one for each altitude and overlap."""
    from coarseloc.imagery import captures

    return captures.open_captures(Path(root), **options)


def open_orthophoto(file: str | Path, **options: Any) -> TileSource:
    """A GeoTIFF as a source of reference tiles, cut on the fly and turned to each heading."""
    from coarseloc.imagery import orthophoto

    return orthophoto.open_orthophoto(Path(file), **options)


def _fitting_spec(
    where: str, name: str, here: Sequence[StoredSpec], input_px: int | None, precision: str | None
) -> StoredSpec:
    alike = [spec for spec in here if spec.backbone == name]
    fitting = [
        spec
        for spec in alike
        if (input_px is None or spec.input_px == input_px) and (precision is None or spec.precision == precision)
    ]
    held = ", ".join(f"{s.backbone} at {s.input_px} px {s.precision}" for s in (alike or here))
    if not fitting:
        raise InputError(
            f"{where} is not embedded with {name} as asked; it holds {held}. "
            f"Ingest with `--backbone {name}` first, or ask for what is there."
        )
    if len({(spec.input_px, spec.precision) for spec in fitting}) > 1:
        raise InputError(f"{where} holds {held}: say which with --input-px or --precision")
    return fitting[-1]  # of two weights under one name and size, those ingested last


def _dataframe(rows: Sequence[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise InputError(
            "pandas is not installed: `pip install pandas`, or take .rows(), which gives the same as dictionaries"
        ) from None
    return pandas.DataFrame(list(rows))
