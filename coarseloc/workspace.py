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
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from coarseloc.checks import FolderChecks
from coarseloc.core import config, ids
from coarseloc.core.camera import Camera
from coarseloc.core.clock import in_utc
from coarseloc.core.errors import InputError, LockedError, VectorStoreUnavailable
from coarseloc.core.filters import Where
from coarseloc.core.types import Backbone, Fit, Flight, Frame, Near, TileSource, UInt8
from coarseloc.embedding.encoders import Encoders
from coarseloc.results import Answer, Fixes, IngestResult, Run, Runs
from coarseloc.store import embeddings, flights, references, runs
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.flights import StoredFlight
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun
from coarseloc.vectors.protocol import VectorStore

if TYPE_CHECKING:
    from coarseloc.core.tracks import MotionSource, TrackEvidence
    from coarseloc.core.windows import WindowSource
    from coarseloc.live.session import LiveOutput, LiveRequest, LiveSession
    from coarseloc.live.sources import FrameSource
    from coarseloc.localize.tracking.tracker import LocalPlane
    from ingest.worker import IngestEngine, IngestSummary
    from search.boresight import FlightBoresight
    from search.bundle.comparison import Tolerance
    from search.bundle.contents import BundleSummary
    from search.bundle.reproduction import Reproduction
    from search.evaluation.evaluate import Evaluations
    from search.evaluation.studies.study import StudyResult
    from search.export.files import ExportSummary
    from search.export.records import FrameTrackInfo, MapLocalizationInfo
    from search.filtered_index import FilteredIndex
    from search.map_localization import MapLocalizer
    from search.mirror import Mirror
    from search.mirror_index import MirrorIndex
    from search.speed import Speed
    from search.tracking.cascade import Cascade
    from search.tracking.flight_track import TrackRequest


_LOCK_PATIENCE_S = 2.0  # of a look-up, until the process that has the embedded vectors open is done


def open_workspace(data_dir: str | Path | None = None, **settings: Any) -> Workspace:
    """Open the workspace of a data folder, `COARSELOC_DATA_DIR` by default; it is created where there is none yet.

    settings: any of `config.Settings`, in place of the environment's and coarseloc.toml's.
    """
    loaded = config.load(None if data_dir is None else Path(data_dir))
    return Workspace(loaded.model_copy(update=settings) if settings else loaded)


@dataclass(frozen=True, slots=True)
class MapRequest:
    """The map that frames are looked for on: a GeoTIFF in any CRS, or the source of a reference set.

    sd_m: its registration error, per axis; by default as the set was ingested, else half a ground sample distance, but
    of a track 1 m at least.
    """

    path: Path | None = None
    crs: str | None = None  # of the GeoTIFF, where its file does not say it rightly
    reference_set: str | None = None
    near: Near | None = None  # look around here alone
    sd_m: float | None = None


