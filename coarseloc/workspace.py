"""The use cases of one data folder: what the command line, the pages and a notebook call.

import coarseloc as cl
ws = cl.open("my-data")
ws.ingest(cl.orthophoto("area.tif", footprint_m=400), ["vitl16sat"])
run = ws.search("flights/251124155712")
run.to_dataframe()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from coarseloc.core import config, ids
from coarseloc.core.camera import Camera
from coarseloc.core.clock import in_utc
from coarseloc.core.errors import InputError, LockedError, VectorStoreUnavailable
from coarseloc.core.filters import Where
from coarseloc.core.types import Backbone, Fit, Flight, Near, ReferenceSet, TileSource, UInt8
from coarseloc.embedding.encoders import Encoders
from coarseloc.map_use_cases import MapRequest, MapUseCases
from coarseloc.results import Answer, Fixes, IngestResult, Run, Runs
from coarseloc.store import embeddings, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun

if TYPE_CHECKING:
    from ingest.worker import IngestEngine, IngestSummary
    from search.bundle.comparison import Tolerance
    from search.bundle.contents import BundleSummary
    from search.bundle.reproduction import Reproduction
    from search.evaluation.evaluate import Evaluations
    from search.evaluation.studies.study import StudyResult
    from search.export.files import ExportSummary
    from search.filtered_index import FilteredIndex
    from search.mirror_index import MirrorIndex
    from search.speed import Speed


_LOCK_PATIENCE_S = 2.0  # of a look-up, until the process that has the embedded vectors open is done


def open_workspace(data_dir: str | Path | None = None, **settings: Any) -> Workspace:
    """Open the workspace of a data folder, `COARSELOC_DATA_DIR` by default; it is created where there is none yet.

    settings: any of `config.Settings`, in place of the environment's and coarseloc.toml's.
    """
    loaded = config.load(None if data_dir is None else Path(data_dir))
    return Workspace(loaded.model_copy(update=settings) if settings else loaded)


class Workspace(MapUseCases):
    """One data folder and its use cases. Stores open when first asked for; close it, or use it in a `with`."""

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encoder(
        self,
        name: str,
        *,
        input_px: int | None = None,
        precision: str | None = None,
        fit: Fit | None = None,
        device: str | None = None,
    ) -> Backbone:
        """Load a backbone: `embed` gives vectors, `patch_tokens` what they are pooled from."""
        encoders = Encoders(self.settings, device, precision, input_px, fit=fit)
        return encoders.load(encoders.spec(name))

    # --- ingest ---------------------------------------------------------------------------------

    def ingest(
        self,
        sources: TileSource | Sequence[TileSource],
        backbones: Sequence[str] = (),
        *,
        encoders: Encoders | None = None,
        engine: IngestEngine | None = None,
        keep_missing: bool = False,
        reread: bool = False,
    ) -> IngestResult:
        """Embed what is missing, then bring the vector store up to it where this process may.

        sources: of `captures` or `orthophoto`. backbones: every one of the six whose weights are here by default.
        keep_missing: views that a source no longer gives stay in its set. reread: every picture is read, whatever its
        size and time say.
        """
        sources = sources if isinstance(sources, Sequence) else [sources]
        with self.only_ingest():
            summaries = self._embed(
                sources, backbones, encoders or Encoders(self.settings), engine, keep_missing, reread
            )
        return self._drained(summaries)

    def ingest_captures(
        self,
        root: str | Path,
        backbones: Sequence[str] = (),
        *,
        encoders: Encoders | None = None,
        engine: IngestEngine | None = None,
        keep_missing: bool = False,
        reread: bool = False,
        map_sd_m: float | None = None,
        **options: Any,
    ) -> IngestResult:
        """Ingest a tree of captures, opened with `options` as by `captures`; all else as of `ingest`.

        Where nothing has changed since the same ingest left nothing to do, by names, sizes and times of all files,
        these are not opened, and the summaries say `unchanged`; with `reread` they always are.
        """
        from ingest import unchanged

        encoders = encoders or Encoders(self.settings)
        stated = {**options, "map_sd_m": map_sd_m, "keep_missing": keep_missing, "precision": encoders.precision}
        fingerprint = unchanged.fingerprint(Path(root), stated, lambda: encoders.specs(backbones))
        if fingerprint is not None and not reread:
            with self.only_ingest():
                recalled = unchanged.recall(self.db, fingerprint)
            if recalled:
                sets, recalled_summaries, notices = zip(*recalled, strict=True)
                for text in (*self._vanished_sets(sets), *chain.from_iterable(notices)):
                    self.notice(text)
                return self._drained(list(recalled_summaries))
        from coarseloc.imagery.captures import open_captures

        sources = open_captures(Path(root), **options)
        for source in sources:
            source.reference_set = replace(source.reference_set, map_sd_m=map_sd_m)
        with self.only_ingest():  # until it is remembered: no other ingest of these sets comes between
            summaries = self._embed(sources, backbones, encoders, engine, keep_missing, reread)
            if fingerprint is not None and not summaries[-1].interrupted:
                unchanged.remember(self.db, fingerprint, encoders.specs(backbones), sources, summaries)
        return self._drained(summaries)

    def _embed(
        self,
        sources: Sequence[TileSource],
        backbones: Sequence[str],
        encoders: Encoders,
        engine: IngestEngine | None,
        keep_missing: bool,
        reread: bool,
    ) -> list[IngestSummary]:
        """Embed what is missing of each source, in SQL alone; of none after one that was interrupted."""
        from ingest import precision_choice, worker
        from search.preflight.doubts import ingest_doubts

        if encoders.precision == "auto":
            for spec in encoders.specs(backbones):
                self.notice(precision_choice.choose_precision(self.db, encoders, spec, sources[0]))
        encoder_specs = encoders.specs(backbones)
        for text in self._vanished_sets([source.reference_set for source in sources]):
            self.notice(text)
        summaries: list[IngestSummary] = []
        for source in sources:
            for text in (*source.notices, *ingest_doubts(source, encoder_specs, self.settings.data_dir)):
                self.notice(text)
            with self.show_progress(f"ingest {source.reference_set.name}") as progress:
                summary = worker.run(
                    self.db,
                    source,
                    encoder_specs,
                    encoders.load,
                    self.settings.thumbnails,
                    progress,
                    engine or worker.in_process,
                    keep_missing,
                    reread,
                )
            summaries.append(summary)
            if summary.interrupted:
                break
        return summaries

    def _drained(self, summaries: list[IngestSummary]) -> IngestResult:
        """Bring the vector store up to the database after an ingest, where this process may."""
        from coarseloc.vectors import sync

        if summaries[-1].interrupted:
            return IngestResult(summaries, None, "interrupted: nothing was drained")
        try:
            with self.vectors() as store, self.show_progress("index") as progress:
                return IngestResult(summaries, sync.drain(self.db, store, progress), "")
        except (LockedError, VectorStoreUnavailable) as error:
            # Ingest never waits for the vector store: what is pending stays pending and is shown.
            with self.db.read() as session:
                pending = sum(embeddings.pending_counts(session).values())
            note = f"{pending} embeddings are pending, the vector store will follow later: {error}"
            return IngestResult(summaries, None, note)

    def _vanished_sets(self, sets: Sequence[ReferenceSet]) -> list[str]:
        """Describe sets of these captures' roots of whose altitude and overlap there is no capture any more."""
        capture_sets = [facts for facts in sets if facts.kind == "captures"]
        levels = {(facts.source, facts.altitude_m, facts.overlap) for facts in capture_sets}
        with self.db.read() as session:
            stored = [stored.reference_set for stored in references.reference_sets(session)]
        return [
            f"reference set {facts.name!r} was built from {facts.source}, which holds no captures at "
            f"{facts.altitude_m:g} m with {facts.overlap:.0%} overlap any more: it stays as it is. `coarseloc "
            f"references delete {facts.name}` removes it"
            for facts in stored
            if facts.kind == "captures"
            and facts.source in {source for source, _, _ in levels}
            and (facts.source, facts.altitude_m, facts.overlap) not in levels
        ]

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
        verify: bool = True,
        verified_places: int = 10,
        camera: Camera | None = None,
        map_sd_m: float | None = None,
        flight_id: str | None = None,
        encoders: Encoders | None = None,
        input_px: int | None = None,
        precision: str | None = None,
        fit: Fit | None = None,
    ) -> Runs:
        """Match every frame against the references, exactly and timed: a SearchRun per backbone (and heading).

        flight: opened, or its folder. where: among which references; `reference_sets` names those that are searched as
        one, the only one there is by default. verify: look for each frame on the map in metres afterwards, among
        its `verified_places` best places. camera: the flight's own by default. map_sd_m: the maps' own registration
        error, what was said when they were ingested by default.
        """
        from search.evaluation.summary import summarize_run
        from search.flight import run_search, shape_notices
        from search.preflight.doubts import search_doubts
        from search.verification import FixRequest, open_reference_maps, verify_run

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
        camera = camera.over(flight.camera) if camera else flight.camera
        for text in search_doubts(replace(flight, camera=camera), [stored.reference_set for stored in sets]):
            notice(text)
        request = FixRequest(camera, verified_places, map_sd_m) if verify else None
        maps = open_reference_maps(self.db, sets, map_sd_m) if verify else {}
        for reference in maps.values():
            if reference.refusal:
                notice(f"no fixes on reference set {reference.name}: {reference.refusal}")
        runs = Runs()
        for stored in self.stored_specs(sets, backbones, input_px, precision, fit):
            backbone = encoders.load_matching(stored.embedding_spec)
            for text in shape_notices(flight, sets, stored.embedding_spec):
                notice(text)
            with self.show_progress(f"search {stored.backbone}") as progress:
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
                    engine=self.settings.search_engine,
                    fix_parameters=request.to_json() if request else None,
                    progress=progress,
                    notice=notice,
                )
            if request:
                with self.show_progress(f"fix {stored.backbone}") as progress:
                    for run_id in started:
                        verify_run(
                            self.db, run_id, maps, request, device=backbone.device, progress=progress, notice=notice
                        )
            runs += [Run(self, *summarize_run(self.db, run_id), tuple(notices)) for run_id in started]
        return runs

    @overload
    def localize(self, image: str | Path | Flight, *, map: str | Path, **options: Any) -> Fixes: ...

    @overload
    def localize(self, image: str | Path | Flight, *, reference_set: str, **options: Any) -> Fixes: ...

    @overload
    def localize(self, image: str | Path | UInt8, **options: Any) -> Answer: ...

    def localize(
        self,
        image: str | Path | Flight | UInt8,
        *,
        map: str | Path | None = None,
        reference_set: str | None = None,
        **options: Any,
    ) -> Answer | Fixes:
        """Localize a picture by the embeddings of one backbone; or, where a map is named, a picture or a flight on all
        of that map in metres, without any embedding, as `coarseloc localize` does.

        By embeddings, in the exact mirrors: options as of `lookup`, `where` chooses the references.
        On a map: map, a GeoTIFF in any CRS, or reference_set, the source of that one; a flight's answers on a reference
        set are stored. Options: footprint_m and fov_deg of the camera, or camera; near, (lon, lat, metres), to look
        around there alone; map_sd_m, the map's own registration error; labels and device.
        """
        if map is not None or reference_set is not None:
            if isinstance(image, np.ndarray):
                raise InputError("an array was given: a map is searched with a picture's file or a flight's folder")
            return self._localize_on_map(image, map, reference_set, **options)
        if isinstance(image, Flight) or (isinstance(image, str | Path) and Path(image).is_dir()):
            raise InputError("a flight was given: search it, or name a map to localize it on (map= or reference_set=)")
        answers = self._answers(image, exact=True, **options)
        if len(answers) > 1:
            names = ", ".join(answers)
            raise InputError(f"the references are embedded by {names}: say which with backbone=")
        return next(iter(answers.values()))

    def _localize_on_map(
        self,
        source: str | Path | Flight,
        map_path: str | Path | None,
        reference_set: str | None,
        *,
        footprint_m: float | None = None,
        fov_deg: float | None = None,
        camera: Camera | None = None,
        near: tuple[float, float, float] | None = None,
        map_sd_m: float | None = None,
        labels: Path | None = None,
        device: str | None = None,
    ) -> Fixes:
        from coarseloc.imagery import flights

        stated = Camera(footprint_m, fov_deg).over(camera or Camera())
        if isinstance(source, Flight):
            flight, store = replace(source, camera=stated.over(source.camera)), source.path.is_dir()
        elif Path(source).is_file():
            flight, store = flights.open_image(Path(source), camera=stated), False
        else:
            flight, store = flights.open_flight(Path(source), labels=labels, camera=stated), True
        request = MapRequest(
            None if map_path is None else Path(map_path),
            reference_set=reference_set,
            near=None if near is None else Near(*near),
            sd_m=map_sd_m,
        )
        return Fixes(self.localize_on_map(flight, request, device=device, store=store))

    def lookup(self, image: str | Path | UInt8, **options: Any) -> dict[str, Answer]:
        """Find the references most like a picture among those that match, by Qdrant, {backbone: answer}.

        Where another process has the embedded store open, the exact mirrors answer: the same references, by FAISS, as
        `Answer.backend` says.

        image: a file, or RGB uint8 [H, W, 3]. Options: where, k, backbone (a name, or several), encoders, input_px,
        precision, fit.
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
        fit: Fit | None = None,
    ) -> dict[str, Answer]:
        from coarseloc.localize import localizer
        from search.export.infos import to_hit

        picture = (
            localizer.decode(Path(image))
            if isinstance(image, str | Path)
            else localizer.TimedImage(image, decode_ms=0.0)
        )
        where = where or Where()
        names = [backbone] if isinstance(backbone, str) else backbone
        sets = self.reference_sets(where) if exact or where.reference_sets else []
        encoders = encoders or Encoders(self.settings)
        answers = {}
        with self._indexes(exact, sets, where) as index_of:
            for stored in self.stored_specs(sets, names, input_px, precision, fit):
                encoder = encoders.load_matching(stored.embedding_spec, pictures=1)
                index = index_of(stored)
                ((answer,),) = localizer.localize([picture], encoder, [index], k)
                hits = tuple(to_hit(hit, self.settings.thumbnails) for hit in answer.hits[:k])
                name = stored.backbone
                answers[name] = Answer(name, answer.estimate, hits, answer.timing, index.backend)
        return answers

    @contextmanager
    def _indexes(
        self, exact: bool, sets: Sequence[StoredReferenceSet], where: Where
    ) -> Iterator[Callable[[StoredSpec], MirrorIndex | FilteredIndex]]:
        """Open what specs are searched in: exact mirrors, or the vector store, brought up to the database for each."""
        from coarseloc.vectors import sync

        with ExitStack() as stack:
            store = None
            if not exact:
                try:
                    store = stack.enter_context(self.vectors(_LOCK_PATIENCE_S))
                except LockedError as error:
                    self.notice(f"{error} FAISS answers meanwhile, exactly: the same references.")

            def index_of(spec: StoredSpec) -> MirrorIndex | FilteredIndex:
                if store is None:
                    return self.exact_index(sets or self.sets_embedded_by(spec, where), spec, where)
                sync.drain(self.db, store, spec=spec)
                return self.filtered_index(store, spec, where)

            yield index_of

    def speeds(
        self,
        backbones: Sequence[str] = (),
        *,
        input_sizes: Sequence[int] = (),
        images: Sequence[Path] = (),
        frames: int = 20,
        random_weights: bool = False,
        device: str | None = None,
        precision: str | None = None,
        references: int = 10_000,
        k: int = 10,
        batch: int = 8,
    ) -> Iterator[Speed]:
        """How fast backbones are on this device, a row as soon as it is measured: see `search.speed`.

        backbones: every one of the six whose weights are here by default. input_sizes: sides in pixels. images: files
        to decode and embed, `frames` of them at most, generated by default. random_weights: measure the six
        without their weights.
        """
        from search import speed

        yield from speed.measure_backbones(
            self.settings,
            backbones,
            input_sizes=input_sizes or speed.INPUT_SIZES,
            images=images,
            frames=frames,
            random_weights=random_weights,
            device=device or self.settings.device,
            precision=precision,
            measure=partial(speed.measure_encoder, references=references, k=k, batch=batch),
        )

    # --- what runs amount to --------------------------------------------------------------------

    def evaluate(
        self, *names: str | int, reference_set: str | None = None, method: str = "best-place", save: bool = False
    ) -> Evaluations:
        """Score runs, by number or a flight's newest by its id, against the truth; `.whole_maps` of the result is what
        the whole map gives for the same flights without any backbone. save: for the pages to read."""
        from search.evaluation import evaluate as evaluation

        evaluations = evaluation.evaluate_named(self.db, [str(name) for name in names], reference_set, method)
        if save:
            evaluation.save_evaluations(self.db, evaluations, evaluations.whole_maps)
        return evaluations

    def report(self, evaluations: Evaluations, file: Path, **options: Any) -> list[str]:
        """Write evaluations as one HTML file; returns notices. options: language, figures, frame, note."""
        from search.evaluation.report.runs import write_report

        with self.show_progress("report") as progress:
            return write_report(
                evaluations, self.settings.thumbnails, file, whole_maps=evaluations.whole_maps,
                tracks=evaluations.tracks, progress=progress, **options,
            )  # fmt: skip

    def export(
        self,
        flight_id: str,
        out_dir: str | Path,
        *,
        single: bool = False,
        formats: Sequence[str] | None = None,
        method: str = "best-place",
        crs: str | None = None,
        utc_offset_s: int | None = None,
        dem: Path | None = None,
        track_name: str | None = None,
    ) -> ExportSummary:
        """Write a flight's newest runs and stored tracks as files for other programs.

        formats: some of `FORMATS` (runs) and `TRACK_FORMATS`; None: what the flight has of them, but for what needs
        UTC. crs: positions as x and y of this projected CRS ("EPSG:32652") too. utc_offset_s: of the frames' times, for
        tracks, in place of what is stored. dem: heights of the ground above sea level, for tracks.
        track_name: which of several tracks, by evidence and options, such as "both --yaw labels".
        """
        from search.export.files import export

        summary = export(
            self.db,
            self.settings.thumbnails,
            flight_id,
            Path(out_dir),
            single=single,
            formats=formats,
            method=method,
            crs=crs,
            utc_offset_s=utc_offset_s,
            dem=dem,
            track_name=track_name,
        )
        for text in summary.notices:
            self.notice(text)
        return summary

    # --- bundles --------------------------------------------------------------------------------

    def bundle(
        self,
        flight_id: str,
        file: str | Path,
        *,
        backbones: Sequence[str] = (),
        reference_set: str | None = None,
        with_report: bool = True,
        language: str = "en",
        sign: Callable[[bytes], Mapping[str, Any]] | None = None,
    ) -> BundleSummary:
        """Write a flight's newest runs, its tracks and answers on whole maps as one file to hand on.

        backbones, reference_set: only these runs. sign: of `search.bundle.signature.signer`. Frames are read, for their
        digests. Raises StoreError (unknown flight, nothing finished), InputError (no run of these, file not writable).
        """
        from search.bundle.contents import write_bundle
        from search.export.infos import newest_runs

        names = {self._backbone(name) for name in backbones}
        newest = newest_runs(self.db, flight_id, reference_set)
        chosen = [run for run in newest if not names or run.spec.backbone in names]
        if not chosen:
            searched = ", ".join(sorted({run.spec.backbone for run in newest}))
            raise InputError(f"flight {flight_id} has no search by {', '.join(sorted(names))}, only by {searched}")
        report = self._bundled_report(chosen, language) if with_report else None
        with self.show_progress("bundle") as progress:
            return write_bundle(self.db, flight_id, chosen, Path(file), report, sign, progress, self.notice)

    def _bundled_report(self, chosen: Sequence[StoredRun], language: str) -> bytes | None:
        """A report of these runs, dated by the latest of them: equal answers give equal bytes."""
        evaluations = self.evaluate(*(run.id for run in chosen))
        finished = max(run.finished_at for run in chosen if run.finished_at is not None)
        with TemporaryDirectory() as folder:
            page = Path(folder) / "report.html"
            try:
                notices = self.report(evaluations, page, language=language, created_at=in_utc(finished))
            except InputError as error:  # nothing was answered
                self.notice(f"the bundle has no report: {error}")
                return None
            for text in notices:
                self.notice(text)
            return page.read_bytes()

    def reproduce(
        self,
        file: str | Path,
        *,
        flight: str | Path | None = None,
        backbones: Sequence[str] = (),
        device: str | None = None,
        tolerance: Tolerance | None = None,
    ) -> Reproduction:
        """Run a bundle's searches, and its fixes in metres, again on the references here; nothing is recorded.

        flight: the folder of the frames, where this data folder knows no other. backbones: only these runs. tolerance:
        what may differ without being called different. Raises InputError where the bundle is damaged or its frames
        are nowhere.
        """
        from search.bundle.archive import open_archive
        from search.bundle.comparison import Tolerance
        from search.bundle.reproduction import Reproducer

        with open_archive(Path(file)) as bundle:
            if damage := bundle.damage():
                damaged = ", ".join(member.name for member in damage)
                raise InputError(f"{file} is damaged ({damaged}): `coarseloc bundle check` says how")
            load = Encoders(self.settings, device).load_matching
            reproducer = Reproducer(
                self.db, self.settings.mirrors, bundle, load, tolerance or Tolerance(), self.show_progress, self.notice
            )
            names = [self._backbone(name) for name in backbones]
            return reproducer.reproduce(None if flight is None else Path(flight).resolve(), names)

    # --- studies --------------------------------------------------------------------------------

    def study_rotation(self, source: str, *, step: int = 15, patches: int = 6, **options: Any) -> StudyResult:
        """Measure how stable embeddings stay when the aircraft turns; goes on with, or looks up, an earlier study.

        options: the fields of `StudyRequest`. Raises InputError where the source does not serve.
        """
        from search.evaluation.studies.bench import StudyRequest, open_bench
        from search.evaluation.studies.rotation import run_rotation

        request = StudyRequest(source, **options)
        bench = open_bench(self.db, self.settings, request)
        with self.show_progress("rotation") as progress:
            return run_rotation(
                self.db, bench.ground, bench.specs, bench.load, bench.environment, frames_from=bench.frames_from,
                step=step, frames=request.frames, patches=patches, positions=request.positions,
                seed=request.seed, progress=progress,
            )  # fmt: skip

    def study_altitude(
        self,
        source: str,
        *,
        reference_m: float = 300.0,
        altitudes_m: Sequence[float] = (200, 250, 300, 350, 400, 450, 500, 550, 600),
        pyramid_m: Sequence[float] = (300, 600),
        **options: Any,
    ) -> StudyResult:
        """Measure how stable embeddings stay when the aircraft climbs, and what a pyramid gains; options as above."""
        from search.evaluation.studies.altitude import run_altitude
        from search.evaluation.studies.bench import StudyRequest, open_bench
        from search.evaluation.studies.ground import OrthophotoGround

        request = StudyRequest(source, **options)
        bench = open_bench(self.db, self.settings, request, turned=False)
        if not isinstance(bench.ground, OrthophotoGround):
            raise InputError(f"{source!r} is pictures: other altitudes can only be seen in an orthophoto")
        with self.show_progress("altitude") as progress:
            return run_altitude(
                self.db, bench.ground, bench.specs, bench.load, bench.environment, frames_from=bench.frames_from,
                reference_m=reference_m, altitudes_m=altitudes_m, pyramid_m=pyramid_m, overlap=request.overlap,
                max_references=request.references, frames=request.frames, positions=request.positions,
                seed=request.seed, progress=progress,
            )  # fmt: skip

    def report_study(self, study: StudyResult, file: Path, **options: Any) -> list[str]:
        """Write a study as one HTML file; returns notices. options: language, figures, note."""
        from search.evaluation.report.study import write_study

        with self.show_progress("report") as progress:
            return write_study(study, file, progress=progress, **options)


def open_flight(folder: str | Path, **options: Any) -> Flight:
    """Read a flight's folder: its frames in order, with the truth of each where it is known."""
    from coarseloc.imagery import flights

    return flights.open_flight(Path(folder), **options)


def open_captures(root: str | Path, **options: Any) -> Sequence[TileSource]:
    """Open already turned captures as sources of reference tiles, one for each altitude and overlap."""
    from coarseloc.imagery import captures

    return captures.open_captures(Path(root), **options)


def open_orthophoto(file: str | Path, **options: Any) -> TileSource:
    """Open a GeoTIFF as a source of reference tiles, cut on the fly and turned to each heading."""
    from coarseloc.imagery import orthophoto

    return orthophoto.open_orthophoto(Path(file), **options)