class Workspace(FolderChecks):
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
    ) -> IngestResult:
        """Embed what is missing, then bring the vector store up to it where this process may.

        sources: of `captures` or `orthophoto`. backbones: every one of the six whose weights are here by default.
        keep_missing: views that a source no longer gives stay in its set.
        """
        from coarseloc.vectors import sync
        from ingest import precision_choice, worker
        from search.preflight.doubts import ingest_doubts

        encoders = encoders or Encoders(self.settings)
        sources = sources if isinstance(sources, Sequence) else [sources]
        if encoders.precision == "auto":
            for spec in encoders.specs(backbones):
                self.notice(precision_choice.choose_precision(self.db, encoders, spec, sources[0]))
        encoder_specs = encoders.specs(backbones)
        summaries: list[IngestSummary] = []
        with self.only_ingest():
            for text in self._vanished_sets(sources):
                self.notice(text)
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
                    )
                summaries.append(summary)
                if summary.interrupted:
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

    def _vanished_sets(self, sources: Sequence[TileSource]) -> list[str]:
        """Describe sets of these captures' roots of whose altitude and overlap there is no capture any more."""
        given = [source.reference_set for source in sources if source.reference_set.kind == "captures"]
        levels = {(facts.source, facts.altitude_m, facts.overlap) for facts in given}
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
                encoder = encoders.load_matching(stored.embedding_spec)
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

    def localize_on_map(
        self,
        flight: Flight,
        map_request: MapRequest,
        *,
        device: str | None = None,
        previous: Mapping[int, MapLocalizationInfo] | None = None,
        store: bool = False,
    ) -> Iterator[MapLocalizationInfo]:
        """Find a flight's frames on a whole map, without any embedding: a record as soon as a frame is looked for.

        On a reference set's source a frame is expected to have its footprint where the flight's camera does not say. A
        width that is not given is tried on the first frames, and scanned where it does not fit. previous: records of an
        earlier, interrupted run by frame index; those of the same question are given back as they are. store: keep the
        answers on a reference set, to go on with, and for `evaluate` to hold beside those of backbones; `previous` is
        not looked at then.
        """
        from search.environment import machine
        from search.export.map_infos import map_localization_info
        from search.whole_map import localize_flight

        localizer, stored_set = self._map_localizer(flight, map_request, device)
        for text in flight.notices:
            self.notice(text)
        if store and stored_set:
            facts = machine(localizer.device, "")
            environment = {key: facts[key] for key in ("device", "cpu")}
            answers = localize_flight(
                self.db, flight, stored_set, localizer, near=map_request.near, environment=environment,
                fit_widths=self._fit_widths, notice=self.notice,
            )  # fmt: skip
            records: Iterator[MapLocalizationInfo] = (
                map_localization_info(answer, localizer, flight) for answer in answers
            )
        else:
            records = self._map_records(flight, localizer, previous or {})
        first = list(islice(records, 1))  # widths are tried first, with a progress of their own
        with self.show_progress("localize") as progress:
            for count, record in enumerate(chain(first, records), start=1):
                yield record
                if progress:
                    progress(count, len(flight.frames), "frames")

    def _map_records(
        self, flight: Flight, localizer: MapLocalizer, previous: Mapping[int, MapLocalizationInfo]
    ) -> Iterator[MapLocalizationInfo]:
        from coarseloc.localize.flight_scale import FIRST_FRAMES
        from search.export.map_infos import answers_again, map_localization_info

        first = flight.frames[:FIRST_FRAMES]
        if not all(
            frame.index in previous and answers_again(previous[frame.index], localizer, frame) for frame in first
        ):
            self._fit_widths(localizer, flight.frames)
        for frame in flight.frames:
            record = previous.get(frame.index)
            if record is None or not answers_again(record, localizer, frame):
                record = map_localization_info(localizer.localize(frame), localizer, flight)
            yield record

    def _fit_widths(self, localizer: MapLocalizer, frames: Sequence[Frame]) -> None:
        with self.show_progress("width of the first frames"):
            notices = localizer.fit_widths(frames)
        for text in notices:
            self.notice(text)

    def _map_localizer(
        self, flight: Flight, request: MapRequest, device: str | None, read: Callable[[Frame], UInt8] | None = None
    ) -> tuple[MapLocalizer, StoredReferenceSet | None]:
        """(a map opened for a flight's frames, the reference set that it is the source of). read: gives pixels."""
        from coarseloc.embedding.device import resolve_device
        from search.map_localization import MapLocalizer

        source, name, stored_set = self._map_source(request)
        facts = stored_set.reference_set if stored_set else None
        localizer = MapLocalizer(
            source,
            name,
            flight.camera,
            reference_footprint_m=facts.footprint_m if facts else None,
            near=request.near,
            map_sd_m=facts.map_sd_m if facts and request.sd_m is None else request.sd_m,
            boresights=flight.camera.boresights_by_path([frame.relative_path for frame in flight.frames]),
            device=str(resolve_device(device or self.settings.device)),
            read=read,
        )
        return localizer, stored_set

    def _map_source(self, request: MapRequest) -> tuple[WindowSource, str, StoredReferenceSet | None]:
        """(the map's windows, its name for records, the reference set that it is the source of)."""
        from coarseloc.imagery.windows import OrthophotoWindows
        from search.map_localization import reference_map

        if (request.path is None) == (request.reference_set is None):
            raise InputError("give either a map (--map) or a reference set (--reference-set), whose source is the map")
        if request.path is None and request.crs is not None:
            raise InputError(
                "--crs is of the file that --map names: a reference set keeps the CRS it was ingested with"
            )
        if request.path is not None:
            windows = OrthophotoWindows(request.path, request.crs)
            for text in windows.notices:
                self.notice(text)
            return windows, str(request.path), None
        with self.db.read() as session:
            stored = references.find_reference_set(session, request.reference_set)
            captures = references.captures(session, stored.id)
        return reference_map(stored.reference_set, captures), f"reference set {stored.name}", stored

    def track(
        self,
        flight: Flight | str,
        *,
        map_request: MapRequest | None = None,
        evidence: TrackEvidence = "fixes",
        run_ids: Sequence[int] = (),
        odometry: Literal["frames", "none"] | Path = "frames",
        online: bool = False,
        cascade: tuple[str, str] | None = None,
        yaw: Literal["labels", "none"] = "none",
        speed_mps: tuple[float, float] | None = None,
        camera: Camera | None = None,
        device: str | None = None,
    ) -> Iterator[FrameTrackInfo]:
        """Track a flight: a causal record as soon as each frame is looked for; both tracks are stored.

        flight: opened, to be looked for on a map; else the id of a recorded one, whose newest run, or `run_ids`, says
        where frames may be, and of whose maps `map_request` states the error alone. evidence: the order of the hits of
        that question's newest run of each backbone, or of `run_ids` ("ranks"); registrations on the map ("fixes"); or
        those about the places of both ("both"). odometry: what tells the motion between frames: their pictures, a table
        (`imagery.motion_tables`) or nothing. online: no smoothed track. cascade: (small, large) backbones, where ranks
        are evidence: the hits of the small one's run, and of the large one only while the place is not sure. yaw: the
        labels', as evidence of ranks and of turns that odometry does not tell. speed_mps: (least, most) over ground,
        for motion that odometry does not tell. camera: what comes before the flight's own. Stopped, the same call goes
        on.
        """
        from coarseloc.imagery.motion_tables import read_motion_table
        from search.export.map_infos import frame_track_info
        from search.tracking.flight_track import TrackRequest, track_flight

        table = read_motion_table(odometry) if isinstance(odometry, Path) else None
        source: MotionSource = "file" if isinstance(odometry, Path) else odometry
        map_request = map_request or MapRequest()
        request = TrackRequest(evidence, source, table, online, cascade, yaw == "labels", speed_mps)
        if cascade and evidence == "fixes":
            raise InputError("--cascade is of the hits of backbones: give --evidence ranks or both with it")
        if odometry == "none":
            self.notice("without odometry the causal track is not to be relied on: take the smoothed one")
        if isinstance(flight, Flight):
            stored, options = self._map_track(flight, request, map_request, device)
        else:
            stored, options = self._run_track(flight, request, run_ids, camera, map_request.sd_m, device)
        places = track_flight(self.db, stored, request=request, notice=self.notice, **options)
        with self.show_progress("track") as progress:
            for count, place in enumerate(places, start=1):
                yield frame_track_info(
                    stored.flight, place.frame, place.estimate, place.error, place.track_ms, place.larger_ms
                )
                if progress:
                    progress(count, len(stored.flight.frames), "frames")

    def _map_track(
        self, flight: Flight, request: TrackRequest, map_request: MapRequest, device: str | None
    ) -> tuple[StoredFlight, dict[str, Any]]:
        """(a flight, recorded; what it is tracked on: a map)."""
        from coarseloc.imagery.flights import fingerprint
        from search.tracking.filters import by_fixes
        from search.tracking.grounds import MapGround
        from search.whole_map import map_parameters

        if request.evidence != "fixes":
            raise InputError(
                f"--evidence {request.evidence} needs hits: search the flight and track it by its id. On a map alone "
                "there are fixes"
            )
        localizer, stored_set = self._map_localizer(flight, map_request, device)
        self._fit_widths(localizer, flight.frames)
        with self.db.write() as session:
            stored = flights.save_flight(session, flight)
        for text in (*flight.notices, *stored.notices):
            self.notice(text)
        parameters = map_parameters(localizer, map_request.near)
        if stored_set is not None:
            parameters["sets"] = [stored_set.uid]
            facts = {"uid": stored_set.uid, **asdict(stored_set.reference_set)}
        else:
            assert map_request.path is not None  # noqa: S101 - a map or a set was opened
            parameters["map"] = fingerprint(map_request.path)
            facts = {"name": localizer.map.name}
        ground = MapGround(localizer)
        return stored, {
            "ground": ground,
            "track_filter": partial(by_fixes, ground=ground, online=request.online),
            "reference_sets": [facts],
            "ground_parameters": parameters,
        }

    def _run_track(
        self,
        flight_id: str,
        request: TrackRequest,
        run_ids: Sequence[int],
        camera: Camera | None,
        map_sd_m: float | None,
        device: str | None,
    ) -> tuple[StoredFlight, dict[str, Any]]:
        """(a recorded flight, what it is tracked on: the best places of runs)."""
        from coarseloc.embedding.device import resolve_device
        from coarseloc.imagery.flight_toml import camera_of
        from search.tracking.filters import by_both, by_fixes, by_ranks
        from search.tracking.grounds import run_ground
        from search.tracking.ranks import run_ranks

        with self.db.read() as session:
            stored = flights.find_flight(session, flight_id)
        chosen = self._tracked_runs(
            stored, run_ids, several=request.evidence != "fixes", backbone=request.cascade and request.cascade[0]
        )
        ground, parameters = run_ground(
            self.db, chosen[-1], camera_of(stored.flight.path, camera), map_sd_m=map_sd_m,
            device=str(resolve_device(device or self.settings.device)),
            notice=self.notice if request.evidence != "ranks" else lambda _: None,
        )  # fmt: skip
        if request.evidence == "fixes":
            track_filter: Callable[..., Any] = partial(by_fixes, ground=ground, online=request.online)
        else:
            ranks = run_ranks(self.db, chosen, ground.plane, self.notice)
            cascade = request.cascade and self._cascade(stored, chosen[-1], request.cascade[1], ground.plane, device)
            options: dict[str, Any] = {"ranks": ranks, "online": request.online, "cascade": cascade}
            if request.evidence == "ranks":
                track_filter = partial(by_ranks, plane=ground.plane, **options)
            elif ground.has_maps:
                track_filter = partial(by_both, ground=ground, **options)
            else:
                raise InputError("--evidence both needs the references' imagery, which cannot be opened: take ranks")
        return stored, {
            "ground": ground,
            "track_filter": track_filter,
            "runs": [run.id for run in chosen],
            "reference_sets": [asdict(facts) for facts in chosen[-1].reference_sets],
            "ground_parameters": parameters,
        }

    def _cascade(
        self, stored: StoredFlight, run: StoredRun, name: str, plane: LocalPlane, device: str | None
    ) -> Cascade:
        """A larger backbone for a run's frames: of its own run of the same question, else embedded when it is asked."""
        from search.export.infos import newest_runs
        from search.tracking.cascade import embedded_cascade, recorded_cascade

        larger = self._backbone(name)
        if larger == run.spec.backbone:
            raise InputError(f"--cascade names {larger} twice: expected a small backbone and a larger one")
        for candidate in reversed(newest_runs(self.db, stored.flight.flight_id)):
            if candidate.question == run.question and candidate.spec.backbone == larger:
                self.notice(f"the hits of {larger} are those of run {candidate.id}; its times are of then")
                return recorded_cascade(self.db, candidate, plane)
        with self.db.read() as session:
            sets = [searched for searched in references.reference_sets(session) if searched.uid in run.set_uids]
        if len(sets) < len(run.set_uids):
            raise InputError(
                f"the references of run {run.id} are gone: {larger} cannot search them. Search the flight anew"
            )
        (spec,) = self.stored_specs(sets, [larger])
        heading = run.parameters.get("angle_deg")
        where = Where.from_json(run.parameters["where"])
        if heading is not None:
            where = replace(where, angles=(heading,))

        def opened() -> tuple[Backbone, MirrorIndex]:
            encoder = Encoders(self.settings, device).load_matching(spec.embedding_spec)
            return encoder, self.exact_index(sets, spec, where)

        frames = {frame.index: frame for frame in stored.flight.frames}
        return embedded_cascade(larger, opened, frames, plane, run.parameters["k"])

    def _backbone(self, name: str) -> str:
        """A backbone's own name, of any spelling that the table knows. Raises InputError where it has none."""
        from coarseloc.embedding import specs

        return specs.row(name, specs.table(self.settings.backbones)).name

    def _tracked_runs(
        self, stored: StoredFlight, run_ids: Sequence[int], *, several: bool, backbone: str | None = None
    ) -> list[StoredRun]:
        """The runs asked for; else the newest, with those of other backbones that were asked the same where several
        serve. backbone: the one whose run alone is meant."""
        from search.export.infos import newest_runs

        flight_id = stored.flight.flight_id
        if not run_ids:
            newest = newest_runs(self.db, flight_id)
            if backbone is not None:
                name = self._backbone(backbone)
                by_backbone = [run for run in newest if run.spec.backbone == name]
                if not by_backbone:
                    names = ", ".join(sorted({run.spec.backbone for run in newest}))
                    raise InputError(
                        f"flight {flight_id} has no search by {name}, only by {names}: a cascade begins with a run of "
                        "its small backbone"
                    )
                return by_backbone[-1:]
            latest = newest[-1]
            return [run for run in newest if run.question == latest.question] if several else [latest]
        with self.db.read() as session:
            chosen = [runs.find_run(session, run_id) for run_id in run_ids]
        for run in chosen:
            if run.flight_id != flight_id:
                raise InputError(f"run {run.id} is of flight {run.flight_id}, not of {flight_id}")
            if run.question != chosen[0].question:
                raise InputError(f"runs {chosen[0].id} and {run.id} were not asked the same: they make no one track")
        if len(chosen) > 1 and not several:
            raise InputError("--evidence fixes takes the places of one run: give one --run")
        return chosen

    def live(
        self,
        source: FrameSource,
        map_request: MapRequest,
        *,
        device: str | None = None,
        request: LiveRequest | None = None,
        open_outputs: Callable[[], Sequence[LiveOutput]] = list,
    ) -> LiveSession:
        """Track a flight while it is flown, on a map: iterate over what this returns.

        Its records are kept as JSON lines in the data folder too, where the page Live reads them. open_outputs: called
        once all else is known to be right; what it returns is closed when the session ends.
        """
        from coarseloc.imagery.terrain import terrain_heights_m
        from coarseloc.live.outputs import JsonLines
        from coarseloc.live.recordings import new_recording
        from coarseloc.live.session import HeldPictures, LiveRequest, LiveSession
        from coarseloc.localize.flight_scale import FIRST_FRAMES
        from search.tracking.grounds import MapGround

        flight, pictures = source.flight, HeldPictures()
        localizer, _ = self._map_localizer(flight, map_request, device, pictures.read)
        for text in flight.notices:
            self.notice(text)
        request = request or LiveRequest()
        if request.odometry == "none":
            self.notice("without odometry the causal track is not to be relied on")
        if request.dem is not None:
            terrain_heights_m(request.dem, [])  # raises where it is of no use, before the flight begins

        def open_ground(first: Sequence[Frame]) -> MapGround:
            self._fit_widths(localizer, first)
            return MapGround(localizer)

        outputs = [*open_outputs(), JsonLines(new_recording(self.settings.data_dir, flight.flight_id))]
        trial_frames = FIRST_FRAMES if flight.camera.footprint_m is None else 1
        return LiveSession(source, open_ground, pictures, request, outputs, self.notice, trial_frames)

    def boresight(
        self, flight_id: str, *, run_id: int | None = None, camera: Camera | None = None, apply: bool = False
    ) -> tuple[FlightBoresight, Path | None]:
        """Estimate the angle between a recorded flight's camera and the vertical, leg by leg, from its fixes and truth.

        camera: what comes before the flight's flight.toml. apply: write the legs there, for later fixes; returns the
        file's path then.
        """
        from coarseloc.imagery.flight_toml import camera_of, write_boresights
        from search.boresight import flight_boresight

        with self.db.read() as session:
            folder = flights.find_flight(session, flight_id).flight.path
        estimate = flight_boresight(self.db, flight_id, camera_of(folder, camera), run_id)
        return estimate, write_boresights(folder, estimate.legs()) if apply else None

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
